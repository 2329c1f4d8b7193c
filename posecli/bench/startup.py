"""Time of whole processes: the interpreter alone, the help, and a run of one photo."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import posecli
from posecli.errors import MachineError
from posecli.text import printed


def measure_startup(photo: Path, options: Sequence[str], rounds: int) -> dict[str, float]:
    """Name → seconds from start to end of a new process, the median of rounds in which the processes take turns.

    photo: the input of a run with these options, which ends with all its files written. Raises MachineError where a
    process fails.
    """
    command = [sys.executable, "-m", "posecli"]
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="posecli-bench-") as folder:
        for turn in range(rounds):
            run = ["run", str(photo), "--out", str(Path(folder) / str(turn)), "--quiet", *options]
            for name, line in (
                ("interpreter", [sys.executable, "-c", "pass"]),
                ("help", [*command, "--help"]),
                ("run of one photo", [*command, *run]),
            ):
                seconds.setdefault(name, []).append(_seconds(line))
    return {name: statistics.median(found) for name, found in seconds.items()}


def _seconds(line: Sequence[str]) -> float:
    # The package that runs here, wherever the process is started.
    paths = [str(Path(posecli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # An installed package has compiled modules; so have those here after the first process.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    ended = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, env=environment
    )
    seconds = time.perf_counter() - start
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or [""])[-1]
        raise MachineError(f"start-up: a process ended with code {ended.returncode} ({printed(reason)[:150]})")
    return seconds
