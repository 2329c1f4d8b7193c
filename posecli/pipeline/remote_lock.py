"""A lock file for an output folder at an address: best effort, since stores have no locks.

Two runs that start at the same moment may both take it. It is written anew from time to time; one that was not for a
while was left by a killed run. So it needs clocks that agree to a minute.
"""

import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import orjson

from posecli.errors import MachineError
from posecli.remote import RemoteError, RemoteFolder
from posecli.text import printed

LOCK = ".posecli/lock.json"
# Seconds between two writings, and after which a lock holds no more.
_EVERY, _HOLDS = 60.0, 240.0


@contextmanager
def remote_lock(there: RemoteFolder, mirror: str) -> Iterator[None]:
    """Lock the folder. mirror: name of the local mirror, which the caller has locked: its own earlier lock is replaced.

    Raises MachineError where another run holds it, RemoteError where it cannot be written.
    """
    host = platform.node()
    mine = {"run": uuid.uuid4().hex, "host": host, "process": os.getpid(), "mirror": f"{host} {mirror}"}
    _refuse_other(there, mine)
    _write(there, mine)
    _refuse_other(there, mine)
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(there, mine, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(1.0)
        with suppress(RemoteError):  # then it ends by its age
            if (_read(there) or mine)["run"] == mine["run"]:
                there.remove(LOCK)


def _refuse_other(there: RemoteFolder, mine: dict[str, Any]) -> None:
    other = _read(there)
    if other is None or mine["run"] == other["run"] or mine["mirror"] == other["mirror"]:
        return
    age = time.time() - other["time"]
    if age < _HOLDS:
        raise MachineError(
            f"--out {there.shown}: another posecli writes there (process {other['process']} of "
            f"{printed(str(other['host']))}, {max(0, round(age))} s ago): wait for its end, or {round(_HOLDS)} s if it "
            "was killed, or choose another folder"
        )


def _read(there: RemoteFolder) -> dict[str, Any] | None:
    """The lock that is there; None also for a damaged one."""
    content = there.read(LOCK)
    with suppress(ValueError, TypeError, KeyError):
        if content is not None:
            values = orjson.loads(content)
            names = ("run", "host", "process", "mirror")
            return {**{name: values[name] for name in names}, "time": float(values["time"])}
    return None


def _write(there: RemoteFolder, mine: dict[str, Any]) -> None:
    there.write(LOCK, orjson.dumps({**mine, "time": time.time()}))


def _keep(there: RemoteFolder, mine: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(_EVERY):
        with suppress(RemoteError, MachineError):
            _write(there, mine)
