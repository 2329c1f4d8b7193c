"""Training on a machine without the data, and benchmarks/gpu.py, without the packages that it may lack."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from posecli.errors import DataError
from posecli.train.engine import Engine
from posecli.train.packing import Crops
from posecli.train.portable import join_files, load_crops, save_crops, split_file
from tests.test_device_training import crops

__all__ = ["crops"]  # a fixture

ROOT = Path(__file__).parents[1]
MISSING = ("av", "pycocotools", "openvino", "scipy", "matplotlib", "orjson", "rich")
BLOCKED = f"""
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Finder())
"""


def recipe() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_train", ROOT / "recipes" / "gpu_train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_packed_crops_survive_their_files(crops: Crops, tmp_path: Path) -> None:
    files = save_crops(crops, tmp_path, 12_000)
    assert len(files) > 2 and all(file.stat().st_size < 14_000 for file in files)
    again = load_crops(files)
    assert again.people.ids == crops.people.ids and again.people.keypoint_set == crops.people.keypoint_set
    for name in ("boxes", "keypoints", "weights"):
        np.testing.assert_array_equal(getattr(again.people, name), getattr(crops.people, name))
    for row in range(len(crops)):
        np.testing.assert_array_equal(again.pixels(row), crops.pixels(row))
    files[1].write_bytes(files[1].read_bytes()[:500])
    with pytest.raises(DataError, match="not a file of packed crops") as caught:
        load_crops(files)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_is_joined_from_its_parts_or_refused(tmp_path: Path) -> None:
    source, parts, target = tmp_path / "state.pt", tmp_path / "parts", tmp_path / "new" / "state.pt"
    target.parent.mkdir()
    assert not join_files(parts, "state.pt", target)
    for content in (b"older" * 7, np.random.default_rng(0).bytes(1000)):
        source.write_bytes(content)
        written = split_file(source, parts, 300)
    assert len(written) == 4 == len(list(parts.iterdir())) and max(p.stat().st_size for p in written) == 300
    assert join_files(parts, "state.pt", target) and target.read_bytes() == source.read_bytes()
    whole = written[2].read_bytes()
    written[2].write_bytes(whole[:-1] + b"x")
    with pytest.raises(DataError, match="damaged"):
        join_files(parts, "state.pt", target)
    written[2].unlink()
    with pytest.raises(DataError, match="3 of 4"):
        join_files(parts, "state.pt", target)


def test_a_run_is_resumed_elsewhere_from_its_parts(
    crops: Crops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends in the same bytes as one that was not interrupted."""
    save_crops(crops, tmp_path / "packs", 20_000)

    def run(place: str, *more: str) -> None:
        options = ["--packs", f"{tmp_path}/packs", "--runs", f"{tmp_path}/{place}", "--samples", "64", "--workers", "0"]
        options += ["--device", "cpu", "--file-mib", "4"]
        result = CliRunner().invoke(recipe(), ["train", "tiny", *options, *more], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    run("whole")
    step, steps = Engine.step, []

    def stopped(self: Engine, *arguments: Any) -> Any:
        losses, stop = step(self, *arguments)
        steps.append(stop)
        return losses, stop or len(steps) == 4

    monkeypatch.setattr(Engine, "step", stopped)
    run("first")
    assert len(steps) == 4
    collected = tmp_path / "collected"
    for skip in ("0", "4", "8", "12", "16"):
        arguments = [f"{tmp_path}/first/tiny/parts", "--out", str(collected), "--skip", skip, "--most", "4"]
        CliRunner().invoke(recipe(), ["collect", *arguments], catch_exceptions=False)
    assert len(list(collected.glob("state.pt.part-*"))) > 4
    run("second", "--from", str(collected))
    assert len(steps) == 8
    weights = [(tmp_path / place / "tiny" / "last.safetensors").read_bytes() for place in ("whole", "second")]
    assert weights[0] == weights[1]


def test_the_benchmark_runs_on_a_bare_machine(tmp_path: Path) -> None:
    """On a CPU, with tiny sizes, and without the packages that such a machine lacks; so do the tests for GPUs."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--quick"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "gpu.json").read_text())
    parts = ("Machine", "Agreement with the CPU path", "Networks", "Stages", "Training", "Tests")
    assert [part for part in report if part != "command"] == list(parts)
    assert not any("error" in row for part in parts for row in report[part]), report
    agreement = report["Agreement with the CPU path"]
    assert agreement[0]["largest difference in levels"] <= 1
    assert agreement[1]["same bytes alone"] and agreement[1]["largest px"] < 1
    assert report["Tests"][0]["exit code"] == 0 and "skipped" in report["Tests"][0]["tests"]
    assert "share of peak" in (tmp_path / "out" / "gpu.md").read_text()


def test_the_benchmark_runs_all_tests_for_gpus() -> None:
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    marked = {path.stem for path in (ROOT / "tests").glob("test_*.py") if "mark.gpu" in path.read_text()}
    assert marked - {Path(__file__).stem} == {f"test_{name}" for name in module.TESTS}
