"""How far a run is: a live bar on a terminal, plain lines in logs."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from posecli.text import printed

if TYPE_CHECKING:
    from posecli.results.manifest import Finished

# A terminal gets a live bar; anything else a plain line this often, in seconds.
PLAIN_EVERY = 10.0


class Pace:
    """How far a run is, in inputs and parts of the one at work, and how long the rest will take."""

    def __init__(self, inputs: int) -> None:
        self.inputs, self.ended, self.frames = inputs, 0, 0
        self._expected = self._done = 0
        self._start = time.monotonic()

    def begin(self, frames: int) -> None:
        """An input with about so many frames begins."""
        self._expected, self._done = frames, 0

    def advance(self, frames: int) -> None:
        """Frames of it were done."""
        self.frames += frames
        self._done += frames

    def finish(self) -> None:
        """It ended."""
        self.ended += 1
        self._expected = self._done = 0

    @property
    def completed(self) -> float:
        """Inputs done, the one at work counted by its frames."""
        return self.ended + (min(1.0, self._done / self._expected) if self._expected else 0.0)

    @property
    def rate(self) -> float:
        """Frames a second so far."""
        return self.frames / max(time.monotonic() - self._start, 1e-9)

    @property
    def left(self) -> str:
        """Time left as minutes:seconds, if inputs go on taking what they took so far."""
        if not self.completed:
            return "unknown"
        seconds = (time.monotonic() - self._start) * (self.inputs / self.completed - 1)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


class PlainProgress:
    """A line now and then, for logs and pipes; each failure at once."""

    def __init__(self, inputs: int, quiet: bool) -> None:
        self._pace, self._quiet = Pace(inputs), quiet
        self._last = time.monotonic()

    def begin(self, name: str, frames: int) -> None:
        """An input begins."""
        self._pace.begin(frames)

    def advance(self, name: str, frames: int) -> None:
        """Count, and speak where it is time."""
        pace = self._pace
        pace.advance(frames)
        now = time.monotonic()
        if now - self._last >= PLAIN_EVERY and not self._quiet:
            self._last = now
            counts = f"{pace.ended} of {pace.inputs} inputs, {pace.frames} frames"
            say(f"{counts}, {pace.rate:.1f} frames/s, {pace.left} left, now {name!r}")

    def finish(self, item: "Finished") -> None:
        """Say what failed."""
        self._pace.finish()
        # A failure is named whatever the user wants to hear.
        if not self._quiet or item.summary.status == "failed":
            for line in _remarks(item):
                say(line)


class LiveProgress:
    """A bar by rich: inputs done, frames/s, time left."""

    def __init__(self, inputs: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._pace = Pace(inputs)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[facts]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=inputs, facts="")

    def __enter__(self) -> "LiveProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, name: str, frames: int) -> None:
        """An input begins."""
        self._pace.begin(frames)
        self._show(name)

    def advance(self, name: str, frames: int) -> None:
        """Move the bar."""
        self._pace.advance(frames)
        self._show(name)

    def finish(self, item: "Finished") -> None:
        """An input ended."""
        self._pace.finish()
        self._show(item.name)
        style = "red" if item.summary.status == "failed" else "yellow"
        for line in _remarks(item):
            self._bar.console.print(line, style=style, markup=False)

    def _show(self, name: str) -> None:
        from rich.markup import escape

        pace = self._pace
        facts = f"{pace.ended}/{pace.inputs}  {pace.rate:.1f} frames/s  {pace.left} left"
        self._bar.update(self._task, completed=pace.completed, description=escape(_short(name)), facts=facts)


def _remarks(item: "Finished") -> list[str]:
    """What the user should know of an input that ended, a line each."""
    summary = item.summary
    if summary.status == "failed":
        return [f"failed: {summary.error}"]
    if item.skipped:
        return []
    lines, status = [], "partial" if summary.status == "partial" else "note"
    if summary.lost_frames:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.lost.items())
        lines.append(f"partial: {printed(item.path)}: {summary.frames} frames kept, lost {reasons}")
        status = "note"
    return lines + [f"{status}: {printed(item.path)}: {warning}" for warning in summary.warnings]


def _short(name: str, width: int = 32) -> str:
    name = printed(name)
    return name if len(name) <= width else "…" + name[-(width - 1) :]


def say(line: str) -> None:
    """A line to the user."""
    click.echo(line, err=True)


@contextmanager
def progress_of(inputs: int, quiet: bool) -> Iterator[Any]:
    """The progress to show: a bar where stderr is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield PlainProgress(inputs, quiet)
        return
    with LiveProgress(inputs) as live:
        yield live
