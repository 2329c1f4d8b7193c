"""`posecli run`: photos and videos in, annotated media and JSON out."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posecli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from posecli.media.inputs import Input
    from posecli.output.manifest import Finished

# A terminal gets a live bar; anything else a plain line this often, in seconds.
PLAIN_EVERY = 10.0


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which models run and where; shared by the commands that run them."""
    for option in reversed(
        [
            click.option("--weights", default="pose", metavar="NAME|FILE", help="Pose model."),
            click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
            click.option("--runtime", default="auto", help="auto, torch or openvino."),
            click.option("--decode", "decoder", default="parabola", help="argmax, dark or parabola."),
            click.option("--flip/--no-flip", default=False, help="Average with the mirror image."),
        ]
    ):
        command = option(command)
    return command


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@click.option("--out", "-o", type=click.Path(path_type=Path, file_okay=False), default=Path("results"))
@click.option("--detector", default="person", metavar="NAME|boxes:FILE", help="Who finds people, or whole.")
@click.option("--detector-weights", type=click.Path(path_type=Path, dir_okay=False), help="Its weights file.")
@click.option("--detector-thr", type=click.FloatRange(0, 1), help="Lowest score of a person.")
@click.option("--max-people", type=click.IntRange(1), default=100, help="At most so many in a frame.")
@model_options
@click.option("--kpt-thr", type=click.FloatRange(0, 1), default=0.3, help="Lowest score of a drawn keypoint.")
@click.option("--show-boxes", is_flag=True, help="Draw the boxes too.")
@click.option("--no-media", is_flag=True, help="Write JSON only.")
@click.option("--no-audio", is_flag=True, help="Leave the sound out.")
@click.option("--crf", type=click.IntRange(0, 51), default=20, help="Quality of videos: lower is better.")
@click.option("--preset", default="veryfast", help="x264 preset.")
@click.option("--max-pixels", type=click.IntRange(1), default=200_000_000, help="Refuse larger photos.")
@click.option("--overwrite", is_flag=True, help="Do finished inputs again.")
@click.option("--dry-run", is_flag=True, help="List what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print run.json to stdout.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def run_command(
    inputs: tuple[str, ...],
    out: Path,
    detector: str,
    detector_weights: Path | None,
    detector_thr: float | None,
    max_people: int,
    weights: str,
    device: str,
    runtime: str,
    decoder: str,
    flip: bool,
    kpt_thr: float,
    show_boxes: bool,
    no_media: bool,
    no_audio: bool,
    crf: int,
    preset: str,
    max_pixels: int,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Find people in photos and videos, and their poses.

    INPUTS are files, folders, globs, @LIST (a file of paths) or @- (a list on stdin). Annotated media,
    coco.json, coco_results.json, run.json and index.html go into --out. Started again with the same
    options, it goes on where it stopped.
    """
    from posecli.media.inputs import find_inputs

    found = find_inputs(inputs, exclude=out)
    if dry_run:
        return _list(found, out, as_json)

    from posecli.detect import load_detector
    from posecli.pipeline import RunOptions, prepare_output, run
    from posecli.pose.codec import DECODERS
    from posecli.pose.estimator import load_estimator

    if decoder not in DECODERS:
        raise UsageError(f"--decode {decoder}: choose from {', '.join(DECODERS)}")
    prepare_output(out)
    estimator = load_estimator(weights, device=device, runtime=runtime, decoder=decoder, flip=flip)
    people = load_detector(
        detector,
        device=device,
        runtime=runtime if detector == "person" else "auto",
        threshold=detector_thr,
        weights=detector_weights,
        max_people=max_people,
    )
    options = RunOptions(kpt_thr, not no_media, not no_audio, show_boxes, crf, preset, max_pixels)
    with _progress(len(found), quiet) as progress:
        document = run(found, out, people, estimator, options, progress, overwrite=overwrite)
    if as_json:
        import orjson

        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    if not quiet:
        _say(_closing(document, out))
    return ExitCode.SOME_FAILED if document["totals"]["status"].get("failed") else ExitCode.OK


def _list(found: "list[Input]", out: Path, as_json: bool) -> int:
    from posecli.pipeline import plan

    rows = [
        {"input": str(job.input.path), "kind": job.input.kind, "output": job.output, "error": job.input.error}
        for job in plan(found, out)
    ]
    if as_json:
        import orjson

        sys.stdout.buffer.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        for row in rows:
            target = f"cannot be read: {row['error']}" if row["error"] else out / str(row["output"])
            click.echo(f"{row['kind']:7} {row['input']} → {target}")
    return ExitCode.OK


def _closing(document: dict[str, Any], out: Path) -> str:
    totals, status = document["totals"], document["totals"]["status"]
    done = status.get("done", 0) + status.get("partial", 0)
    parts = [f"{done} done"]
    parts += [f"{status[name]} {name}" for name in ("skipped", "failed") if status.get(name)]
    lost = f", {totals['lost_frames']} frames lost" if totals["lost_frames"] else ""
    rate = totals["frames"] / max(document["seconds"], 1e-9)
    speed = f", {rate:.1f} frames/s" if not status.get("skipped") else ""
    return (
        f"{', '.join(parts)}: {totals['frames']} frames, {totals['people']} people{lost} "
        f"in {document['seconds']:.1f} s{speed} → {out / 'index.html'}"
    )


def _say(line: str) -> None:
    click.echo(line, err=True)


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
            _say(f"{counts}, {pace.rate:.1f} frames/s, {pace.left} left, now {name!r}")

    def finish(self, item: "Finished") -> None:
        """Say what failed."""
        self._pace.finish()
        if not self._quiet and (line := _remark(item)):
            _say(line)


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
        if line := _remark(item):
            style = "red" if item.summary.status == "failed" else "yellow"
            self._bar.console.print(line, style=style, markup=False)

    def _show(self, name: str) -> None:
        from rich.markup import escape

        pace = self._pace
        facts = f"{pace.ended}/{pace.inputs}  {pace.rate:.1f} frames/s  {pace.left} left"
        self._bar.update(self._task, completed=pace.completed, description=escape(_short(name)), facts=facts)


def _remark(item: "Finished") -> str | None:
    summary = item.summary
    if summary.status == "failed":
        return f"failed: {summary.error}"
    if summary.lost_frames and not item.skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in summary.lost.items())
        return f"partial: {item.path}: {summary.frames} frames kept, lost {reasons}"
    return None


def _short(name: str, width: int = 32) -> str:
    name = name.replace("\n", " ")
    return name if len(name) <= width else "…" + name[-(width - 1) :]


@contextmanager
def _progress(inputs: int, quiet: bool) -> Iterator[Any]:
    if quiet or not sys.stderr.isatty():
        yield PlainProgress(inputs, quiet)
        return
    with LiveProgress(inputs) as live:
        yield live
