"""`posecli run`: photos and videos in, annotated media and JSON out."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from posecli.cli.options import model_options, output_options, people_options, video_options
from posecli.cli.progress import progress_of, say
from posecli.errors import ExitCode, UsageError
from posecli.text import printed

if TYPE_CHECKING:
    from pathlib import Path

    from posecli.media.inputs import Input
    from posecli.pipeline import RunOptions
    from posecli.pipeline.events import Job


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@output_options
@people_options
@model_options
@video_options
@click.option("--max-pixels", type=click.IntRange(1), default=200_000_000, help="Refuse larger photos.")
def run_command(inputs: tuple[str, ...], **options: Any) -> int:
    """Find people in photos and videos, and their poses.

    INPUTS are files, folders, globs, @LIST (a file of paths) or @- (a list on stdin), and all that `posecli video`
    takes. Annotated media, coco.json, coco_results.json, run.json and index.html go into --out. Started again with
    the same options, it goes on where it stopped; with other inputs, the JSON files and index.html are those of the
    new inputs, which is said first, and media stay. No input, and no file that is not posecli's, is replaced.
    """
    return execute(find(inputs, options), inputs, options)


def find(arguments: Sequence[str], options: dict[str, Any]) -> "list[Input]":
    """The inputs that the arguments mean. Raises UsageError where --out is the very folder of the inputs."""
    from posecli.media.identity import file_id
    from posecli.media.inputs import find_inputs

    if "" in arguments:
        raise UsageError("an input is an empty text: leave it out, or name a file")
    out: Path = options["out"]
    there = file_id(out)
    same = [argument for argument in arguments if there is not None and file_id(argument) == there]
    # A shell's * may name an earlier run's output beside the inputs: that is passed over.
    if same and (len(arguments) == len(same) or not (out / ".posecli").is_dir()):
        raise UsageError(f"--out {printed(out)} is the folder of the inputs: choose another folder")
    return find_inputs(arguments, exclude=out)


def execute(found: "list[Input]", arguments: Sequence[str], options: dict[str, Any]) -> int:
    """Do the inputs, which the arguments mean, as the options of the command line say; the exit code."""
    from posecli.pipeline.plan import output_folder, plan, refuse_harm_to_inputs

    out: Path = options["out"]
    jobs, media = plan(found, out), not options["no_media"]
    refuse_harm_to_inputs(jobs, out, options["tables"], media=media, reads=_read_too(arguments, options))
    if options["dry_run"]:
        return _list(jobs, out, options["as_json"])

    from posecli.pipeline.run import run
    from posecli.pipeline.window import Window
    from posecli.pose.codec import CHOICES
    from posecli.predict import load_predictor
    from posecli.results.tables import check_tables

    if options["decoder"] not in CHOICES:
        raise UsageError(f"--decode {options['decoder']}: choose from {', '.join(CHOICES)}")
    chosen = _run_options(options, found)
    check_tables(options["tables"])
    with ExitStack() as stack:
        overwrite = options["overwrite"]
        folder = output_folder(jobs, out, options["tables"], overwrite=overwrite, media=media)
        for remark in stack.enter_context(folder):
            say(remark)
        window = None
        if options["show"]:
            window = Window()
            stack.callback(window.close)
        predictor = load_predictor(
            options["weights"],
            detector=options["detector"],
            device=options["device"],
            runtime=options["runtime"],
            decoder=options["decoder"],
            flip=options["flip"],
            detector_threshold=options["detector_thr"],
            detector_weights=options["detector_weights"],
            max_people=options["max_people"],
            reestimate=options["reestimate"],
        )
        progress = stack.enter_context(progress_of(len(found), options["quiet"]))
        document = run(
            found,
            out,
            predictor,
            chosen,
            progress,
            overwrite=overwrite,
            tables=options["tables"],
            window=window,
        )
    if options["as_json"]:
        import orjson

        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    if not options["quiet"]:
        say(_closing(document, out))
    return ExitCode.SOME_FAILED if document["totals"]["status"].get("failed") else ExitCode.OK


def _run_options(options: dict[str, Any], found: "list[Input]") -> "RunOptions":
    """The options that decide the output. Raises UsageError where they make no sense together."""
    from posecli.media.encoders import ENCODERS
    from posecli.media.span import Span, parse_position
    from posecli.pipeline import RunOptions
    from posecli.tracking.choose import person_choice
    from posecli.tracking.smoothing import SMOOTHERS

    limits = {name: parse_position(options[name]) for name in ("start", "end", "duration") if options[name] is not None}
    smooth, codec = options["smooth"], options["codec"]
    if smooth not in (*SMOOTHERS, "offline"):
        raise UsageError(f"--smooth {smooth}: choose from {', '.join((*SMOOTHERS, 'offline'))}")
    if smooth == "offline" and any(item.live for item in found):
        raise UsageError("--smooth offline reads a clip twice, which a live source cannot: choose another")
    if codec not in ENCODERS:
        raise UsageError(f"--codec {codec}: choose from {', '.join(ENCODERS)}")
    every = options["detect_every"]
    if every != "auto" and not (every.isdigit() and int(every) > 0):
        raise UsageError(f"--detect-every {every}: a number of frames, or auto")
    person_choice(options["person"])
    if options["no_track"] and (options["person"].startswith("id:") or options["show_ids"]):
        raise UsageError("--no-track leaves no ids to choose or show")
    return RunOptions(
        keypoint_threshold=options["kpt_thr"],
        media=not options["no_media"],
        audio=not options["no_audio"],
        black=options["black"],
        show_boxes=options["show_boxes"],
        show_ids=options["show_ids"],
        trails=1.0 if options["trails"] else 0.0,
        blur_faces=options["blur_faces"],
        side_by_side=options["side_by_side"],
        codec=codec,
        crf=options["crf"],
        preset="ultrafast" if options["fast"] else options["preset"],
        max_pixels=options.get("max_pixels") or RunOptions.max_pixels,
        span=Span(**limits, stride=options["stride"]),
        detect_every=None if every == "auto" else int(every),
        track=not options["no_track"],
        smooth="none" if options["no_track"] else smooth,
        person=options["person"],
    )


def _read_too(arguments: Sequence[str], options: dict[str, Any]) -> "list[Path]":
    """What a run reads beside its inputs: lists, boxes and weights."""
    from pathlib import Path

    kind, _, boxes = options["detector"].partition(":")
    named = [argument[1:] for argument in arguments if argument.startswith("@") and argument != "@-"]
    named += [boxes] if kind == "boxes" and boxes else []
    return [Path(name) for name in (*named, options["weights"], options["detector_weights"]) if name]


def _list(jobs: "Sequence[Job]", out: "Path", as_json: bool) -> int:
    from posecli.media.inputs import printable

    rows = [
        {
            "input": printable(job.input.shown),
            "kind": job.input.kind,
            "output": job.output,
            "error": None if job.input.error is None else printable(job.input.error),
        }
        for job in jobs
    ]
    if as_json:
        import orjson

        sys.stdout.buffer.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        for row in rows:
            target = f"cannot be read: {row['error']}" if row["error"] else str(out / str(row["output"]))
            click.echo(f"{row['kind']:7} {printed(str(row['input']))} → {printed(target)}")
    return ExitCode.OK


def _closing(document: dict[str, Any], out: "Path") -> str:
    """What was written, how much was lost and why."""
    totals, status = document["totals"], document["totals"]["status"]
    done = status.get("done", 0) + status.get("partial", 0)
    parts = [f"{done} done"]
    parts += [f"{status[name]} {name}" for name in ("skipped", "failed") if status.get(name)]
    lost = f", {totals['lost_frames']} frames lost ({_reasons(document)})" if totals["lost_frames"] else ""
    rate = totals["frames"] / max(document["seconds"], 1e-9)
    speed = f", {rate:.1f} frames/s" if not status.get("skipped") else ""
    return (
        f"{', '.join(parts)}: {totals['frames']} frames, {totals['people']} people{lost} "
        f"in {document['seconds']:.1f} s{speed} → {printed(out / 'index.html')}"
    )


def _reasons(document: dict[str, Any]) -> str:
    counts: dict[str, int] = {}
    for item in document["inputs"]:
        for reason, count in item["lost"].items():
            counts[reason] = counts.get(reason, 0) + count
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
