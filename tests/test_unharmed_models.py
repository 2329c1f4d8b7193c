"""`posecli train` and `posecli eval` overwrite no file that they read, nor over files of other programs."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from posecli.results.lock import locked
from tests.entry_points import Result, posecli
from tests.media_factory import picture, write_photo
from tests.test_unharmed import snapshot


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two photos with a person each."""
    from posecli.keypoints import COCO17
    from posecli.results.coco import coco_category

    root = tmp_path / "data"
    points = np.stack([np.linspace(10, 70, 17), np.linspace(10, 50, 17), np.full(17, 2)], axis=1)
    for number in (1, 2):
        write_photo(root / f"{number}.jpg", picture(80, 60, number))
    document = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 80, "height": 60} for i in (1, 2)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 70, 50], "area": 3500, "iscrowd": 0,
             "keypoints": points.ravel().tolist(), "num_keypoints": 17}
            for i in (1, 2)
        ],
        "categories": [coco_category(COCO17)],
    }  # fmt: skip
    (root / "truth.json").write_text(json.dumps(document))
    return root


@pytest.fixture
def evaluate(data: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def call(*arguments: object, ann: Path | None = None) -> Result:
        line = ("--ann", ann or data / "truth.json", "--images", data, "--runtime", "torch", "--bootstrap", 0)
        return posecli(capfd, "eval", *line, *arguments)

    return call


def test_eval_refuses_to_replace_what_it_reads(data: Path, tmp_path: Path, tiny_weights: Path, evaluate) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    assert evaluate(tiny_weights, "-o", out).code == 0
    assert {path.name for path in out.iterdir()} >= {"metrics.json", "coco_results.json", "report.html"}
    assert evaluate(tiny_weights, "-o", out).code == 0  # its own files are replaced
    before = snapshot(tmp_path)
    results = out / "coco_results.json"
    (tmp_path / "link").symlink_to(out)
    truth = out / "comparison.json"
    os.link(data / "truth.json", truth)
    before[truth] = (truth.read_bytes(), truth.stat().st_ino)
    for arguments, ann in (
        (["--results", results, "-o", out], None),
        (["--results", results, "-o", tmp_path / "link"], None),
        ([tiny_weights, "-o", out], None),
        ([tiny_weights, "-o", out], truth),
        ([tiny_weights, "--boxes", results, "-o", out], None),
    ):
        result = evaluate(*arguments, ann=ann)
        assert result.code == 2 and "would replace the input" in result.err, result
    truth.unlink()
    del before[truth]
    assert snapshot(tmp_path) == before


def test_eval_does_not_replace_the_results_of_a_run(data: Path, tmp_path: Path, tiny_weights: Path, evaluate) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    out.mkdir()
    (out / "coco_results.json").write_text("[]")
    result = evaluate(tiny_weights, "-o", out)
    assert result.code == 2 and "was not written by posecli eval" in result.err
    assert (out / "coco_results.json").read_text() == "[]"


def test_a_second_eval_or_training_into_the_same_folder(
    data: Path, tmp_path: Path, tiny_weights: Path, evaluate, capfd: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    with locked(tmp_path / "out", "--out"):
        result = evaluate(tiny_weights, "-o", tmp_path / "out")
    assert result.code == 4 and "another posecli is writing there" in result.err
    with locked(tmp_path / "runs" / "a", "--runs", ".lock"):
        result = train(capfd, data, "--runs", tmp_path / "runs", "--name", "a")
    assert result.code == 4 and "another posecli is writing there" in result.err


def train(capfd: pytest.CaptureFixture[str], data: Path, *arguments: object) -> Result:
    line = ("--ann", data / "truth.json", "--images", data, "--preview", 2, "--device", "cpu", "--stages", "64x64:4")
    return posecli(capfd, "train", *line, *arguments)


@pytest.mark.parametrize("name", ["options.json", "preview.jpg", "last.safetensors", "metrics.csv", "state.part"])
def test_train_refuses_to_write_over_its_data(
    name: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    os.link(data / ("truth.json" if name.startswith("o") else "2.jpg"), folder / name)
    before = snapshot(tmp_path)
    result = train(capfd, data, "--runs", tmp_path / "runs", "--name", "a")
    assert result.code == 2 and "would replace the input" in result.err, result
    assert snapshot(tmp_path) == before


def test_train_keeps_out_of_somebodys_folder(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (data / "metrics.csv").write_text("mine")
    before = snapshot(tmp_path)
    result = train(capfd, data, "--runs", tmp_path, "--name", "data", "--cache", tmp_path / "cache")
    assert result.code == 2 and "metrics.csv is not of a run" in result.err, result
    assert snapshot(tmp_path) == before
    (data / "metrics.csv").unlink()
    assert train(capfd, data, "--runs", tmp_path / "runs").code == 0
    assert train(capfd, data, "--runs", tmp_path / "runs").code == 0
    os.link(data / "1.jpg", tmp_path / "runs" / "crops" / "crops-384-0.jpegs")
    result = train(capfd, data, "--runs", tmp_path / "runs")
    assert result.code == 2 and "would replace the input" in result.err


def test_train_reads_its_first_weights_only(
    data: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    last = tmp_path / "runs" / "a" / "last.safetensors"
    last.parent.mkdir(parents=True)
    last.write_bytes(tiny_weights.read_bytes())
    result = train(capfd, data, "--runs", tmp_path / "runs", "--name", "a", "--init", last)
    assert result.code == 2 and "would replace the input" in result.err and last.stat().st_size


def test_an_unfinished_training_is_not_resumed_with_other_data(
    data: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from posecli.train import loop

    def begin(*arguments: object) -> Result:
        line = ("--ann", data / "truth.json", "--images", data, "--device", "cpu", "--stages", "64x64:4")
        line += ("--batch-size", 2, "--deconv", 8, "--runs", tmp_path / "runs", "--constant-fraction", 0.5)
        return posecli(capfd, "train", *line, *arguments)

    def stop(*arguments: object, **options: object) -> None:
        (tmp_path / "runs" / "simcc" / "state.pt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", stop)
    assert begin().code == 130
    assert begin().code == 130  # the same data
    result = begin("--init", tiny_weights)
    assert result.code == 2 and "began with other init" in result.err, result
    truth = json.loads((data / "truth.json").read_bytes())
    truth["annotations"][0]["keypoints"][0] += 3
    (data / "truth.json").write_text(json.dumps(truth))
    result = begin()
    assert result.code == 2 and "began with other people" in result.err, result


def test_another_picture_under_the_same_name_is_packed_anew(data: Path, tmp_path: Path) -> None:
    from posecli.train.data import Source, read_people
    from posecli.train.packing import pack_crops

    def packed() -> bytes:
        crops = pack_crops(read_people([Source(data / "truth.json", data)]), tmp_path / "cache")
        return np.asarray(crops.data).tobytes()

    first = packed()
    assert packed() == first and len(list((tmp_path / "cache").glob("*.jpegs"))) == 1
    write_photo(data / "1.jpg", picture(80, 60, 9))
    assert packed() != first
