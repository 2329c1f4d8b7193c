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


class PlainProgress:
    """A line now and then, for logs and pipes; each failure at once."""

    def __init__(self, inputs: int, quiet: bool) -> None:
        self._inputs, self._quiet = inputs, quiet
        self._ended = self._frames = 0
        self._start = self._last = time.monotonic()

    def advance(self, name: str, frames: int) -> None:
        """Count, and speak where it is time."""
        self._frames += frames
        now = time.monotonic()
        if now - self._last >= PLAIN_EVERY and not self._quiet:
            self._last = now
            rate = self._frames / (now - self._start)
            counts = f"{self._ended} of {self._inputs} inputs, {self._frames} frames"
            _say(f"{counts}, {rate:.1f} frames/s, now {name!r}")

    def finish(self, item: "Finished") -> None:
        """Say what failed."""
        self._ended += 1
        if not self._quiet and (line := _remark(item)):
            _say(line)


class LiveProgress:
    """A bar by rich: inputs done, frames/s, time left."""

    def __init__(self, inputs: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("inputs", total=inputs, rate="")
        self._frames = 0
        self._start = time.monotonic()

    def __enter__(self) -> "LiveProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, name: str, frames: int) -> None:
        """Move the bar."""
        self._frames += frames
        rate = self._frames / max(time.monotonic() - self._start, 1e-9)
        self._bar.update(self._task, description=_short(name), rate=f"{rate:.1f} frames/s")

    def finish(self, item: "Finished") -> None:
        """An input ended."""
        self._bar.advance(self._task)
        if line := _remark(item):
            self._bar.console.print(line, style="red" if item.summary.status == "failed" else "yellow", markup=False)


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
