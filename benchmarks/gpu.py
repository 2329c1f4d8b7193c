"""Everything about a GPU in one command: tests, agreement with the CPU path, speed.

python benchmarks/gpu.py --out results/gpu [--device cuda] [--minutes 8] [--quick]

Needs torch, torchvision, numpy, OpenCV, safetensors and click only. Writes gpu.json and gpu.md into --out after each
part, so that a command that is ended keeps what it has; parts that do not fit into --minutes are left out and named.
"""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

# Of each part: seconds that it needs at least.
TESTS = ("device_images", "resident", "fixed_batch", "device_choice", "device_training", "runtime")
Row = dict[str, Any]


def run_tests(device: str, seconds: float) -> Iterable[Row]:
    """The gpu-marked tests, by pytest; without a GPU they are skipped by name."""
    if importlib.util.find_spec("pytest") is None:
        yield {"tests": "pytest is not installed: only the agreement is checked"}
        return
    files = [str(ROOT / "tests" / f"test_{name}.py") for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "-rf", "--tb=short", *files]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        yield {"tests": f"not finished in {seconds:.0f} s"}
        return
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    yield {"tests": lines[-1], "exit code": done.returncode}
    yield from ({"tests": line} for line in lines if line.startswith(("FAILED", "ERROR")))
    if done.returncode not in (0, 5):
        yield {"tests": "output", "text": done.stdout[-6000:]}


def describe(device: str, peaks: dict[str, float]) -> Iterable[Row]:
    """The machine, and its peaks of matrix products."""
    import torch
    import torchvision

    from posecli.runtime.probe import gpu_problem

    on_gpu = device.startswith("cuda")
    yield {"machine": "python, torch, torchvision", "is": f"{platform.python_version()}, {torch.__version__}, "
           f"{torchvision.__version__}"}  # fmt: skip
    yield {"machine": "device", "is": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "CPU"}
    if on_gpu:
        yield {"machine": "probe", "is": gpu_problem(device) or "it computes"}
    for name, value in peaks.items():
        yield {"machine": f"matrix products, {name}", "is": f"{value / 1000:.2f} TFLOP/s"}


def table(rows: list[Row]) -> str:
    """Rows as Markdown, one table for each set of keys."""
    texts, shown = [], None
    for row in rows:
        values = {key: value for key, value in row.items() if key != "text"}
        if list(values) != shown:
            shown = list(values)
            texts.append("\n| " + " | ".join(shown) + " |\n|" + "---|" * len(shown))
        texts.append("| " + " | ".join(map(_text, values.values())) + " |")
        if "text" in row:
            texts.append("\n```\n" + row["text"] + "\n```")
            shown = None
    return "\n".join(texts) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value).replace("|", "/")


class Report:
    """Parts with their rows, written after each part."""

    def __init__(self, out: Path, command: str) -> None:
        self.out, self.command = out, command
        self.parts: dict[str, list[Row]] = {}
        out.mkdir(parents=True, exist_ok=True)

    def add(self, title: str, rows: Iterable[Row]) -> None:
        """Collect a part's rows. An error is a row of the part; the other parts go on."""
        found = self.parts.setdefault(title, [])
        start = time.monotonic()
        try:
            for row in rows:
                found.append(row)
                click.echo(f"{title}: {row}", err=True)
        except Exception as error:
            found.append({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
            click.echo(f"{title}: {found[-1]}", err=True)
        click.echo(f"{title}: {time.monotonic() - start:.0f} s", err=True)
        (self.out / "gpu.json").write_text(json.dumps({"command": self.command, **self.parts}, indent=1) + "\n")
        parts = (f"## {name}\n{table(rows)}" for name, rows in self.parts.items())
        (self.out / "gpu.md").write_text(f"    {self.command}\n\n" + "\n".join(parts))


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the results.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--minutes", default=8.0, show_default=True, help="Parts are begun while there is time.")
@click.option("--quick", is_flag=True, help="Tiny sizes, which only show that everything runs.")
@click.option("--tests/--no-tests", default=True, help="Run the gpu-marked tests.")
@click.option("--samples", type=click.Path(path_type=Path, exists=True), default=ROOT / "samples", help="Photos.")
def main(out: Path, device: str, minutes: float, quick: bool, tests: bool, samples: Path) -> None:
    """Measure, and write gpu.json and gpu.md."""
    import gpu_measures as measures
    import torch

    from posecli.bench.machine import cores, gemm_peaks
    from posecli.runtime import resolve_device

    end = time.monotonic() + 60 * minutes
    device = resolve_device(device)
    setting = measures.Setting(device, quick, samples)
    report = Report(out, "python benchmarks/gpu.py " + " ".join(sys.argv[1:]))
    peaks = gemm_peaks(device, 3, 256 if quick else None)
    report.add("Machine", describe(device, peaks))
    batches = (1, 4) if quick else (1, 8, 32, 64, 128, 256) if device != "cpu" else (1, 8)
    workers = 0 if quick or device == "cpu" else max(1, min(8, cores() - 2))
    parts: tuple[tuple[str, float, Callable[[], Iterable[Row]]], ...] = (
        ("Agreement with the CPU path", 20, lambda: measures.agreement(setting)),
        ("Networks", 60, lambda: measures.networks(setting, peaks, batches)),
        ("Stages", 30, lambda: measures.stages(setting)),
        ("Training", 60, lambda: measures.training(setting, workers)),
        ("Tests", 60, lambda: run_tests(device, max(1.0, end - time.monotonic()))),
        ("Compiled network", 90, lambda: measures.compiled_network(setting, peaks, max(batches))),
    )
    for title, least, rows in parts:
        if (title == "Tests" and not tests) or (title == "Compiled network" and device == "cpu"):
            continue
        if not quick and time.monotonic() + least > end:
            report.add(title, [{"left out": "no time left"}])
            continue
        with torch.no_grad() if title != "Training" else torch.enable_grad():
            report.add(title, rows())


if __name__ == "__main__":
    main()
