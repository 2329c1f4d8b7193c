"""Two runs into one folder: the second says so, and writes nothing."""

import signal
import time
from pathlib import Path

import pytest

from tests.entry_points import QUICK, posecli, start
from tests.media_factory import write_photo, write_video


def test_a_second_run_into_the_same_folder_says_so(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photo, out = write_photo(tmp_path / "a.jpg"), tmp_path / "out"
    clip = write_video(tmp_path / "clip.mp4", 400, 320, 240)
    first = start("run", clip, "-o", out, "--weights", tiny_weights, *QUICK)
    while first.poll() is None and not list(out.glob(".posecli/journals/*")):
        time.sleep(0.02)
    assert first.poll() is None
    (tmp_path / "link").symlink_to(out)
    for path in (out, tmp_path / "link"):
        result = posecli(capfd, "run", photo, "-o", path, "--weights", tiny_weights, *QUICK)
        assert result.code == 4 and f"--out {path}: another posecli is writing there" in result.err
        assert len(result.err.splitlines()) == 1
    assert not (out / "a.jpg").exists()
    # A killed run leaves no lock.
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert posecli(capfd, "run", photo, "-o", out, "--weights", tiny_weights, *QUICK).code == 0
