"""Arithmetic of a run's cost: core time of its stages, the least wall time that it implies, and how near the run is."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Stages whose core time is the work that a run is for; that of the others is overhead.
MEDIA_AND_NETWORKS = ("decode", "encoding", "detector", "network")
OTHER, REST = "other", "rest"


@dataclass(frozen=True)
class Duration:
    """Time of some work in seconds. wall: by the clock. core: CPU time of all threads of the process."""

    wall: float = 0.0
    core: float = 0.0

    def __add__(self, other: "Duration") -> "Duration":
        return Duration(self.wall + other.wall, self.core + other.core)

    def __mul__(self, factor: float) -> "Duration":
        return Duration(self.wall * factor, self.core * factor)


def timed(work: Callable[[], object]) -> Duration:
    """Time of a call. Work that threads of earlier calls still do is included in core."""
    wall, core = time.perf_counter(), time.process_time()
    work()
    return Duration(time.perf_counter() - wall, time.process_time() - core)


def scaled(measured: Duration, count: int, items: int) -> Duration:
    """The time of items, where count of them were measured; zero where none was."""
    return measured * (items / count) if count else Duration()


@dataclass(frozen=True)
class StageCost:
    """One stage of a run.

    items: images, crops or frames. wall: seconds in the stage, waiting included, summed over the run's threads.
    core: CPU seconds of all threads. threads: CPU threads that can share its work, 1 for a serial stage. gpu: seconds
    that a GPU needs for it.
    """

    name: str
    items: int = 0
    wall: float = 0.0
    core: float = 0.0
    threads: int = 1
    gpu: float = 0.0

    @property
    def least(self) -> float:
        """The least wall time of the stage in seconds, on cores that do nothing else."""
        return max(self.core / self.threads, self.gpu)


@dataclass(frozen=True)
class RunCost:
    """A run. wall, core: of the whole run in seconds. cores: CPU cores. stages: without the rest, see rest."""

    wall: float
    core: float
    cores: int
    stages: tuple[StageCost, ...]

    @property
    def rest(self) -> StageCost:
        """Core time outside of all stages; below zero where a stage takes more time alone than within the run.

        Since reading, estimating and writing threads are in stages, it is what libraries take in threads of their own:
        decoding, encoding and networks beyond their time alone, such as while they share caches and cores, and OpenCV.
        """
        return StageCost(REST, core=self.core - sum(stage.core for stage in self.stages), threads=self.cores)

    @property
    def every(self) -> tuple[StageCost, ...]:
        """All stages and the rest; the sum of their core time is that of the run."""
        return (*self.stages, self.rest)

    @property
    def slowest(self) -> StageCost:
        """The stage with the longest least wall time; the rest is none."""
        return max(self.stages, key=lambda stage: stage.least)

    @property
    def bound(self) -> float:
        """The least wall time in seconds: of all core time on all cores, of the slowest stage, of the GPU."""
        on_gpu = sum(stage.gpu for stage in self.stages)
        return max(sum(stage.core for stage in self.every) / self.cores, self.slowest.least, on_gpu)

    @property
    def ratio(self) -> float:
        """Wall time relative to the bound: 1 is the best possible."""
        return self.wall / self.bound

    @property
    def overhead(self) -> float:
        """Share of the core time that is neither decoding and encoding of media nor networks, see rest."""
        return sum(stage.core for stage in self.stages if stage.name not in MEDIA_AND_NETWORKS) / self.core


def median_run(runs: Sequence[RunCost]) -> RunCost:
    """The run of the median wall time; of an even number the faster one of the middle two."""
    return sorted(runs, key=lambda run: run.wall)[(len(runs) - 1) // 2]
