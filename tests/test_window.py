"""--show where there is a display; here a virtual one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.media_factory import write_video

_SHOWN = """
import numpy as np
from posecli.pipeline.window import Window
window = Window()
window.offer(np.full((120, 160, 3), 200, np.uint8))
assert not window.refresh()
window.offer(np.full((120, 160, 3), 90, np.uint8))
assert not window.refresh() and not window.refresh()
window.close()
assert window.refresh()  # a window that was closed is one whose user has left
"""


@pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="no virtual display (xvfb-run)")
def test_frames_are_shown_until_the_window_is_closed() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = ["xvfb-run", "-a", sys.executable, "-c", _SHOWN]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="no virtual display (xvfb-run)")
def test_a_clip_is_shown_and_written(tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", 10)
    options = ["--weights", str(tiny_weights), "--detector", "whole", "--device", "cpu", "--runtime", "torch", "--show"]
    command = ["xvfb-run", "-a", sys.executable, "-m", "posecli", "video", str(clip), "-o", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and (tmp_path / "out" / "a.mp4").is_file(), result.stderr
