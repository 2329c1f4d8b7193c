"""No encoder leaves a thread of this process with another scheduling policy than it had."""

import os
import sys
import threading
from pathlib import Path

import pytest

from posecli.media.encoders import EncodeOptions
from posecli.media.scheduling import scheduling_kept
from posecli.media.video import VideoReader
from posecli.media.write_video import VideoWriter
from tests.media_factory import write_video

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="policies of threads are Linux's")


def policies() -> set[int]:
    return {os.sched_getscheduler(int(path.name)) for path in Path("/proc/self/task").iterdir()}


@pytest.mark.parametrize("encoder", ["h264", "av1"])
def test_an_encoder_leaves_policies_as_they_are(tmp_path: Path, encoder: str) -> None:
    before = policies()
    with (
        VideoReader(write_video(tmp_path / "a.mp4", 5)) as reader,
        VideoWriter(tmp_path / "out.mp4", reader, EncodeOptions(encoder=encoder)) as writer,
    ):
        for frame in reader:
            assert frame.time is not None
            writer.write(frame.pixels, frame.time)
            assert policies() == before


def test_changes_inside_are_undone() -> None:
    """SCHED_BATCH stands for what only the user root may set."""
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    stop = threading.Event()
    with scheduling_kept():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        other = threading.Thread(target=stop.wait)
        other.start()
        assert os.sched_getscheduler(other.native_id or 0) == os.SCHED_BATCH
    try:
        assert os.sched_getscheduler(0) == os.sched_getscheduler(other.native_id or 0) == os.SCHED_OTHER
        assert policies() == {os.SCHED_OTHER}
    finally:
        stop.set()
        other.join()
