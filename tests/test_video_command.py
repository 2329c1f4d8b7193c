"""`posecli video` through the command line, on small clips."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import av
import pytest

from tests import media_factory
from tests.entry_points import QUICK, posecli, start
from tests.media_factory import picture, write_photo, write_video


def document(out: Path) -> dict[str, list[dict[str, object]]]:
    return json.loads((out / "coco.json").read_bytes())  # type: ignore[no-any-return]


def test_ids_smoothing_and_sound(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The usual pictures differ so much from frame to frame that each is taken for a scene of its own.
    monkeypatch.setattr(media_factory, "picture", lambda width=64, height=48, _=0: picture(width, height))
    write_video(tmp_path / "in" / "a.mp4", 25, sound="aac")
    write_photo(tmp_path / "in" / "p.jpg")  # passed over
    out = tmp_path / "out"
    looks = ("--show-ids", "--trails", "--side-by-side", "--blur-faces", "--format", "csv", "--format", "mot")
    result = posecli(capfd, "video", tmp_path / "in", "-o", out, "--weights", tiny_weights, *QUICK, *looks)
    assert result.code == 0, result
    found = document(out)
    assert len(found["images"]) == 25 and len(found["videos"]) == 1
    assert {person["track_id"] for person in found["annotations"]} == {1}
    assert all("keypoints_raw" in person for person in found["annotations"])
    with av.open(str(out / "a.mp4")) as container:
        video = container.streams.video[0]
        assert (video.width, video.height) == (128, 48) and container.streams.audio
    with (out / "a.mp4.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25 * 17 and {row["track_id"] for row in rows} == {"1"}
    boxes = (out / "a.mp4.mot.txt").read_text().splitlines()
    assert len(boxes) == 25 and boxes[24].startswith("25,1,")


def test_a_part_of_a_clip_keeps_its_own_numbers_and_times(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "a.mp4", 50)
    part = ("--start", "0.4", "--end", "f30", "--stride", 3)
    out = tmp_path / "out"
    assert posecli(capfd, "video", clip, "-o", out, "--weights", tiny_weights, *QUICK, *part).code == 0
    assert [(image["frame_index"], image["time_s"]) for image in document(out)["images"]] == [
        (index, pytest.approx(index / 25)) for index in range(10, 30, 3)
    ]


def test_offline_smoothing_and_carried_boxes(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "a.mp4", 30)
    out = tmp_path / "out"
    how = ("--smooth", "offline", "--detect-every", 5, "--person", "largest")
    assert posecli(capfd, "video", clip, "-o", out, "--weights", tiny_weights, *QUICK, *how).code == 0
    assert len(document(out)["images"]) == 30 and document(out)["annotations"]
    assert not list((out / ".posecli" / "journals").iterdir())
    with av.open(str(out / "a.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 30


def test_without_tracking_every_frame_stands_for_itself(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "a.mp4", 5)
    out = tmp_path / "out"
    assert posecli(capfd, "video", clip, "-o", out, "--weights", tiny_weights, *QUICK, "--no-track").code == 0
    assert all("track_id" not in p and "keypoints_raw" not in p for p in document(out)["annotations"])


@pytest.mark.parametrize("smooth", ["kalman", pytest.param("offline", marks=pytest.mark.slow)])
def test_killed_within_a_clip_it_goes_on_there_and_ends_the_same(
    tmp_path: Path, tiny_weights: Path, smooth: str
) -> None:
    clip = write_video(tmp_path / "a.mp4", 300, 160, 120)
    options = ("--weights", tiny_weights, *QUICK, "--smooth", smooth, "--trails", "--kpt-thr", 0)
    whole = start("video", clip, "-o", tmp_path / "one", *options)
    assert whole.wait(timeout=200) == 0, whole.stderr
    out = tmp_path / "two"
    process = start("video", clip, "-o", out, *options)
    journals = out / ".posecli" / "journals"
    while process.poll() is None and sum(f.stat().st_size for f in journals.glob("*.jsonl")) < 60_000:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and list(journals.glob("*.jsonl"))
    again = start("video", clip, "-o", out, *options)
    assert again.wait(timeout=200) == 0
    for name in ("a.mp4", "coco.json", "coco_results.json"):
        assert (out / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    assert not list(journals.iterdir()) and not list(out.rglob("*.part"))


def test_a_stream_on_stdin(tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_video(tmp_path / "a.mkv", 20)
    process = start("video", "-", "-o", tmp_path / "out", "--weights", tiny_weights, *QUICK, stdin=subprocess.PIPE)
    process.communicate(clip.read_bytes(), timeout=100)
    assert process.returncode == 0
    assert len(document(tmp_path / "out")["images"]) == 20


def test_numbered_pictures(tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for index in range(6):
        write_photo(tmp_path / f"shot_{index + 3:04d}.png", picture(seed=index))
    out = tmp_path / "out"
    pattern = tmp_path / "shot_%04d.png"
    assert posecli(capfd, "video", pattern, "-o", out, "--weights", tiny_weights, *QUICK).code == 0
    assert [image["time_s"] for image in document(out)["images"]] == [pytest.approx(i / 25) for i in range(6)]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--start", "soon"), 2, "no position"),
        (("--start", "9", "--end", "3"), 2, "nothing would be read"),
        (("--encoder", "mpeg2"), 2, "is not one of 'h264'"),
        (("--smooth", "much"), 2, "is not one of 'none'"),
        (("--detect-every", "often"), 2, "a number of frames nor auto"),
        (("--person", "tall"), 2, "all, largest"),
        (("--no-track", "--person", "id:1"), 2, "no ids"),
        (("--format", "xls"), 2, "xls"),
        (("--show",), 4, "no display"),
    ],
)
def test_options_that_make_no_sense(
    options: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    tiny_weights: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if options == ("--show",) and os.name != "posix":
        pytest.skip("only on Linux does a variable say whether there is a display")
    clip = write_video(tmp_path / "a.mp4", 3)
    result = posecli(capfd, "video", clip, "-o", tmp_path / "out", "--weights", tiny_weights, *QUICK, *options)
    assert result.code == code and words in result.err and "Traceback" not in result.err


def test_photos_alone_are_no_video(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_photo(tmp_path / "in" / "a.jpg")
    result = posecli(capfd, "video", tmp_path / "in", "-o", tmp_path / "out")
    assert result.code == 3 and "no video" in result.err
