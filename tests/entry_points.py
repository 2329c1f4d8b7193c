"""Running the command line in tests, in this process or in its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from posecli.cli import main as front
from tests.warm import Started, the_warm_one

QUICK = ("--detector", "whole", "--device", "cpu", "--runtime", "torch")


class Result(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


def posecli(capfd: pytest.CaptureFixture[str], *arguments: object) -> Result:
    """Run in this process."""
    capfd.readouterr()
    before = sys.argv
    sys.argv = ["posecli", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as caught:
            front.main()
    finally:
        sys.argv = before
    out, err = capfd.readouterr()
    return Result(int(caught.value.code or 0), out, err)


def start(*arguments: object, stdin: int | None = None, **environment: str) -> "subprocess.Popen[str] | Started":
    """Start in a process of its own, its streams captured.

    stdin: subprocess.PIPE, or a descriptor. environment: variables beside the tests' own; with some it is a new
    interpreter, else a fork of one that has imported everything, which starts at once.
    """
    if not environment:
        return the_warm_one().start(*arguments, stdin=stdin)
    root = str(Path(__file__).parents[1])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "posecli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=stdin,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )
