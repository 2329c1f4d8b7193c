"""Training as a user meets it: in a folder laid out as COCO, interrupted, watched, by heart."""

import csv
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from posecli.interrupt import deferred as whole_step
from posecli.weights.files import read_header
from tests.dotted_people import crops, dataset
from tests.entry_points import posecli, start

__all__ = ["crops", "dataset"]  # fixtures


def test_without_options_in_a_folder_laid_out_as_coco(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("annotations", "train2017", "val2017"):
        (tmp_path / name).symlink_to(dataset / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POSECLI_DATA", raising=False)
    result = posecli(capfd, "train", "--stages", "32x32:8", "--device", "cpu", "--padding", "1.1")
    assert result.code == 0, result.err
    config = read_header(tmp_path / "runs" / "simcc" / "last.safetensors")["config"]
    assert config["preprocessing"]["padding"] == 1.1
    assert "12 people in 12 images" in result.err
    rows = list(csv.DictReader((tmp_path / "runs" / "simcc" / "evaluations.csv").open()))
    assert [int(row["samples"]) for row in rows] == [8]


def test_ctrl_c_saves_and_the_resumed_run_ends_as_an_undisturbed_one(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data", dataset, "--stages", "32x32:400", "--deconv", "8", "--batch-size", 2, "--freeze", 19]
    command += ["--device", "cpu", "--threads", 1, "--runs", tmp_path, "--evaluate-every", 400]
    process = start(*command, "--name", "parts")
    metrics = tmp_path / "parts" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not metrics.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "goes on where it stopped" in err and "Traceback" not in err
    saved = torch.load(tmp_path / "parts" / "state.pt", weights_only=True)
    assert 100 <= saved["samples"] < 400 and saved["samples"] % 2 == 0
    for name, more in (("parts", ["--resume"]), ("whole", [])):
        assert posecli(capfd, *command, "--name", name, *more).code == 0
    parts, whole = (tmp_path / name / "last.safetensors" for name in ("parts", "whole"))
    assert parts.read_bytes() == whole.read_bytes()
    never = posecli(capfd, *command, "--name", "never", "--resume")
    assert never.code == 2 and "no unfinished run" in never.err


def test_a_step_is_not_cut_in_two() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), whole_step():
        signal.raise_signal(signal.SIGINT)
        done.append(True)
    assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_tensorboard_gets_the_rows(dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = [
        "train",
        "--data",
        dataset,
        "--runs",
        tmp_path,
        "--stages",
        "32x32:8",
        "--device",
        "cpu",
        "--tensorboard",
    ]
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        refused = posecli(capfd, *command)
        assert refused.code == 4 and "posecli[tensorboard]" in refused.err
        return
    assert posecli(capfd, *command).code == 0
    assert any((tmp_path / "simcc" / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_32_people_from_scratch(shared: Path, tmp_path: Path) -> None:
    """Enough capacity and a working loss: 32 people are learned by heart."""
    script = Path(__file__).parents[1] / "benchmarks" / "overfit.py"
    command = [sys.executable, script, shared, "--out", tmp_path / "overfit"]
    done = subprocess.run(list(map(str, command)), cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = re.search(r"│ AP +│ +([0-9.]+)", done.stdout)
    assert found and float(found[1]) >= 0.95
