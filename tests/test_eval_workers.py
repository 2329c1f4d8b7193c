"""`posecli eval --workers`: the predictions of one process."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from posecli.evaluate import workers
from tests.entry_points import posecli
from tests.media_factory import picture, write_photo

CPU = ("--device", "cpu", "--runtime", "openvino")
IMAGES = 9


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ground truth of two people in each image, one of another size than its file."""
    root = tmp_path_factory.mktemp("validation")
    images, people = [], []
    for number in range(1, IMAGES + 1):
        write_photo(root / f"{number}.jpg", picture(96, 64, number))
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 96, "height": 64})
        for left in (5, 50):
            points = [value for joint in range(17) for value in (left + joint, 20 + 2 * joint, 2)]
            person = {"id": len(people) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "keypoints": points}
            people.append({**person, "num_keypoints": 17, "bbox": [left, 10, 30, 45], "area": 1350})
    from posecli.keypoints import COCO17

    category = {"id": 1, "name": "person", "keypoints": list(COCO17.names)}
    (root / "ann.json").write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    return root


def line(validation: Path, out: Path, weights: Path, *more: object) -> list[object]:
    truth = ("--ann", validation / "ann.json", "--images", validation, "--bootstrap", 0)
    return ["eval", weights, *truth, *CPU, "-o", out, *more]


@pytest.mark.parametrize("more", [("--boxes", "gt", "--decode", "argmax", "--decode", "oks"), ("--boxes", "whole")])
def test_predictions_are_those_of_one_process_also_when_a_worker_is_killed(
    more: tuple[str, ...], validation: Path, tmp_path: Path, tiny_weights: Path, capfd: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(workers, "_IMAGES", 2)
    result = posecli(capfd, *line(validation, tmp_path / "one", tiny_weights, *more))
    assert result.code == 0, result.err
    started: list[int] = []
    start = workers._start

    def starting(place: int, setup: Any) -> Any:
        worker = start(place, setup)
        started.append(worker.process.pid)
        if len(started) == 2 and more[1] == "gt":
            os.kill(worker.process.pid, signal.SIGKILL)
        return worker

    monkeypatch.setattr(workers, "_start", starting)
    result = posecli(capfd, *line(validation, tmp_path / "two", tiny_weights, *more, "--workers", 2))
    assert result.code == 0, result.err
    assert len(started) == (3 if more[1] == "gt" else 2)
    found = [sorted(path.relative_to(folder) for path in folder.rglob("coco_results.json"))
             for folder in (tmp_path / "one", tmp_path / "two")]  # fmt: skip
    assert found[0] == found[1] and len(found[0]) == (2 if more[1] == "gt" else 1)
    for name in found[0]:
        content = (tmp_path / "one" / name).read_bytes()
        assert len(json.loads(content)) == (2 if more[1] == "gt" else 1) * IMAGES
        assert content == (tmp_path / "two" / name).read_bytes()


def test_an_error_of_an_image_is_that_of_one_process(
    validation: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(workers, "_IMAGES", 2)
    broken = validation / "5.jpg"
    content = broken.read_bytes()
    broken.write_bytes(content[:40] + bytes(100))
    try:
        results = [
            posecli(capfd, *line(validation, tmp_path / "out", tiny_weights, "--workers", count)) for count in (1, 2)
        ]
    finally:
        broken.write_bytes(content)
    assert results[0].code == results[1].code != 0
    assert results[0].err == results[1].err and "5.jpg" in results[0].err
