"""What three corrections and the smoother do for a keypoint that is wrong in 100 frames.

python benchmarks/corrections.py [--seeds 8]

Painted people (tests/painted.py) and moving ones (tests/moving.py) at 25 frames a second, tracked and smoothed as
`posecli run` does by default; one keypoint (knee, ankle, elbow or wrist) fails in 100 frames. Its first, middle
and last wrong frame are corrected with the truth, and the corrections propagated, through OUT's journal as the page
does it.
Errors are mean distances to the truth over the 100 frames, relative to the person's height.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from posecli.corrections.corrections import Corrections
from posecli.corrections.propagation import propagate
from posecli.geometry import Float64Array
from posecli.keypoints import COCO17
from posecli.tracking.smoothing import SMOOTHERS
from posecli.types import Poses
from tests.moving import Errors, moving, seen
from tests.painted import RED, Walker, box_of, saunter
from tests.run_factory import RATE, make_run

HEIGHT, FRAMES, FIRST, GAP = 200.0, 200, 50, 100
WRONG = slice(FIRST, FIRST + GAP)
CORRECTED = (FIRST, FIRST + GAP // 2, FIRST + GAP - 1)
KEYPOINTS = (7, 9, 13, 15)
FAR = 0.15 * HEIGHT


def painted(random: np.random.Generator) -> tuple[Float64Array, list[Poses]]:
    """The truth (F, K, 2) of somebody who saunters, and poses with an error of 0.5 % of the height."""
    start, end = random.uniform(0, 640, 2)
    walker = Walker(HEIGHT, RED, saunter(start, end, 80.0, FRAMES / RATE, 0.0, random))
    found = [walker.keypoints(frame / RATE) for frame in range(FRAMES)]
    truth = np.array([points for points in found if points is not None])
    noisy = truth + random.normal(0, 0.005 * HEIGHT, truth.shape)
    return truth, [
        Poses(
            keypoints=points[None].astype(np.float32),
            std=np.full((1, 17, 2), 0.005 * HEIGHT, np.float32),
            scores=np.full((1, 17), 0.7, np.float32),
            boxes=box_of(points)[None].astype(np.float32),
            box_scores=np.full(1, 0.9, np.float32),
            person_scores=np.full(1, 0.6, np.float32),
        )
        for points in noisy
    ]


def moved(kind: str, random: np.random.Generator) -> tuple[Float64Array, list[Poses]]:
    """The same of tests/moving.py, whose errors are those of a network, in every frame."""
    times = np.arange(FRAMES) / RATE
    truth = moving(kind, times, HEIGHT, random)
    return truth, seen(truth, times, Errors(outliers=0, swaps=0, misses=0), random)


def frozen(found: Float64Array, index: int, random: np.random.Generator) -> Float64Array:
    """Stays where it was before the gap."""
    return np.repeat(found[FIRST - 1 : FIRST, index], GAP, axis=0)


def beside(found: Float64Array, index: int, random: np.random.Generator) -> Float64Array:
    """Lies beside it, always in the same direction."""
    angle = random.uniform(0, 2 * np.pi)
    return np.asarray(found[WRONG, index] + FAR * np.array([np.cos(angle), np.sin(angle)]))


def wandering(found: Float64Array, index: int, random: np.random.Generator) -> Float64Array:
    """Wanders around the truth, within a second from one side to the other."""
    at, path = random.normal(0, FAR, 2), []
    for _ in range(GAP):
        at = 0.96 * at + random.normal(0, FAR * np.sqrt(1 - 0.96**2), 2)
        path.append(at)
    return np.asarray(found[WRONG, index] + np.array(path))


def guessed(found: Float64Array, index: int, random: np.random.Generator) -> Float64Array:
    """Is somewhere else in each frame."""
    return np.asarray(found[WRONG, index] + random.normal(0, FAR, (GAP, 2)))


def exchanged(found: Float64Array, index: int, random: np.random.Generator) -> Float64Array:
    """Is that of the other side."""
    return found[WRONG, COCO17.flip_indices[index]]


FAILURES = {"frozen": frozen, "beside": beside, "exchanged": exchanged, "wandering": wandering, "guessed": guessed}


@dataclass(frozen=True)
class Result:
    """Errors over the gap: as predicted, with three corrections alone, joined by straight lines, and propagated.

    changed: frames that the propagation changed.
    """

    predicted: float
    alone: float
    lines: float
    propagated: float
    changed: int


def measure(truth: Float64Array, poses: list[Poses], index: int, failure: str, random: np.random.Generator) -> Result:
    """One keypoint of one clip."""
    found = np.array([given.keypoints[0] for given in poses], np.float64)
    smooth, wrong = SMOOTHERS["kalman"](COCO17), FAILURES[failure](found, index, random)
    other = COCO17.flip_indices[index]
    clip = []
    for frame, given in enumerate(poses):
        keypoints = given.keypoints.copy()
        if WRONG.start <= frame < WRONG.stop:
            keypoints[0, index] = wrong[frame - FIRST]
            if failure == "exchanged":
                keypoints[0, other] = found[frame, index]
        ids = np.ones(1, np.int64)
        clip.append(smooth(frame / RATE, replace(given, keypoints=keypoints, track_ids=ids)))
    with tempfile.TemporaryDirectory() as folder:
        out = make_run(Path(folder), {"clip.mp4": clip}, size=(2000, 2000))
        with Corrections.open(out, write=True) as corrections:
            predicted = _errors(corrections, truth, index)
            for frame in CORRECTED:
                edit = {"op": "keypoints", "input": "clip.mp4", "frame": frame, "person": "p0"}
                corrections.apply({**edit, "keypoints": {str(index): [*truth[frame, index].tolist(), 2]}}, "benchmark")
            alone = _errors(corrections, truth, index)
            proposed = propagate(corrections, "clip.mp4", 1)
            values = {
                str(frame): {
                    key: {str(k): list(place) for k, place in points.items()} for key, points in people.items()
                }
                for frame, people in proposed.items()
            }
            corrections.apply({"op": "propagate", "input": "clip.mp4", "track": 1, "values": values}, "benchmark")
            after = _errors(corrections, truth, index)
    frames = np.arange(FIRST, FIRST + GAP)
    lines = np.stack([np.interp(frames, CORRECTED, truth[CORRECTED, index, axis]) for axis in (0, 1)], axis=-1)
    straight = float(np.hypot(*(lines - truth[WRONG, index]).T).mean() / HEIGHT)
    return Result(predicted, alone, straight, after, len(proposed))


def _errors(corrections: Corrections, truth: Float64Array, index: int) -> float:
    found = [state.people[0].keypoints[index, :2] for state in corrections.frames("clip.mp4")]
    return float(np.hypot(*(np.array(found)[WRONG] - truth[WRONG, index]).T).mean() / HEIGHT)


def clips(kind: str, failure: str, seeds: int) -> Iterator[Result]:
    """All keypoints of clips of a kind. Constants were chosen with seeds below 1000."""
    for seed in range(1000, 1000 + seeds):
        for index in KEYPOINTS:
            random = np.random.default_rng([seed, index])
            truth, poses = painted(random) if kind == "painted" else moved(kind, random)
            yield measure(truth, poses, index, failure, random)


def interval(values: Float64Array) -> str:
    """Mean with the 95 % percentile interval of its bootstrap."""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{values.mean():.1%} ({low:.1%} to {high:.1%})"


@click.command()
@click.option("--seeds", default=8, help="Clips of each kind; four keypoints in each.")
def main(seeds: int) -> None:
    """Print a Markdown table."""
    click.echo("| clip | failure | predicted | three corrections | with straight lines | with the smoother | worth |")
    click.echo("|---" * 7 + "|")
    for kind in ("painted", "walk", "fast"):
        for failure in FAILURES:
            found = list(clips(kind, failure, seeds))
            columns = [
                np.array([getattr(result, name) for result in found])
                for name in ("predicted", "alone", "lines", "propagated")
            ]
            # A correction of one frame takes away its own error, 1/100 of the sum.
            worth = GAP * (1 - columns[3].mean() / columns[0].mean())
            row = " | ".join([f"{columns[0].mean():.1%}", f"{columns[1].mean():.1%}", *map(interval, columns[2:])])
            click.echo(f"| {kind} | {failure} | {row} | {worth:.0f} corrections |")


if __name__ == "__main__":
    main()
