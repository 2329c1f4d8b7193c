"""Progress of a run: a live bar on a terminal, plain lines otherwise."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from posecli.cli.environment import Environment
from posecli.text import printed

if TYPE_CHECKING:
    from posecli.results.manifest import Finished

# Seconds between two plain lines.
PLAIN_EVERY = 10.0


class Pace:
    """Counts inputs and frames, and estimates the time left. clock: seconds of a monotonic clock."""

    def __init__(self, inputs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.inputs, self.ended, self.frames = inputs, 0, 0
        # Names of the inputs that were begun → frames done, and their estimated number.
        self._done: dict[str, tuple[int, int]] = {}
        self._clock, self._start = clock, clock()

    def begin(self, name: str, frames: int) -> None:
        """Start of an input. frames: estimated number."""
        self._done[name] = (0, frames)

    def advance(self, name: str, frames: int) -> None:
        """Count written frames."""
        self.frames += frames
        done, expected = self._done.get(name, (0, 0))
        self._done[name] = (done + frames, expected)

    def finish(self, name: str) -> None:
        """It ended."""
        self.ended += 1
        self._done.pop(name, None)

    @property
    def completed(self) -> float:
        """Number of finished inputs, plus the finished parts of those that were begun."""
        return self.ended + sum(min(1.0, done / expected) for done, expected in self._done.values() if expected)

    @property
    def rate(self) -> float:
        """Frames a second so far."""
        return self.frames / max(self._clock() - self._start, 1e-9)

    @property
    def left(self) -> str:
        """Estimated time left as minutes:seconds, from the mean time per input."""
        if not self.completed:
            return "unknown"
        seconds = (self._clock() - self._start) * (self.inputs / self.completed - 1)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


class PlainProgress:
    """A line every PLAIN_EVERY seconds, for logs and pipes; failures at once."""

    def __init__(self, inputs: int, quiet: bool, environment: Environment | None = None) -> None:
        self._environment = environment or Environment()
        self._pace, self._quiet = Pace(inputs, self._environment.clock), quiet
        self._last = self._environment.clock()

    def begin(self, name: str, frames: int) -> None:
        """An input begins."""
        self._pace.begin(name, frames)

    def advance(self, name: str, frames: int) -> None:
        """Count frames; write a line if PLAIN_EVERY seconds have passed."""
        pace = self._pace
        pace.advance(name, frames)
        now = self._environment.clock()
        if now - self._last >= PLAIN_EVERY and not self._quiet:
            self._last = now
            counts = f"{pace.ended} of {pace.inputs} inputs, {pace.frames} frames"
            self._environment.say(f"{counts}, {pace.rate:.1f} frames/s, {pace.left} left, now {name!r}")

    def finish(self, item: "Finished") -> None:
        """Write errors and remarks of an input that ended."""
        self._pace.finish(item.name)
        # Failures are written with --quiet too.
        if not self._quiet or item.summary.status == "failed":
            for line in _remarks(item):
                self._environment.say(line)


class LiveProgress:
    """A progress bar of rich: finished inputs, frames/s, time left."""

    def __init__(self, inputs: int, environment: Environment | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        environment = environment or Environment()
        self._pace = Pace(inputs, environment.clock)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[facts]}"),
            console=Console(file=environment.stderr),
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
        self._pace.begin(name, frames)
        self._show(name)

    def advance(self, name: str, frames: int) -> None:
        """Update the bar."""
        self._pace.advance(name, frames)
        self._show(name)

    def finish(self, item: "Finished") -> None:
        """An input ended."""
        self._pace.finish(item.name)
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
    """Lines about an input that ended: its error, lost frames and warnings."""
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


@contextmanager
def progress_of(inputs: int, quiet: bool, environment: Environment) -> Iterator[Any]:
    """The progress display: a bar where stderr is a terminal."""
    if quiet or not environment.is_tty:
        yield PlainProgress(inputs, quiet, environment)
        return
    with LiveProgress(inputs, environment) as live:
        yield live
