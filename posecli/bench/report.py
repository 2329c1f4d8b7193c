"""The result of `posecli bench` as a JSON document and as text."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

from posecli.bench.costs import OTHER, REST, StageCost
from posecli.bench.machine import Machine
from posecli.bench.networks import Comparison
from posecli.bench.whole import RunReport
from posecli.results.manifest import versions
from posecli.text import printed

# Cores used by other programs that are worth a warning.
BUSY = 0.2
# Names of networks by their stage.
_NETWORKS = {"network": "pose network", "detector": "detector"}


@dataclass(frozen=True)
class Report:
    """All measurements. run: None without an input. startup: see startup.measure_startup. notes: what was left out."""

    machine: Machine
    run: RunReport | None
    networks: tuple[Comparison, ...]
    startup: dict[str, float]
    notes: tuple[str, ...]


def document(report: Report) -> dict[str, Any]:
    """The JSON document: times in seconds, rates in GFLOP/s."""
    machine = report.machine
    return {
        "schema": 1,
        "versions": versions(),
        "machine": {
            "cpu": machine.cpu,
            "cores": machine.cores,
            "device": machine.device,
            "gpu": machine.gpu,
            "busy_cores": None if machine.busy_cores is None else _rounded(machine.busy_cores),
            "gemm_gflops": {name: _rounded(peak) for name, peak in machine.peaks.items()},
        },
        "run": None if report.run is None else _run_document(report.run),
        "networks": [_network_document(comparison) for comparison in report.networks],
        "startup_s": {name: _rounded(seconds) for name, seconds in report.startup.items()},
        "notes": [*report.notes, *(line for comparison in report.networks for line in comparison.skipped)],
    }


def _run_document(run: RunReport) -> dict[str, Any]:
    cost = run.cost
    return {
        "inputs": run.inputs,
        "failed": list(run.failed),
        "frames": run.frames,
        "people": run.people,
        "runtime": run.runtime,
        "precision": run.precision,
        "walls_s": [_rounded(wall) for wall in run.walls],
        "wall_s": _rounded(cost.wall),
        "core_s": _rounded(cost.core),
        "bound_s": _rounded(cost.bound),
        "wall_to_bound": _rounded(cost.ratio),
        "slowest_stage": cost.slowest.name,
        "overhead_share": _rounded(cost.overhead),
        "stages": [
            {
                "stage": stage.name,
                "items": stage.items,
                "core_s": _rounded(stage.core),
                "core_share": _rounded(stage.core / cost.core),
                "wall_s": _rounded(stage.wall),
                "wall_share": _rounded(stage.wall / cost.wall),
                "gpu_s": _rounded(stage.gpu),
                "least_s": _rounded(stage.least),
            }
            for stage in cost.every
        ],
    }


def _network_document(comparison: Comparison) -> dict[str, Any]:
    network = comparison.network
    return {
        "stage": network.stage,
        "weights": network.weights,
        "height": network.size[0],
        "width": network.size[1],
        "gflop": _rounded(comparison.flops / 1e9),
        "times": [
            {
                "runtime": time.runtime,
                "precision": time.precision,
                "auto": time.auto,
                "item_s": _rounded(time.seconds),
                "ratio": _rounded(time.ratio),
                "gflops": _rounded(time.gflops),
                "peak_share": None if time.peak_share is None else _rounded(time.peak_share),
            }
            for time in comparison.times
        ],
    }


def _rounded(value: float) -> float:
    """The value with six significant digits."""
    return float(f"{value:.6g}")


def print_report(report: Report, stream: IO[str]) -> None:
    """Write the report as text with tables."""
    from rich.console import Console

    console = Console(file=stream, highlight=False, soft_wrap=True, markup=False)
    machine = report.machine
    cores = f"{machine.cores} core{'s' if machine.cores > 1 else ''}"
    console.print(f"{machine.cpu}, {cores}" + (f"; {machine.gpu}" if machine.gpu else ""))
    peaks = (f"{name} {peak:.0f} GFLOP/s" for name, peak in machine.peaks.items())
    console.print(f"GEMM peak on {machine.device}: {', '.join(peaks)}")
    if machine.busy_cores is not None and machine.busy_cores > BUSY:
        console.print(f"other programs used {machine.busy_cores:.1f} cores before or after: times are too long")
    if report.run is not None:
        _print_run(report.run, machine.gpu is not None, console)
    for comparison in report.networks:
        _print_network(comparison, console)
    console.print()
    _print_table(console, ("start-up, whole process", "s"), ([name, f"{s:.2f}"] for name, s in report.startup.items()))
    for line in [*report.notes, *(line for comparison in report.networks for line in comparison.skipped)]:
        console.print(f"left out: {printed(line)}")


def _print_run(run: RunReport, gpu: bool, console: Any) -> None:
    cost = run.cost
    # A photo takes some milliseconds.
    unit, factor = ("s", 1.0) if cost.wall >= 1 else ("ms", 1000.0)

    def shown(seconds: float) -> str:
        return f"{seconds * factor:.2f}"

    def row(stage: StageCost) -> list[str]:
        outside = stage.name in (OTHER, REST)
        wall = ["", ""] if outside else [shown(stage.wall), f"{stage.wall / cost.wall:.1%}"]
        items = "" if outside else str(stage.items)
        cells = [stage.name, items, shown(stage.core), f"{stage.core / cost.core:.1%}", *wall]
        return [*cells, shown(stage.gpu)] if gpu else cells

    console.print()
    console.print(
        f"run: inputs {run.inputs}, frames {run.frames}, people {run.people}, median of {len(run.walls)}; "
        + ", ".join(_where(name, run) for name in run.runtime)
    )
    columns = ("stage", "items", f"core {unit}", "of all core", f"wall {unit}", "of the wall")
    _print_table(console, (*columns, *((f"GPU {unit}",) if gpu else ())), map(row, cost.every))
    console.print(
        f"wall {shown(cost.wall)} {unit}, core {shown(cost.core)} {unit}: {cost.core / cost.wall:.2f} cores busy"
    )
    console.print(
        f"bound {shown(cost.bound)} {unit} (core time on {cost.cores} cores: {shown(cost.core / cost.cores)} {unit}, "
        f"slowest stage {cost.slowest.name}: {shown(cost.slowest.least)} {unit})"
    )
    console.print(f"wall is {cost.ratio:.2f} times the bound")
    console.print(f"{cost.overhead:.1%} of the core time is neither decoding, encoding nor networks")


def _where(stage: str, run: RunReport) -> str:
    """Runtime and precision of a network; a detector of given boxes has none."""
    if run.runtime[stage] == "none":
        return f"{_NETWORKS[stage]} without a network"
    return f"{_NETWORKS[stage]} in {run.runtime[stage]} {run.precision[stage]}"


def _print_network(comparison: Comparison, console: Any) -> None:
    network = comparison.network
    console.print()
    console.print(
        f"{_NETWORKS[network.stage]} {printed(network.weights)}, {network.size[0]}×{network.size[1]} pixels, "
        f"{comparison.flops / 1e9:.2f} GFLOP"
    )
    _print_table(
        console,
        ("runtime", "precision", "ms an item", "ratio", "GFLOP/s", "of the GEMM peak"),
        (
            [
                f"{time.runtime}{' (auto)' if time.auto else ''}",
                time.precision,
                f"{1000 * time.seconds:.2f}",
                f"{time.ratio:.2f}",
                f"{time.gflops:.0f}",
                "" if time.peak_share is None else f"{time.peak_share:.1%}",
            ]
            for time in comparison.times
        ),
    )


def _print_table(console: Any, columns: tuple[str, ...], rows: Iterable[list[str]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
