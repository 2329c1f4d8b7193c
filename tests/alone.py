"""Tests marked `alone` run while no other test does, where several processes run tests (pytest -n)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(folder: Path, alone: bool) -> Iterator[None]:
    """Wait until this test may run. folder: shared by all processes that run tests.

    Who is alone holds both locks for itself; the others share the second. A test takes the first lock before the
    second, so that one that waits to be alone is not overtaken for ever.
    """
    import fcntl

    with (folder / "next.lock").open("w") as first, (folder / "running.lock").open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        fcntl.flock(second, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(first, fcntl.LOCK_UN)
        yield  # closing the files unlocks them


def several_processes() -> bool:
    """Whether this is one of several processes that run tests, on a system with such locks."""
    return "PYTEST_XDIST_WORKER" in os.environ and os.name == "posix"
