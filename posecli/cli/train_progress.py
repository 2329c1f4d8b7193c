"""Output of training metrics: progress bar, lines, TensorBoard."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from posecli.errors import MachineError

Row = dict[str, float]
Report = Callable[[Row], None]


@contextmanager
def reports(total: int, folder: Path, tensorboard: bool, is_main: bool) -> Iterator[Report]:
    """Functions that receive rows of metrics: a progress bar on a terminal, else lines; optionally TensorBoard."""
    if not is_main:
        yield lambda row: None
        return
    sinks: list[Report] = []
    closers: list[Callable[[], None]] = []
    if tensorboard:
        write, close = _tensorboard(folder)
        sinks.append(write)
        closers.append(close)
    if sys.stderr.isatty():
        bar = _Bar(total)
        sinks.append(bar)
        closers.append(bar.stop)
    else:
        sinks.append(lambda row: click.echo(_line(row, total), err=True))

    def report(row: Row) -> None:
        for sink in sinks:
            sink(row)

    try:
        yield report
    finally:
        for close in closers:
            close()


def _tensorboard(folder: Path) -> tuple[Report, Callable[[], None]]:
    """A function that writes a row into event files, and one that closes them."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MachineError("--tensorboard: pip install posecli[tensorboard]") from error
    writer = SummaryWriter(str(folder / "tensorboard"))

    def write(row: Row) -> None:
        for name, value in row.items():
            if name not in ("samples", "stage"):
                writer.add_scalar(name, value, int(row["samples"]))

    return write, writer.close


def _line(row: Row, total: int) -> str:
    if "AP" in row:
        return f"{row['samples']:>9,} samples  AP {row['AP']:.3f}  AP50 {row['AP50']:.3f}  AP75 {row['AP75']:.3f}"
    left = (total - row["samples"]) / max(row["samples_per_s"], 1e-9)
    return (
        f"{row['samples']:>9,} samples  loss {row['loss']:.4f}  {row['samples_per_s']:.0f}/s  "
        f"{left / 60:.0f} min left at this speed"
    )


class _Bar:
    """A progress bar: samples/s, loss, last AP, time left. Evaluations are printed above it."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._total = total
        self._facts, self._score = "", ""
        self._progress = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("train", total=total, facts="")
        self._progress.start()

    def __call__(self, row: Row) -> None:
        if "AP" in row:
            self._score = f"  AP {row['AP']:.3f}"
            self._progress.console.print(_line(row, self._total), highlight=False)
        else:
            self._facts = f"{row['samples_per_s']:.0f}/s  loss {row['loss']:.4f}"
        self._progress.update(self._task, completed=row["samples"], facts=self._facts + self._score)

    def stop(self) -> None:
        self._progress.stop()
