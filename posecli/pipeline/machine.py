"""What worker processes share: the cores and the memory that this process may use."""

import os
from collections.abc import Sequence
from pathlib import Path

# Memory of one worker: libraries and networks, and the pixels of the queues (channel.PIPELINE_BYTES).
WORKER_BYTES = 1_200_000_000
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


def automatic_workers(inputs: int, cores: int, memory: int | None) -> int:
    """The number of workers of --workers auto: one a core, as far as inputs and memory (bytes) go."""
    fitting = cores if memory is None else memory // WORKER_BYTES
    return max(1, min(inputs, cores, fitting))


def share_of(cores: Sequence[int], place: int, workers: int) -> tuple[int, ...]:
    """The cores of one of several workers; where there are more workers than cores, they share one."""
    if workers >= len(cores):
        return (cores[place % len(cores)],)
    return tuple(cores[place * len(cores) // workers : (place + 1) * len(cores) // workers])


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
