"""`posecli run` through the command line, on small real media and on broken ones."""

import contextlib
import io
import json
import os
import random
import signal
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from posecli.media.images import read_image
from posecli.media.video import VideoReader
from tests.entry_points import QUICK, posecli, start
from tests.media_factory import picture, write_photo, write_video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos and two clips in a tree."""
    root = tmp_path / "in put"
    write_photo(root / "a.jpg", picture(120, 90, 1))
    write_photo(root / "sub" / "a.jpg", picture(60, 90, 2))
    write_photo(root / "sub" / "ü b.png", picture(33, 21, 3))
    write_video(root / "clip.mp4", 12, 96, 64, times=[i * 40 + i % 3 for i in range(12)], sound="aac")
    write_video(root / "sub" / "odd.avi", 7, 64, 48, codec="mpeg4", time_base=Fraction(1, 25))
    return root


def files_of(out: Path) -> dict[str, bytes]:
    """What a run leaves for its user, run.json (which holds times) and the gallery (likewise) apart."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "index.html") and ".posecli" not in path.parts
    }


def test_a_mixed_folder_ends_in_media_and_json(
    folder: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = folder / "results"  # inside its own input
    result = posecli(capfd, "run", folder, "--out", out, "--weights", tiny_weights, *QUICK, "--kpt-thr", 0)
    assert result.code == 0, result.err
    assert set(files_of(out)) == {
        "a.jpg",
        "clip.mp4",
        "coco.json",
        "coco_results.json",
        "sub/a.jpg",
        "sub/odd.avi.mp4",
        "sub/ü b.png",
    }
    assert read_image(out / "a.jpg").shape == (90, 120, 3)
    assert not np.array_equal(read_image(out / "sub/ü b.png"), picture(33, 21, 3))
    with VideoReader(folder / "clip.mp4") as before, VideoReader(out / "clip.mp4") as after:
        assert [f.time for f in before] == [f.time for f in after]
        assert after.has_audio
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(out / "coco.json"))
        coco.loadRes(str(out / "coco_results.json"))
    assert len(coco.getImgIds()) == 3 + 12 + 7 and len(coco.getAnnIds()) == 22
    person = coco.dataset["annotations"][0]
    assert len(person["keypoints"]) == 51 and len(person["keypoint_std"]) == 17
    assert 0 <= person["score"] <= 1 and person["num_keypoints"] == 17
    run = json.loads((out / "run.json").read_bytes())
    assert run["totals"] == {"inputs": 5, "status": {"done": 5}, "frames": 22, "people": 22, "lost_frames": 0}
    assert run["models"]["pose"]["sha256"] and run["versions"]["posecli"]
    assert "clip.mp4" in (out / "index.html").read_text()


def test_started_again_it_skips_and_a_changed_option_does_it_anew(
    folder: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ("run", folder, "-o", out, "--weights", tiny_weights, *QUICK, "--json")
    first = json.loads(posecli(capfd, *command).out)
    files = files_of(out)
    assert first["totals"]["status"] == {"done": 5}
    write_photo(folder / "a.jpg", picture(100, 80, 9))  # another content under the same name
    (out / "sub" / "a.jpg").unlink()
    second = json.loads(posecli(capfd, *command).out)
    assert second["totals"]["status"] == {"done": 2, "skipped": 3}
    assert files_of(out)["clip.mp4"] == files["clip.mp4"] and files_of(out)["a.jpg"] != files["a.jpg"]
    assert json.loads(posecli(capfd, *command, "--flip").out)["totals"]["status"] == {"done": 5}
    assert json.loads(posecli(capfd, *command, "--flip", "--overwrite").out)["totals"]["status"] == {"done": 5}


def test_one_bad_input_never_ends_a_run(tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    good = write_photo(root / "good.jpg", picture(90, 90)).read_bytes()
    clip = write_video(root / "good.mp4", 60).read_bytes()
    (root / "empty.jpg").touch()
    (root / "text.jpg").write_text("not a photo")
    (root / "cut.jpg").write_bytes(good[: len(good) // 2])
    (root / "cut.mp4").write_bytes(clip[:400])
    (root / "empty.mp4").touch()
    write_video(root / "sound.mp4", sound="aac", picture_stream=False)
    (root / "dangling.jpg").symlink_to(root / "nowhere.jpg")
    write_photo(root / "large.png", picture(300, 300))
    out = tmp_path / "out"
    result = posecli(
        capfd, "run", root, root / "gone.jpg", "-o", out, "--weights", tiny_weights, *QUICK, "--max-pixels", 50000
    )
    assert result.code == 1
    run = json.loads((out / "run.json").read_bytes())
    errors = {item["name"]: item["error"] for item in run["inputs"]}
    assert {name for name, error in errors.items() if error is None} == {"good.jpg", "good.mp4"}
    for name, words in {
        "empty.jpg": "empty",
        "text.jpg": "neither a photo nor a video",
        "cut.jpg": "damaged",
        "cut.mp4": "cannot be opened",
        "sound.mp4": "only sound",
        "dangling.jpg": "No such file",
        "gone.jpg": "No such file",
        "large.png": "over the limit",
    }.items():
        assert name in errors[name] and words in errors[name]
        assert "\n" not in errors[name] and errors[name] in result.err
    assert "Traceback" not in result.err
    assert set(files_of(out)) == {"good.jpg", "good.mp4", "coco.json", "coco_results.json"}
    assert len(json.loads((out / "coco.json").read_bytes())["images"]) == 61


def test_boxes_from_a_file_fail_only_the_picture_they_do_not_know(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        write_photo(tmp_path / "in" / f"{name}.jpg")
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "c.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 30]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(truth))
    detector = ("--detector", f"boxes:{tmp_path / 'boxes.json'}")
    out = tmp_path / "out"
    result = posecli(
        capfd, "run", tmp_path / "in", "-o", out, "--weights", tiny_weights, "--runtime", "torch", *detector, "--json"
    )
    assert result.code == 1
    assert [(i["name"], i["people"], i["status"]) for i in json.loads(result.out)["inputs"]] == [
        ("a.jpg", 1, "done"),
        ("b.jpg", 0, "failed"),
        ("c.jpg", 0, "done"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run"], 2, "Missing argument"),
        (["run", "IN", "--kpt-thr", "2"], 2, "range"),
        (["run", "IN", "--decode", "magic"], 2, "is not one of 'auto', 'argmax'"),
        (["run", "IN", "--detector", "yolo"], 2, "choose from person"),
        (["run", "IN", "--device", "tpu"], 2, "auto, cpu, cuda"),
        (["run", "EMPTY"], 3, "no photo or video"),
        (["run", "IN", "--weights", "gone.safetensors"], 4, "no such weights file"),
        (["run", "IN", "--out", "FILE"], 4, "cannot be written"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_exit_codes_and_one_line_errors(
    arguments: list[str], code: int, words: str, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_photo(tmp_path / "in" / "a.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    places = {"IN": tmp_path / "in", "EMPTY": tmp_path / "empty", "FILE": tmp_path / "file" / "x"}
    line = [str(places.get(a, a)) for a in arguments]
    if "run" in line and "--weights" not in line:
        line += ["--weights", str(tiny_weights)]
    if "run" in line and "--out" not in line:
        line += ["--out", str(tmp_path / "out")]
    result = posecli(capfd, *line)
    assert result.code == code and words in result.err, result
    assert "Traceback" not in result.err and result.out == ""


def test_dry_run_writes_nothing(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    result = posecli(capfd, "run", folder, "-o", out, "--dry-run", "--json")
    assert [row["output"] for row in json.loads(result.out)][:2] == ["a.jpg", "clip.mp4"]
    assert not out.exists()


def test_outputs_of_one_name_do_not_meet(tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "in"
    write_video(root / "clip.mkv", 3)
    write_video(root / "clip.mkv.mp4", 4)
    out = tmp_path / "out"
    assert posecli(capfd, "run", root, "-o", out, "--weights", tiny_weights, *QUICK).code == 0
    names = [item["outputs"] for item in json.loads((out / "run.json").read_bytes())["inputs"]]
    assert len({tuple(n) for n in names}) == 2 and all((out / n[0]).is_file() for n in names)


def many(root: Path) -> Path:
    for i in range(6):
        write_photo(root / f"p{i}.jpg", picture(80 + i, 60, i))
        write_video(root / f"v{i}.mp4", 40, 160, 120)
    return root


def test_killed_at_random_and_started_again_it_ends_the_same(tmp_path: Path, tiny_weights: Path) -> None:
    root = many(tmp_path / "in")
    options = ("--weights", tiny_weights, *QUICK, "--kpt-thr", 0)
    undisturbed = start("run", root, "-o", tmp_path / "one", *options)
    assert undisturbed.communicate(timeout=200)[0] is not None and undisturbed.returncode == 0
    out = tmp_path / "two"
    chance = random.Random(5)
    kills = 0
    for _ in range(2):
        process = start("run", root, "-o", out, *options)
        records = out / ".posecli" / "records"
        wanted = len(list(records.glob("*/*.jsonl"))) + chance.randint(1, 4)
        while process.poll() is None and len(list(records.glob("*/*.jsonl"))) < wanted:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills == 2
    final = start("run", root, "-o", out, *options, "--json")
    printed, messages = final.communicate(timeout=200)
    assert final.returncode == 0, messages
    document = json.loads(printed)
    assert document["totals"]["status"].get("skipped", 0) > 0
    assert files_of(out) == files_of(tmp_path / "one")


def test_interrupted_it_says_so_keeps_what_is_done_and_goes_on(tmp_path: Path, tiny_weights: Path) -> None:
    root = many(tmp_path / "in")
    out = tmp_path / "out"
    process = start("run", root, "-o", out, "--weights", tiny_weights, *QUICK, PYTHONUNBUFFERED="1")
    records = out / ".posecli" / "records"
    while process.poll() is None and len(list(records.glob("*/*.jsonl"))) < 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert len(json.loads((out / "coco.json").read_bytes())["images"]) >= 2
    assert not list(out.rglob("*.part"))
    again = start("run", root, "-o", out, "--weights", tiny_weights, *QUICK, "--json")
    document = json.loads(again.communicate(timeout=200)[0])
    assert document["totals"]["status"]["skipped"] >= 2 and document["totals"]["frames"] == 6 + 240


def test_a_full_disk_stops_the_run_with_one_line(
    folder: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import posecli.results.media_writer as sink

    def full(path: Path, pixels: object) -> None:
        raise OSError(28, os.strerror(28), str(path))

    monkeypatch.setattr(sink, "write_image", full)
    result = posecli(capfd, "run", folder, "-o", tmp_path / "out", "--weights", tiny_weights, *QUICK)
    assert result.code == 4 and "disk is full" in result.err and "Traceback" not in result.err


def test_pace_counts_parts_of_the_input_at_work() -> None:
    from posecli.cli.progress import Pace

    pace = Pace(4)
    assert pace.completed == 0 and pace.left == "unknown"
    pace.begin("a", 10)
    pace.advance("a", 5)
    assert pace.completed == 0.5
    pace.begin("b", 4)  # read by another process
    pace.advance("b", 1)
    assert pace.completed == 0.75
    pace.finish("a")
    assert pace.completed == 1.25
    pace.finish("b")
    pace.begin("c", 0)  # a video that does not say how long it is
    pace.advance("c", 100)
    assert pace.completed == 2 and pace.frames == 106
    assert pace.left.count(":") == 1


def test_names_that_are_no_utf8_or_hold_newlines_or_are_huge_numbers(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "in"
    for name in (b"\xff.jpg", b"a\nb.jpg", b"123456789012345678901234.jpg"):
        write_photo(root / "x.jpg").rename(root / os.fsdecode(name))
    (root / os.fsdecode(b"bad\xfe.jpg")).touch()
    out = tmp_path / "out"
    result = posecli(capfd, "run", root, "-o", out, "--weights", tiny_weights, *QUICK, "--json")
    assert result.code == 1
    ended = {item["name"]: item["status"] for item in json.loads(result.out)["inputs"]}
    assert ended == {"?.jpg": "done", "a\nb.jpg": "done", "123456789012345678901234.jpg": "done", "bad?.jpg": "failed"}
    assert (out / "?.jpg").is_file() and len(json.loads((out / "coco.json").read_bytes())["images"]) == 3
