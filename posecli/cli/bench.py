"""`posecli bench`: the time of a run by its stages, of networks, and of start-up."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posecli.cli.environment import environment
from posecli.cli.groups import GroupedCommand, option, option_group
from posecli.cli.options import (
    detector_option,
    device_option,
    offline_option,
    precision_option,
    runtime_option,
    weights_option,
)
from posecli.errors import ExitCode, MediaError, UsageError
from posecli.remote import is_remote, without_password

if TYPE_CHECKING:
    from posecli.bench.report import Report
    from posecli.bench.whole import RunReport
    from posecli.media.inputs import Input
    from posecli.pipeline.run_options import RunOptions
    from posecli.types import PixelArray

EXAMPLES = [
    ("posecli bench clip.mp4", "a video: stages, bound, networks, start-up"),
    ("posecli bench photos/ --rounds 5 --json > bench.json", "a folder, as JSON"),
    ("posecli bench", "networks, matrix products and start-up only"),
    ("posecli bench clip.mp4 --precision fp32", "the run in float32"),
]


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("input", required=False)
@option_group(
    "Measurement",
    option("--frames", type=click.IntRange(1), default=300, help="Most frames of a video that are used."),
    option("--rounds", type=click.IntRange(1), default=3, help="Rounds of each measurement; the median is reported."),
)
@option_group(
    "Models", weights_option, detector_option, offline_option, device_option, runtime_option, precision_option
)
@option_group("Output", option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout."))
def bench_command(input: str | None, frames: int, rounds: int, as_json: bool, **models: str) -> int:
    """Measure where the time of a run goes, and how near it is to what the machine can do.

    INPUT is a photo, a video or a folder, processed as by posecli video with its default options. For each stage: core
    time (CPU time of all threads; decoding, encoding and networks are measured alone and scaled to the run), and the
    wall time within the run. The bound is the least possible wall time: all core time on all cores, or the slowest
    stage. Then the networks in each runtime and precision side by side, as ratios to the one that auto chooses, and as
    a share of the GEMM peak (large matrix products of torch); and the start-up time of whole processes.

    Without INPUT only networks, matrix products and start-up are measured. Use an idle machine: other programs change
    the times, and to a lesser extent the ratios.
    """
    from posecli.bench.report import document, print_report

    env = environment()
    found = [] if input is None else _find(input)
    report = _measure(found, frames, rounds, models, env.say)
    if as_json:
        env.print_json(document(report))
    else:
        print_report(report, env.stdout)
    return ExitCode.SOME_FAILED if report.run is not None and report.run.failed else ExitCode.OK


def _find(argument: str) -> "list[Input]":
    """Photos and videos of the argument.

    Raises UsageError for a source that can be read only once, MediaError where nothing can be read.
    """
    from posecli.media.inputs import find_inputs, printable

    if not argument:
        raise UsageError("the input is an empty text: leave it out, or name a file")
    if is_remote(argument):
        raise UsageError(f"{without_password(argument)}: bench measures with files of this machine")
    found = find_inputs([argument])
    if any(item.live for item in found):
        raise UsageError(f"{found[0].shown}: read several times, which a live source does not allow")
    if all(item.error is not None for item in found):
        raise MediaError(f"{printable(found[0].shown)}: {found[0].error}")
    return found


def _measure(
    inputs: "list[Input]", frames: int, rounds: int, models: Mapping[str, str], say: Callable[[str], None]
) -> "Report":
    from posecli.bench.machine import busy_cores, measure_machine
    from posecli.bench.networks import Network, compare, detector_network, pose_network
    from posecli.bench.report import Report
    from posecli.runtime import resolve_device

    device, busy = resolve_device(models["device"]), busy_cores()
    run, picture = _run(inputs, frames, rounds, models, say)
    found = [pose_network(models["weights"]), detector_network(models["detector"], picture.shape[:2])]
    say("matrix products")
    machine = measure_machine(device, rounds)
    comparisons = []
    for network in found:
        if isinstance(network, Network):
            say(f"{network.stage} in each runtime and precision")
            comparisons.append(compare(network, device, rounds, machine.peaks))
    say("start-up")
    startup = _startup(picture, models, rounds)
    if busy is not None:
        # A program that started in between counts, too.
        machine = replace(machine, busy_cores=max(busy, busy_cores() or 0.0))
    notes = tuple(line for line in found if isinstance(line, str))
    return Report(machine, run, tuple(comparisons), startup, notes)


def _run(
    inputs: "list[Input]", frames: int, rounds: int, models: Mapping[str, str], say: Callable[[str], None]
) -> "tuple[RunReport | None, PixelArray]":
    """The run of the inputs, None without any, and an image for the other measurements."""
    from posecli.bench.media import first_frames
    from posecli.bench.whole import measure_run
    from posecli.cli.run import load_models

    with _options(frames, models) as (options, parameters):
        predictor = load_models(parameters)  # without inputs too, which checks the names
        if not inputs:
            return None, _picture()
        report = measure_run(inputs, predictor, options, rounds, say)
    for error in report.failed:
        say(f"failed: {error}")
    usable = next(item for item in inputs if item.name == report.first)
    return report, first_frames(usable, options)[0].pixels


@contextmanager
def _options(frames: int, models: Mapping[str, str]) -> "Iterator[tuple[RunOptions, dict[str, Any]]]":
    """The options of `posecli video` with these models, and the values of its command line."""
    from posecli.cli.run import make_run_options
    from posecli.cli.video import video_command

    line = ["-", f"--duration=f{frames}", *(f"--{name}={value}" for name, value in models.items())]
    with video_command.make_context("video", line) as context:
        yield make_run_options(context.params), context.params


def _picture() -> "PixelArray":
    """An image of the usual size, without people."""
    import numpy as np

    from posecli.bench.networks import USUAL_PICTURE

    height, width = USUAL_PICTURE
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / width, 255 * y / height, 127 + 0 * x], axis=-1).astype(np.uint8)


def _startup(picture: "PixelArray", models: Mapping[str, str], rounds: int) -> dict[str, float]:
    from posecli.bench.startup import measure_startup
    from posecli.media.write_images import write_image

    # Boxes of a file are not of this photo.
    detector = "whole" if models["detector"].startswith("boxes:") else models["detector"]
    options = [f"--{name}={value}" for name, value in {**models, "detector": detector}.items()]
    with tempfile.TemporaryDirectory(prefix="posecli-bench-") as folder:
        photo = Path(folder) / "photo.jpg"
        write_image(photo, picture)
        return measure_startup(photo, options, rounds)
