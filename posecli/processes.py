"""Processes of one command: signals, cores and memory that they share, and their common end."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# Memory of one worker: libraries and networks, and the pixels of a run's queues (300 MB).
WORKER_BYTES = 1_200_000_000
# Signals that a terminal sends to all processes of a command.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_PR_SET_PDEATHSIG = 1
# Where the kernel says what a container may use.
_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> tuple[int, ...]:
    """The numbers of the CPU cores that this process may run on; a container's quota limits how many."""
    if hasattr(os, "sched_getaffinity"):
        numbers = tuple(sorted(os.sched_getaffinity(0)))
    else:
        numbers = tuple(range(os.cpu_count() or 1))
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        numbers = numbers[: max(1, int(quota) // int(period))]
    return numbers


def available_memory() -> int | None:
    """Bytes of memory that new processes can use; None where the system does not say."""
    found = []
    for line in _read(Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            found.append(int(value.split()[0]) * 1024)
    limit, used = _read(_CGROUP / "memory.max").strip(), _read(_CGROUP / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        found.append(max(0, int(limit) - int(used)))
    return min(found, default=None)


def automatic_workers(inputs: int | None, cores: int, memory: int | None) -> int:
    """The number of workers of --workers auto: one a core, as far as inputs and memory (bytes) go; None: no limit."""
    fitting = cores if memory is None else memory // WORKER_BYTES
    return max(1, min(cores if inputs is None else inputs, cores, fitting))


def count_workers(asked: int | str, inputs: int | None) -> int:
    """The number of workers for a value of --workers: a number or "auto". inputs: None where they can be split."""
    if asked != "auto":
        return int(asked)
    return automatic_workers(inputs, len(usable_cores()), available_memory())


def share_of(cores: Sequence[int], place: int, workers: int) -> tuple[int, ...]:
    """The cores of one of several workers; where there are more workers than cores, they share one."""
    if workers >= len(cores):
        return (cores[place % len(cores)],)
    return tuple(cores[place * len(cores) // workers : (place + 1) * len(cores) // workers])


def bind(cores: Sequence[int]) -> None:
    """Let all threads of this process run on these cores only, and new ones too; does nothing where that is unknown."""
    if not hasattr(os, "sched_setaffinity"):
        return
    with suppress(OSError):
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cores)


def follow(driver: int) -> None:
    """In a worker: leave signals to the process that started it, and end with it (on Linux)."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if sys.platform.startswith("linux"):
        # At once, before the lock of the output folder can be taken by another run.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != driver:
            os._exit(1)


@contextmanager
def signals_held() -> Iterator[None]:
    """A process that starts in this block begins with the signals blocked; here they arrive at its end."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cause_of(code: int | None) -> str:
    """Words for the exit code of a worker that died."""
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in {int(known) for known in signal.Signals} else f"signal {-code}"
    return f"{name}, out of memory?" if name == "SIGKILL" else name


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
