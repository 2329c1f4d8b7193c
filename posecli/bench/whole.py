"""A whole run with the core time of each of its stages.

Stages of Python code are recorded within the run (posecli.stages), by the CPU time of their thread. Decoding, encoding
and networks work in threads of their libraries: they are measured alone, right after each run, and scaled to the
number of their items in the run.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import orjson

from posecli.bench.costs import Duration, RunCost, StageCost, median_run, scaled, timed
from posecli.bench.machine import cores
from posecli.bench.media import MediaTime, first_frames, measure_media
from posecli.detect import Detector, embedded
from posecli.detect.windows import split_windows
from posecli.errors import MediaError
from posecli.media.inputs import Input
from posecli.media.span import Span
from posecli.pipeline.estimate import AT_ONCE
from posecli.pipeline.run import run
from posecli.pipeline.run_options import RunOptions
from posecli.predict import Predictor
from posecli.results.manifest import Finished
from posecli.runtime import compile_network, is_gpu
from posecli.stages import Stage, StageTime, recorded, stage
from posecli.types import Frame

STAGES: tuple[str, ...] = get_args(Stage)
# Frames of a video in the run before the measured ones, in which networks are compiled.
_WARM_UP = 16
# Those of the encoders (media.encoders), and the thread that converts frames for them.
ENCODING_THREADS = 3
# Sizes of the detector's input that are measured, the most frequent ones.
_MOST_SIZES = 8
_LEAST_NETWORK_ITEMS = 32


@dataclass(frozen=True)
class RunReport:
    """The median run. frames, people: of each run. inputs: number of those that did not fail. first: name of the first.

    walls: seconds of all runs. runtime, precision: stage of a network → its own. failed: errors of inputs that failed.
    """

    cost: RunCost
    frames: int
    people: int
    inputs: int
    first: str
    walls: tuple[float, ...]
    runtime: dict[str, str]
    precision: dict[str, str]
    failed: tuple[str, ...]


class _Silent:
    """A run's progress that is not shown."""

    def begin(self, name: str, frames: int) -> None:
        """An input begins."""

    def advance(self, name: str, frames: int) -> None:
        """Frames were written."""

    def finish(self, item: Finished) -> None:
        """An input ended."""


@dataclass(frozen=True)
class Alone:
    """Time of one item of each network, alone."""

    detector: Duration
    network: Duration


def measure_run(
    inputs: Sequence[Input], predictor: Predictor, options: RunOptions, rounds: int, say: Callable[[str], None]
) -> RunReport:
    """Run on the inputs several times, after a short run in which networks are compiled; the round of the median time.

    say: receives messages. Raises MediaError where every input fails.
    """
    span = replace(options.span, duration=_shorter(options.span))
    warm, _, _ = _run(inputs, predictor, replace(options, span=span))
    failed = tuple(str(row["error"]) for row in warm["inputs"] if row["status"] == "failed")
    good = {row["name"] for row in warm["inputs"] if row["status"] != "failed"}
    if not good:
        raise MediaError(failed[0])
    usable, costs = [item for item in inputs if item.name in good], []
    for number in range(rounds):
        say(f"run {number + 1} of {rounds}")
        document, whole, stages = _run(usable, predictor, options)
        with tempfile.TemporaryDirectory(prefix="posecli-bench-") as folder:
            media = sum((measure_media(item, options, Path(folder)) for item in usable), MediaTime())
        alone = measure_networks(predictor, media.sizes, lambda: _examples(usable, options))
        found = stage_costs(
            stages,
            media,
            alone,
            on_gpu=is_gpu(predictor.estimator.runner.device),
            photos_only=all(item.kind == "photo" for item in usable),
        )
        costs.append(RunCost(whole.wall, whole.core, cores(), found))
    detector, runner, totals = predictor.detector, predictor.estimator.runner, document["totals"]
    return RunReport(
        median_run(costs),
        totals["frames"],
        totals["people"],
        len(usable),
        usable[0].name,
        tuple(cost.wall for cost in costs),
        {"detector": detector.runtime, "network": runner.runtime},
        {"detector": detector.precision, "network": runner.precision},
        failed,
    )


def _shorter(span: Span) -> int:
    """Length of the warm-up in frames."""
    return min(_WARM_UP, span.duration) if isinstance(span.duration, int) else _WARM_UP


def _run(
    inputs: Sequence[Input], predictor: Predictor, options: RunOptions
) -> tuple[dict[str, Any], Duration, dict[str, StageTime]]:
    """One run into a temporary folder: the document of run.json, the time of the run, and of its stages."""
    with tempfile.TemporaryDirectory(prefix="posecli-bench-") as folder, recorded() as recording:

        def measured() -> None:
            with stage("other", 0):
                run(inputs, Path(folder), predictor, options, _Silent())

        whole = timed(measured)
        document = orjson.loads((Path(folder) / "run.json").read_bytes())
    return document, whole, recording.stages


def _examples(inputs: Sequence[Input], options: RunOptions) -> tuple[list[Frame], list[str]]:
    """Some frames of the first input, with its name for each."""
    frames = first_frames(inputs[0], options, 4)
    return frames, [str(inputs[0].path)] * len(frames)


def measure_networks(
    predictor: Predictor, sizes: Counter[tuple[int, int]], examples: Callable[[], tuple[list[Frame], list[str]]]
) -> Alone:
    """Time of one item of the detector's and the pose network, many items at once.

    sizes: (height, width) of frames → their number. examples: frames with names, for a detector that has no network of
    known input sizes.
    """
    runner, size = predictor.estimator.runner, predictor.estimator.config.input_size
    items = _items(runner.device)
    network = _per_item(lambda pixels: runner(pixels), size, items)
    detector = predictor.detector
    if detector.name == "person":
        return Alone(_embedded(detector, sizes), network)
    if detector.runtime == "none":
        return Alone(Duration(), network)
    frames, names = examples()
    detector(frames[:1], names[:1])
    return Alone(timed(lambda: detector(frames, names)) * (1 / len(frames)), network)


def _embedded(detector: Detector, sizes: Counter[tuple[int, int]]) -> Duration:
    """Time of one image of the embedded detector, the mean over its input sizes for frames of (height, width)."""
    options = detector.options
    spec, config = embedded.module_spec(options.weights)
    compiled = compile_network(
        spec, device=options.device, runtime=options.runtime, precision=options.precision
    )  # from the cache
    shapes: Counter[tuple[int, int]] = Counter()
    for (height, width), count in sizes.items():
        for window in split_windows(width, height):
            length = window.end - window.begin
            view = (height, length) if window.across else (length, width)
            shapes[embedded.canvas_shape(view, config.input_size)] += count
    common = shapes.most_common(_MOST_SIZES)
    whole = sum((_per_item(compiled, shape, _items(compiled.device)) * count for shape, count in common), Duration())
    return scaled(whole, sum(count for _, count in common), 1)


def _items(device: str) -> int:
    """Number of items that a network is measured on."""
    return 128 if is_gpu(device) else max(_LEAST_NETWORK_ITEMS, 4 * cores())


def _per_item(network: Callable[[Any], object], size: tuple[int, int], items: int) -> Duration:
    """Time of one item of random pixels (height, width), many at once."""
    pixels = np.random.default_rng(0).integers(0, 256, (items, *size, 3), np.uint8)
    network(pixels)  # compiles, and allocates
    return timed(lambda: network(pixels)) * (1 / items)


def stage_costs(
    recorded_stages: Mapping[str, StageTime], media: MediaTime, alone: Alone, *, on_gpu: bool, photos_only: bool
) -> tuple[StageCost, ...]:
    """The cost of each stage, in the order of STAGES; those that did not occur have no items and no time.

    On the CPU networks and the decoding of videos can use all cores, encoding of videos ENCODING_THREADS, the stages
    around the networks the threads of the pipeline that estimate poses; the other stages, and photos' files, are
    serial. A network on a GPU takes its wall time there.
    """
    shared = {"detector": cores(), "network": cores(), "other": cores()}
    shared |= dict.fromkeys(("letterbox", "crops", "decoding", "selection"), min(cores(), AT_ONCE))
    if not photos_only:
        shared |= {"decode": cores(), "encoding": min(cores(), ENCODING_THREADS)}
    measured = {"decode": media.decode, "encoding": media.encoding}
    costs = []
    for name in STAGES:
        found, gpu = recorded_stages.get(name, StageTime()), 0.0
        items, core = found.items, found.core
        if name in ("detector", "network"):
            time = (alone.detector if name == "detector" else alone.network) * items
            core, gpu = time.core, time.wall if on_gpu else 0.0
        elif name in measured:
            # The stage of decoding counts the end of an input, too.
            items, core = media.sizes.total(), measured[name].core
        costs.append(StageCost(name, items, found.wall, core, shared.get(name, 1), gpu))
    return tuple(costs)
