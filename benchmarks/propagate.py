"""Effect of box propagation on accuracy and time.

python benchmarks/propagate.py VIDEO... [--every 1 --every 4 --every auto]

For each clip, poses with propagated boxes are compared with those of a detection in every frame: the distance of
keypoints with a high score in both, relative to the box's size (root of its area), and people lost or gained. Prints a
Markdown table.
"""

import time
from pathlib import Path

import click
import numpy as np
from scipy.optimize import linear_sum_assignment

from posecli.geometry import iou
from posecli.media.video import VideoReader
from posecli.predict import Predictor, load_predictor
from posecli.tracking.propagate import BoxPropagator
from posecli.types import Poses

SURE = 0.3


def run(path: Path, every: int | None, predictor: Predictor) -> tuple[list[Poses], int, float]:
    """Poses of each frame, the number of frames with a detection, and the CPU seconds, with decoding."""
    propagator = BoxPropagator(every, predictor.keypoints)
    result, detections, seconds = [], 0, 0.0
    with VideoReader(path) as reader:
        for frame in reader:
            start = time.process_time()
            detect = propagator.needs_detection(frame)
            if detect:
                found = predictor.predict([frame], [str(path)], [propagator.expected(frame)])
            else:
                found = predictor.estimate([frame], [propagator.boxes(frame)])
            poses = propagator.update(frame, found[0], detect)
            seconds += time.process_time() - start
            detections += detect
            result.append(poses)
    return result, detections, seconds


def drift(reference: list[Poses], propagated: list[Poses]) -> dict[str, float]:
    """Mean and 95th percentile of the distance; people lost and gained, relative to those of the reference."""
    distances: list[float] = []
    lost = gained = 0
    for true, own in zip(reference, propagated, strict=True):
        overlap = iou(true.boxes, own.boxes)
        pairs = [
            (i, j) for i, j in zip(*linear_sum_assignment(overlap, maximize=True), strict=True) if overlap[i, j] >= 0.3
        ]
        lost, gained = lost + len(true) - len(pairs), gained + len(own) - len(pairs)
        for i, j in pairs:
            reliable = np.minimum(true.scores[i], own.scores[j]) >= SURE
            size = np.sqrt(np.prod(true.boxes[i, 2:] - true.boxes[i, :2]))
            distances += (np.linalg.norm(true.keypoints[i] - own.keypoints[j], axis=-1)[reliable] / size).tolist()
    people = max(1, sum(map(len, reference)))
    return {
        "mean": float(np.mean(distances)),
        "p95": float(np.percentile(distances, 95)),
        "lost": lost / people,
        "gained": gained / people,
    }


@click.command()
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--every", multiple=True, default=("4", "8", "auto"), help="Frames between detections.")
@click.option("--detector", default="person")
def main(videos: tuple[Path, ...], every: tuple[str, ...], detector: str) -> None:
    """Print a Markdown table."""
    predictor = load_predictor(detector=detector, device="cpu", precision="fp32")
    click.echo("| clip | people a frame | N | frames detected | drift, mean (95 %) | lost | gained | speed |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for video in videos:
        reference, frames, slow = run(video, 1, predictor)
        people = sum(map(len, reference)) / frames
        for number in every:
            propagated, detections, quick = run(video, None if number == "auto" else int(number), predictor)
            d = drift(reference, propagated)
            click.echo(
                f"| {video.stem} | {people:.1f} | {number} | {detections / frames:.0%}"
                f" | {d['mean']:.2%} ({d['p95']:.1%}) | {d['lost']:.1%} | {d['gained']:.1%} | {slow / quick:.2f}× |"
            )


if __name__ == "__main__":
    main()
