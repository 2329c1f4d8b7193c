"""The worked example of docs/training.md: its commands, word for word, on the small data set."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.entry_points import posecli

ROOT = Path(__file__).parents[1]


def example_commands() -> list[list[str]]:
    """The indented commands of the section, as words."""
    text = (ROOT / "docs" / "training.md").read_text()
    section = text.split("## A worked example")[1].split("\n## ")[0]
    return [shlex.split(line) for line in re.findall(r"^ {4}((?:python|posecli) .*)$", section, re.MULTILINE)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The small network of the example is not slower on one thread, and other processes disturb it less."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_the_worked_example_trains_and_evaluates(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, train, evaluate, run = example_commands()
    monkeypatch.chdir(tmp_path)
    assert make[:2] == ["python", "examples/kites.py"]
    subprocess.run([sys.executable, str(ROOT / make[1]), *make[2:]], check=True)
    for command in (train, evaluate, run):
        assert command[0] == "posecli"
        result = posecli(capfd, *command[1:])
        assert result.code == 0, result.err
    # A file that the page names is there.
    section = (ROOT / "docs" / "training.md").read_text().split("`runs/kites/` then holds")[1].split("Evaluate it")[0]
    for name in re.findall(r"`([\w.]+\.\w+)`", section):
        if name != "state.pt":
            assert (tmp_path / "runs" / "kites" / name).is_file(), name
    metrics = json.loads((tmp_path / "results" / "kites-eval" / "metrics.json").read_bytes())
    assert metrics["people"] == 16 and metrics["AP"] > 0.5
    document = json.loads((tmp_path / "results" / "kites" / "coco.json").read_bytes())
    assert len(document["annotations"]) == 16
    assert document["categories"][0]["keypoints"] == ["top", "left_tip", "right_tip", "tail"]
