"""Worker processes that end in the middle of their work: functions in place of posecli.pipeline.worker.main."""

import os
import signal
from typing import Any

from posecli.pipeline import worker
from posecli.pipeline.write import ClipWriter
from posecli.tracking import propagate

# Inputs with this in their names kill the process that draws them.
DEADLY = "deadly"


def killed_by_an_input(connection: Any, setup: Any) -> None:
    """Killed when a frame of a deadly input is written."""
    write = ClipWriter.write

    def deadly(self: Any, *frame: Any) -> None:
        if DEADLY in self._job.input.name:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, *frame)

    ClipWriter.write = deadly  # type: ignore[method-assign]
    worker.main(connection, setup)


def full_disk(connection: Any, setup: Any) -> None:
    """The disk is full when a deadly input is written."""
    write = ClipWriter.write

    def full(self: Any, *frame: Any) -> None:
        if DEADLY in self._job.input.name:
            raise OSError(28, "No space left on device")
        write(self, *frame)

    ClipWriter.write = full  # type: ignore[method-assign]
    worker.main(connection, setup)


def killed_while_it_starts(connection: Any, setup: Any) -> None:
    """Killed before it is ready."""
    os.kill(os.getpid(), signal.SIGKILL)


RESTART = 16


def frequent_restarts(connection: Any, setup: Any) -> None:
    """Box propagation restarts often, so that a short video has several parts."""
    propagate.RESTART_EVERY = RESTART
    worker.main(connection, setup)
