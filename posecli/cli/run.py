"""`posecli run`: photos and videos in, annotated media and JSON out."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from posecli.cli.early_models import begin_reading, chosen_models, keep
from posecli.cli.environment import Environment, environment
from posecli.cli.groups import GroupedCommand
from posecli.cli.options import (
    look_options,
    model_options,
    output_options,
    people_options,
    photo_options,
    video_options,
)
from posecli.cli.progress import progress_of
from posecli.cli.workers import chosen_workers
from posecli.errors import ExitCode, UsageError
from posecli.text import printed

if TYPE_CHECKING:
    from posecli.media.inputs import Input
    from posecli.pipeline.events import Job
    from posecli.pipeline.run_options import RunOptions
    from posecli.pose.runner import Runner
    from posecli.predict import Predictor
    from posecli.results.write import Results

T = TypeVar("T")

EXAMPLES = [
    ("posecli run photos/", "annotate a folder into results/"),
    ("posecli run a.jpg clip.mp4 -o out/ --format csv", "photos and videos, also a table"),
    ("posecli run photos/ --no-media --json > run.json", "JSON only"),
    ("posecli run photos/ --detector boxes:boxes.json", "poses in given boxes"),
    ("posecli run photos/ --show-boxes --blur-faces", "draw boxes, hide faces"),
]


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("inputs", nargs=-1, required=True)
@people_options
@model_options
@photo_options
@video_options
@look_options
@output_options
def run_command(inputs: tuple[str, ...], **options: Any) -> int:
    """Estimate the poses of people in photos and videos.

    INPUTS are files, folders, globs, @LIST (a file of paths), @- (a list on stdin), and everything that `posecli
    video` accepts. Annotated media, coco.json, coco_results.json, run.json and index.html are written to --out. Inputs
    and --out may be addresses of stores and servers, as s3://BUCKET/FOLDER or sftp://HOST/FOLDER.

    The same command resumes an interrupted run. With other inputs, coco.json, coco_results.json, run.json and
    index.html are replaced, and a message says so first; media of earlier inputs stay. Inputs, and files that posecli
    did not write, are never overwritten.
    """
    runner = begin_reading(options)
    return execute(find(inputs, options), inputs, options, runner)


def find(arguments: Sequence[str], options: dict[str, Any]) -> "list[Input]":
    """The inputs of the arguments. Raises UsageError where --out is the folder of the inputs."""
    from posecli.media.identity import file_id
    from posecli.media.inputs import find_inputs
    from posecli.remote import identity, is_remote, without_file_scheme, without_password

    if "" in arguments:
        raise UsageError("an input is an empty text: leave it out, or name a file")
    out: Path | str = options["out"]
    if isinstance(out, str):
        place = identity(out)
        if place is not None and any(is_remote(argument) and identity(argument) == place for argument in arguments):
            raise UsageError(
                f"--out {printed(without_password(out))} is the folder of the inputs: choose another folder"
            )
        return find_inputs(arguments, exclude_remote=out)
    arguments = [without_file_scheme(argument) for argument in arguments]
    out_id = file_id(out)
    same = [argument for argument in arguments if out_id is not None and file_id(argument) == out_id]
    # A glob of the shell may include the output folder of an earlier run: it is skipped.
    if same and (len(arguments) == len(same) or not (out / ".posecli").is_dir()):
        raise UsageError(f"--out {printed(out)} is the folder of the inputs: choose another folder")
    return find_inputs(arguments, exclude=out)


def execute(found: "list[Input]", arguments: Sequence[str], options: dict[str, Any], runner: "Runner | None") -> int:
    """Run on the inputs that were found for the arguments; returns the exit code. runner: see begin_reading."""
    from posecli.pipeline.mirror import lines_named, mirror_folder, mirrored
    from posecli.pipeline.plan import output_folder
    from posecli.remote import without_password

    address: str | None = options["out"] if isinstance(options["out"], str) else None
    out = options["out"] if address is None else mirror_folder(address)
    tables, media, overwrite = options["tables"], options["media"], options["overwrite"]
    env = environment()
    jobs = _checked_plan(found, arguments, options, out, address)
    shown = str(out) if address is None else without_password(address).rstrip("/")
    if options["dry_run"]:
        return _list(jobs, shown, options["as_json"], env)

    from posecli.results.tables import check_tables

    run_options = make_run_options(options)
    if run_options.tracking.smooth == "offline" and any(item.live for item in found):
        raise UsageError("--smooth offline reads a clip twice, which a live source does not allow: choose another")
    check_tables(tables)
    with ExitStack() as stack:
        make_workers = stack.enter_context(chosen_workers(found, options, env))
        mirror = None if address is None else stack.enter_context(mirrored(address))
        remarks = stack.enter_context(output_folder(jobs, out, tables, overwrite=overwrite, media=media))
        for remark in lines_named(mirror, remarks):
            env.say(remark)
        if mirror is not None:
            mirror.begin()
        models = chosen_models(options)
        predictor = keep(models.load(runner))
        # Only now: networks are read in the background while these are imported.
        from posecli.pipeline.run import run
        from posecli.pipeline.window import Window

        window = None
        if options["show"]:
            window = Window()
            stack.callback(window.close)
        progress = stack.enter_context(progress_of(len(found), options["quiet"], env))
        results = run(
            found,
            out,
            predictor,
            run_options,
            progress,
            overwrite=overwrite,
            tables=tables,
            window=window,
            jobs=jobs,
            workers=None if make_workers is None else make_workers(models),
            mirror=mirror,
        )
        if mirror is not None:
            mirror.publish()
    if options["as_json"]:
        env.print_file(out / "run.json")
    if not options["quiet"]:
        env.say(_summary(results, shown))
    return ExitCode.SOME_FAILED if results.totals["status"].get("failed") else ExitCode.OK


def _checked_plan(
    found: "list[Input]", arguments: Sequence[str], options: dict[str, Any], out: Path, address: str | None
) -> "list[Job]":
    """The plan of the inputs. address: of --out, whose mirror out is.

    Raises UsageError where an input would be replaced.
    """
    from posecli.pipeline.plan import plan, refuse_replacing_inputs, refuse_replacing_remote_inputs

    tables, media = options["tables"], options["media"]
    jobs = plan(found, out)
    refuse_replacing_inputs(jobs, out, tables, media=media, reads=_read_too(arguments, options))
    if address is not None:
        refuse_replacing_remote_inputs(jobs, address, tables, media=media)
    return jobs


def make_run_options(options: dict[str, Any]) -> "RunOptions":
    """The options that the output depends on.

    Raises UsageError where they contradict each other, MachineError for an encoder that does not work here.
    """
    from posecli.draw.style import DrawStyle
    from posecli.media.encoder_check import check_encoder
    from posecli.media.encoders import EncodeOptions
    from posecli.media.span import Span
    from posecli.pipeline.run_options import RunOptions, TrackingOptions

    values = dict(options)
    if values["media"]:
        check_encoder(values["encoder"])
    values["detect_every"] = _detect_every(options)
    values["preset"] = "ultrafast" if options["fast"] else options["preset"]
    return RunOptions(
        media=values["media"],
        # `posecli video` reads no photos and has no such option.
        max_pixels=values.get("max_pixels", RunOptions.max_pixels),
        span=_take(Span, values),
        tracking=_take(TrackingOptions, values),
        style=_take(DrawStyle, values),
        encoding=_take(EncodeOptions, values),
    )


def _detect_every(options: dict[str, Any]) -> int | None:
    """Frames from one detection to the next, None where box propagation decides.

    By default that is so, except where a person who appears must be found at once (faces to be blurred), and
    where the boxes of all frames are given.
    """
    source = click.get_current_context().get_parameter_source("detect_every")
    given = options["detector"].partition(":")[0] in ("boxes", "whole")
    if source is click.core.ParameterSource.DEFAULT and (options["blur_faces"] or given):
        return 1
    return None if options["detect_every"] == "auto" else int(options["detect_every"])


def _take(kind: type[T], values: dict[str, Any]) -> T:
    """An instance of an options dataclass, whose fields have the names of the command line's options."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def load_models(options: dict[str, Any]) -> "Predictor":
    """The models of the options, ready to run."""
    return chosen_models(options).load()


def _read_too(arguments: Sequence[str], options: dict[str, Any]) -> "list[Path]":
    """Files that a run reads beside its inputs: lists, boxes and weights."""
    kind, _, boxes = options["detector"].partition(":")
    named = [argument[1:] for argument in arguments if argument.startswith("@") and argument != "@-"]
    named += [boxes] if kind == "boxes" and boxes else []
    return [Path(name) for name in (*named, options["weights"], options["detector_weights"]) if name]


def _list(jobs: "Sequence[Job]", out: str, as_json: bool, env: Environment) -> int:
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
        env.print_json(rows)
    else:
        for row in rows:
            target = f"cannot be read: {row['error']}" if row["error"] else _inside(out, str(row["output"]))
            click.echo(f"{row['kind']:7} {printed(str(row['input']))} → {printed(target)}", file=env.stdout)
    return ExitCode.OK


def _inside(out: str, name: str) -> str:
    """The path or address of a file in the output folder."""
    return f"{out}/{name}" if "://" in out else str(Path(out) / name)


def _summary(results: "Results", out: str) -> str:
    """A line with the numbers of inputs, frames and people, and the lost frames with reasons."""
    totals, status, seconds = results.totals, results.totals["status"], results.document["seconds"]
    done = status.get("done", 0) + status.get("partial", 0)
    parts = [f"{done} done"]
    parts += [f"{status[name]} {name}" for name in ("skipped", "failed") if status.get(name)]
    reasons = ", ".join(f"{count} {reason}" for reason, count in results.lost.items())
    lost = f", {totals['lost_frames']} frames lost ({reasons})" if totals["lost_frames"] else ""
    rate = totals["frames"] / max(seconds, 1e-9)
    speed = f", {rate:.1f} frames/s" if not status.get("skipped") else ""
    return (
        f"{', '.join(parts)}: {totals['frames']} frames, {totals['people']} people{lost} "
        f"in {seconds:.1f} s{speed} → {printed(_inside(out, 'index.html'))}"
    )
