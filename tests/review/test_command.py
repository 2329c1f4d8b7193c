"""`posecli review` as a command: its end, kill -9, refusals, and --render."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from posecli.corrections.corrections import Corrections
from posecli.corrections.journal import journal_path
from posecli.errors import UsageError
from posecli.media.photos import PhotoReader
from posecli.media.video import VideoReader
from posecli.review.rendering import corrected_inputs, poses_of, render, run_look
from tests.entry_points import posecli
from tests.media_factory import picture, write_photo
from tests.review.client import FRAMES, HEIGHT, WIDTH, Client, make_media_run, poses
from tests.run_factory import make_run
from tests.test_pipeline_bounds import Still


@contextmanager
def command(out: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """The command in a process of its own, and a client of its server."""
    process = subprocess.Popen(
        [sys.executable, "-m", "posecli", "review", str(out), "--no-browser", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.communicate()
        yield process, Client(int(address.split(":")[2].split("/")[0]), address).enter()
    finally:
        process.kill()
        process.communicate()


def test_what_was_answered_is_there_after_kill_9(tmp_path: Path) -> None:
    out = make_media_run(tmp_path)
    done = 0
    for start in range(2):
        with command(out) as (process, client):
            assert client.get("/api/session").json["seq"] == done
            for frame in range(4):
                answer = client.move(4 * start + frame, x=10 + frame)
                assert answer.status == 200
                done = answer.json["seq"]
            process.kill()
            process.wait(10)
        with journal_path(out).open("ab") as file:  # what a kill within an edit leaves
            file.write(b'{"seq":99,"time"')
    with command(out) as (process, client):
        for frame in range(8):
            person = client.get("/api/frame", input=1, frame=frame).json["people"][0]
            assert person["corrected"] == [7] and person["keypoints"][7][0] == 10 + frame % 4
        assert client.get("/api/changes", since=0).json["seq"] == done == 8
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=10)
    assert process.returncode == 130 and "Traceback" not in told
    found = json.loads((out / "coco_corrected.json").read_bytes())
    assert sum(a.get("corrected") == [7] for a in found["annotations"]) == 8


@pytest.mark.alone
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_at_once_and_writes_the_merged_file(tmp_path: Path, number: int, code: int) -> None:
    out = make_media_run(tmp_path)
    with command(out) as (process, client):
        client.move(3)
        process.send_signal(number)
        _, told = process.communicate(timeout=8)
    assert process.returncode == code
    assert "Traceback" not in told and "Exception" not in told
    found = json.loads((out / "coco_corrected.json").read_bytes())
    assert sum(a.get("corrected") == [7] for a in found["annotations"]) == 1


def test_refusals_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = make_media_run(tmp_path)
    cases = [
        (("s3://bucket/results",), 2, "at an address"),
        ((tmp_path / "nothing",), 2, "no results of posecli run"),
        ((tmp_path,), 2, "no results of posecli run"),
        ((out, "--port", "70000"), 2, "70000"),
    ]
    for arguments, code, words in cases:
        result = posecli(capfd, "review", "--no-browser", *arguments)
        assert result.code == code and words in result.err and "Traceback" not in result.err
    with command(out) as (_, client):
        result = posecli(capfd, "review", out, "--no-browser")
        assert result.code == 4 and "another posecli" in result.err and len(result.err.strip().splitlines()) == 1
        other = make_media_run(tmp_path / "other")
        result = posecli(capfd, "review", other, "--no-browser", "--port", client.port)
        assert result.code == 4 and "choose another" in result.err and len(result.err.strip().splitlines()) == 1


def test_a_missing_extra_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = make_media_run(tmp_path)
    for name in [name for name in sys.modules if name.startswith("posecli.review")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = posecli(capfd, "review", out, "--no-browser")
    assert result.code == 4 and "pip install 'posecli[review]'" in result.err
    assert len(result.err.strip().splitlines()) == 1


# ---- --render -------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".posecli" not in path.parts
    }


def edited(out: Path) -> None:
    """A skeleton added to the empty photo, and one of the clip's moved."""
    with Corrections.open(out, write=True) as corrections:
        points = {str(k): [20 + 7 * k, 30 + 4 * k, 2] for k in range(17)}
        corrections.apply(
            {"op": "add", "input": "sub/a.png", "frame": 0, "box": [5, 5, 150, 110], "keypoints": points}, "a"
        )
        corrections.apply({"op": "delete", "input": "clip.mp4", "frame": 4, "person": "p0"}, "a")


def run_for_rendering(folder: Path) -> Path:
    """OUT with a photo without people, another one, and a clip with one person in each frame."""
    from tests.media_factory import write_video

    sources = {
        "sub/a.png": write_photo(folder / "in" / "sub" / "a.png", picture(WIDTH, HEIGHT, 3)),
        "b.png": write_photo(folder / "in" / "b.png", picture(WIDTH, HEIGHT, 4)),
        "clip.mp4": write_video(folder / "in" / "clip.mp4", FRAMES, WIDTH, HEIGHT, options={"g": "12", "bf": "2"}),
    }
    people = {"sub/a.png": [poses(0)], "b.png": [poses(1)], "clip.mp4": [poses(1, 5, [1])] * FRAMES}
    return make_run(folder / "out", people, size=(WIDTH, HEIGHT), sources=sources)


def test_render_draws_what_was_corrected_and_nothing_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = run_for_rendering(tmp_path)
    edited(out)
    before, inputs = contents(out), contents(tmp_path / "in")
    result = posecli(capfd, "review", out, "--render")
    assert result.code == 0, result.err
    assert "2 inputs have corrections: 2 drawn" in result.err
    after = contents(out)
    assert {*after} - {*before} == {"coco_corrected.json", "corrected/sub/a.png", "corrected/clip.mp4"}
    assert all(after[name] == content for name, content in before.items())
    assert contents(tmp_path / "in") == inputs
    (drawn,) = [page.pixels for page in PhotoReader(out / "corrected" / "sub" / "a.png")]
    assert np.abs(drawn.astype(int) - picture(WIDTH, HEIGHT, 3)).max() > 50
    with VideoReader(out / "corrected" / "clip.mp4") as reader, VideoReader(tmp_path / "in" / "clip.mp4") as source:
        changes = []
        for a, b in zip(reader, source, strict=True):
            assert a.time == b.time
            changes.append(float(np.abs(a.pixels.astype(int) - b.pixels).mean()))
    # The person of frame 4 was deleted.
    assert changes[4] < 0.5 * min(changes[3], changes[5])
    # Again: the same bytes, its own files are replaced.
    assert posecli(capfd, "review", out, "--render").code == 0
    assert contents(out) == after


def test_render_goes_on_where_a_source_is_gone_or_changed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = run_for_rendering(tmp_path)
    edited(out)
    write_photo(tmp_path / "in" / "sub" / "a.png", picture(WIDTH, HEIGHT, 9))
    result = posecli(capfd, "review", out, "--render")
    assert result.code == 1 and "changed since the run" in result.err and "1 drawn" in result.err
    assert (out / "corrected" / "clip.mp4").exists() and not (out / "corrected" / "sub" / "a.png").exists()
    (tmp_path / "in" / "clip.mp4").unlink()
    result = posecli(capfd, "review", out, "--render")
    assert result.code == 1 and "gone" in result.err and "0 drawn" in result.err
    assert (out / "corrected" / "clip.mp4").exists()  # of the time before


def test_render_replaces_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    out = run_for_rendering(tmp_path)
    edited(out)
    foreign = out / "corrected" / "clip.mp4"
    foreign.parent.mkdir()
    foreign.write_bytes(b"mine")
    with Corrections.open(out, write=True) as corrections, pytest.raises(UsageError, match="not posecli's"):
        render(corrections, corrected_inputs(corrections), Still())
    assert foreign.read_bytes() == b"mine"
    foreign.unlink()
    os.link(tmp_path / "in" / "clip.mp4", foreign)
    with Corrections.open(out, write=True) as corrections, pytest.raises(UsageError, match="would replace the input"):
        render(corrections, corrected_inputs(corrections), Still())


def test_render_does_not_mix_with_a_folder_of_that_name(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "in" / "Corrected" / "a.png", picture(WIDTH, HEIGHT))
    out = make_run(
        tmp_path / "out", {"Corrected/a.png": [poses(1)]}, size=(WIDTH, HEIGHT), sources={"Corrected/a.png": photo}
    )
    with Corrections.open(out, write=True) as corrections:
        corrections.apply({"op": "accept", "input": "Corrected/a.png", "frame": 0, "person": "p0"}, "a")
        with pytest.raises(UsageError, match="its own"):
            render(corrections, corrected_inputs(corrections), Still())


def test_the_look_is_that_of_the_run() -> None:
    from dataclasses import asdict
    from fractions import Fraction

    from posecli.draw.style import DrawStyle
    from posecli.media.span import Span
    from posecli.pipeline.keys import to_json
    from posecli.pipeline.run_options import RunOptions

    options = RunOptions(span=Span(start=Fraction(5, 2), end=90, stride=3), style=DrawStyle(trails=True, kpt_thr=0.4))
    look = run_look(to_json(options))
    assert (look.span, look.style, look.encoding, look.max_pixels) == (
        options.span, options.style, options.encoding, options.max_pixels
    )  # fmt: skip
    assert run_look({}).style == DrawStyle() and asdict(run_look({}).span) == asdict(Span())


def test_people_without_an_id_among_others_can_be_drawn(tmp_path: Path) -> None:
    out = make_media_run(tmp_path)
    points = {str(k): [20 + k, 30 + k, 2] for k in range(17)}
    with Corrections.open(out, write=True) as corrections:
        corrections.apply(
            {"op": "add", "input": "clip.mp4", "frame": 3, "box": [5, 5, 90, 90], "keypoints": points}, "a"
        )
        drawn = poses_of(corrections.frame("clip.mp4", 3), 17)
    assert drawn.track_ids is not None and len({*drawn.track_ids.tolist()}) == 3 and drawn.scores[2].min() == 1
