"""Standard streams that are closed, or whose reader has left, change no exit code and harm no file."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.entry_points import QUICK
from tests.media_factory import write_photo, write_video
from tests.warm import Warm

ROOT = Path(__file__).parents[1]
CLOSED = {"stdin": [0], "stdout": [1], "stderr": [2], "all": [0, 1, 2]}


@pytest.mark.parametrize("which", CLOSED)
def test_closed_streams(warm: Warm, tmp_path: Path, tiny_weights: Path, which: str) -> None:
    clip, bad = write_video(tmp_path / "in" / "a.mp4", 4), tmp_path / "in" / "bad.jpg"
    before = f"import os, sys\nfor n in {CLOSED[which]}: os.close(n)\n"
    before += "".join(f"sys.{name} = sys.__{name}__ = None\n" for name in (CLOSED if which == "all" else [which]))
    command = ("run", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny_weights, *QUICK, "--json")
    process = warm.start(*command, before=before)
    assert process.wait() == 0, process.printed()
    open_ones = warm.start("run", clip, "-o", tmp_path / "open", "--weights", tiny_weights, *QUICK)
    assert open_ones.wait() == 0
    for name in ("a.mp4", "coco.json"):  # nothing that was printed stands in them
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "open" / name).read_bytes()
    bad.write_bytes(b"\xff\xd8\xff bad")
    assert warm.start(*command, before=before).wait() == 1
    wrong = ("run", clip, "-o", tmp_path / "wrong", "--detector", "nobody")
    assert warm.start(*wrong, before=before).wait() == 2


def test_closed_in_a_shell() -> None:
    """The numbers of closed streams go to the files that Python opens first: a process of its own shows that."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for closed, code in (("2>&-", 2), (">&-", 0), ("<&-", 0), ("<&- >&- 2>&-", 0)):
        arguments = "nonsense" if code else "--version"
        line = f"exec {sys.executable} -m posecli {arguments} {closed}"
        done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, ""), closed


def test_a_closed_stdin_is_an_input_that_cannot_be_read(warm: Warm, tmp_path: Path, tiny_weights: Path) -> None:
    before = "import os, sys; os.close(0); sys.stdin = sys.__stdin__ = None"
    command = ("video", "-", "-o", tmp_path / "out", "--weights", tiny_weights, *QUICK)
    process = warm.start(*command, before=before)
    assert process.wait() == 1
    assert "standard input" in process.printed()[1] and "Traceback" not in process.printed()[1]
    assert warm.start("run", "@-", "-o", tmp_path / "out", before=before).wait() == 3


def test_a_full_stdout_is_told(warm: Warm) -> None:
    before = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    for command in (("doctor", "--json"), ("run", "--help")):
        process = warm.start(*command, before=before)
        assert process.wait() == 4
        err = process.printed()[1]
        assert err.count("\n") == 1 and err.startswith("posecli: ")


def test_a_reader_who_leaves(warm: Warm, tmp_path: Path, tiny_weights: Path) -> None:
    for number in range(20):
        write_photo(tmp_path / "in" / f"{number:02}.jpg")
        (tmp_path / "in" / f"bad{number:02}.jpg").write_bytes(b"\xff\xd8\xff bad")
    command = ("run", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny_weights, *QUICK, "--json")
    process = warm.start(*command)
    process.close("out")
    assert process.wait() != -signal.SIGPIPE
    assert "Traceback" not in process.printed()[1] and "Exception" not in process.printed()[1]
    deaf = warm.start(*command, "--overwrite")
    deaf.close("err")
    assert deaf.wait() == 1 and json.loads(deaf.printed()[0])["totals"]["status"] == {"done": 20, "failed": 20}
