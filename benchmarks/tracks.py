"""Tracking accuracy: IDF1 and HOTA on synthetic scenes, and on clips with true boxes and ids.

python benchmarks/tracks.py --tracks FOLDER [--cropped]

FOLDER has a folder for each clip: NAME/NAME.mp4 and NAME/gt.txt (MOTChallenge text). trackeval (pip install trackeval)
computes the figures. With true boxes as detections only the ids are evaluated. --cropped: instead of these, IDF1 of the
clips without some of their first columns and rows, which changes the detector's input a little: what hangs on chance.
"""

import functools
import itertools
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from scipy.optimize import linear_sum_assignment
from trackeval.metrics import HOTA, Identity

sys.path.insert(0, str(Path(__file__).parents[1]))

from posecli.geometry import iou
from posecli.keypoints import COCO17
from posecli.media.video import VideoReader
from posecli.pipeline.channel import PIPELINE_BYTES
from posecli.predict import load_predictor
from posecli.tracking.gaps import GapFiller
from posecli.tracking.offline import smooth_offline
from posecli.tracking.propagate import BoxPropagator
from posecli.tracking.smoothing import KalmanSmoother, SmoothOptions
from posecli.tracking.tracker import Tracker
from posecli.types import Detections, Frame, Poses
from tests.painted import SCENES, Scene, street

FrameTracks = tuple[list[int], np.ndarray]


def figures(truth: Iterable[FrameTracks], tracked: Iterable[FrameTracks]) -> dict[str, float]:
    """IDF1 and HOTA of ids with boxes (n, 4) xyxy, frame by frame."""
    true_ids: dict[int, int] = {}
    own_ids: dict[int, int] = {}
    gt, own, similarity = [], [], []
    for (ids, boxes), (found_ids, found) in zip(truth, tracked, strict=True):
        gt.append(np.array([true_ids.setdefault(i, len(true_ids)) for i in ids], int))
        own.append(np.array([own_ids.setdefault(int(i), len(own_ids)) for i in found_ids], int))
        similarity.append(iou(boxes, found))
    data = {
        "gt_ids": gt,
        "tracker_ids": own,
        "similarity_scores": similarity,
        "num_gt_ids": len(true_ids),
        "num_tracker_ids": len(own_ids),
        "num_gt_dets": sum(map(len, gt)),
        "num_tracker_dets": sum(map(len, own)),
        "num_timesteps": len(gt),
    }
    identity = Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    hota = HOTA().eval_sequence(data)
    return {
        "IDF1": float(identity["IDF1"]),
        "HOTA": float(np.mean(hota["HOTA"])),
        "ids given": len(own_ids),
        "ids true": len(true_ids),
    }


def painted(
    scene: Scene, noise: float = 0.02, misses: float = 0.03, stride: int = 1, seed: int = 0
) -> dict[str, float]:
    """Figures of one synthetic scene; hidden people are not part of the ground truth."""
    tracker = Tracker(COCO17)
    truth, tracked = [], []
    for frame, poses, ids in list(scene.frames(noise, misses, seed))[::stride]:
        found = tracker(frame, poses)
        assert found.track_ids is not None
        truth.append((ids, poses.boxes))
        tracked.append((found.track_ids.tolist(), found.boxes))
    return figures(truth, tracked)


def streets(stride: int, seeds: range) -> dict[str, float]:
    """Means over synthetic streets with more noise and misses; numbers of ids are summed."""
    rows = [painted(street(seed), 0.03, 0.08, stride, seed) for seed in seeds]
    return {name: float((np.sum if "ids" in name else np.mean)([row[name] for row in rows])) for name in rows[0]}


def read_truth(path: Path) -> dict[int, FrameTracks]:
    """Frame (from 1) → ids and boxes."""
    rows = np.loadtxt(path, delimiter=",", ndmin=2)
    result = {}
    for frame in np.unique(rows[:, 0]):
        of_frame = rows[rows[:, 0] == frame]
        boxes = np.concatenate([of_frame[:, 2:4], of_frame[:, 2:4] + of_frame[:, 4:6]], axis=1)
        result[int(frame)] = (of_frame[:, 1].astype(int).tolist(), boxes)
    return result


def best(folder: Path, detector: str) -> dict[str, float]:
    """The upper bound with a detector's boxes: boxes that match a true one (IoU 0.5) get its id."""
    truth, predictor = read_truth(folder / "gt.txt"), load_predictor(detector=detector, device="cpu", precision="fp32")
    expected, given, strangers = [], [], itertools.count(1_000_000)
    with VideoReader(folder / f"{folder.name}.mp4") as reader:
        for frame in reader:
            ids, true = truth.get(frame.index + 1, ([], np.zeros((0, 4))))
            found = predictor.predict([frame], [""])[0].boxes
            overlap = iou(true, found)
            pairs = zip(*linear_sum_assignment(overlap, maximize=True), strict=True)
            met = {j: ids[i] for i, j in pairs if overlap[i, j] >= 0.5}
            expected.append((ids, true))
            given.append(([met[j] if j in met else next(strangers) for j in range(len(found))], found))
    return figures(expected, given)


@dataclass(frozen=True)
class Way:
    """How a clip is tracked: options of `posecli video`, and what they mean here."""

    options: str
    propagated: bool = True
    max_gap: float = SmoothOptions.max_gap
    offline: bool = False


WAYS = (
    Way("default options"),
    Way("--fill-gaps 0", max_gap=0.0),
    Way("--detect-every 1", propagated=False),
    Way("--detect-every 1 --fill-gaps 0", propagated=False, max_gap=0.0),
    Way("--smooth offline", offline=True),
)
# Columns and rows that --cropped leaves out, at the left and at the top.
CROPPED = ((0, 0), (1, 0), (0, 1), (3, 2), (5, 4), (2, 7), (7, 3), (4, 9))


@dataclass(frozen=True, eq=False)
class Seen:
    """A frame with the people found in it, without ids, and the true ids and boxes."""

    frame: Frame
    poses: Poses
    truth: FrameTracks


@functools.lru_cache(maxsize=2)
def found(folder: Path, boxes: str, propagated: bool, cropped: tuple[int, int]) -> tuple[list[Seen], float]:
    """The frames of a clip, see clip, and the processor time of all before tracking, ms a frame of all threads."""
    left, top = cropped
    truth = {
        number: (ids, np.maximum(true - (left, top, left, top), 0))
        for number, (ids, true) in read_truth(folder / "gt.txt").items()
    }
    predictor = load_predictor(detector="person" if boxes == "true" else boxes, device="cpu", precision="fp32")
    propagator = BoxPropagator(None if propagated else 1, predictor.keypoints)
    result, begin = [], time.process_time()
    with VideoReader(folder / f"{folder.name}.mp4") as reader:
        for whole in reader:
            frame = replace(whole, pixels=np.ascontiguousarray(whole.pixels[top:, left:]))
            ids, true = truth.get(frame.index + 1, ([], np.zeros((0, 4))))
            if boxes == "true":
                given = Detections(true.astype(np.float32), np.ones(len(true), np.float32))
                poses = predictor.estimate([frame], [given])[0]
            elif propagator.needs_detection(frame):
                poses = predictor.predict([frame], [""], [propagator.expected(frame)])[0]
                poses = propagator.update(frame, poses, True)
            else:
                poses = propagator.update(frame, predictor.estimate([frame], [propagator.boxes(frame)])[0], False)
            result.append(Seen(frame, poses, (ids, true)))
    return result, 1000 * (time.process_time() - begin) / max(1, len(result))


def clip(folder: Path, boxes: str, way: Way, *, cropped: tuple[int, int] = (0, 0)) -> dict[str, float]:
    """A clip with true boxes ("true") or those of a detector as detections. cropped: columns and rows left out."""
    seen, rest = found(folder, boxes, way.propagated, cropped)
    tracker, smoother = Tracker(COCO17), KalmanSmoother()
    filler, filled = GapFiller(way.max_gap, PIPELINE_BYTES // 2), []
    followed: list[tuple[float, Poses]] = []
    seconds = np.zeros(2)
    for each in seen:
        start = time.thread_time()
        poses = tracker(each.frame, each.poses)
        ids_given = time.thread_time()
        smooth = smoother(float(each.frame.time or 0), poses)
        filled += [result for _, result in filler.add(each.frame, smooth)]
        seconds += ids_given - start, time.thread_time() - ids_given
        followed.append((float(each.frame.time or 0), poses))
    filled += [result for _, result in filler.end()]
    if way.offline:
        filled = list(smooth_offline(followed))
    tracked = [([] if p.track_ids is None else p.track_ids.tolist(), p.boxes) for p in filled]
    ids, smoothing = (1000 * seconds / max(1, len(seen))).tolist()
    return figures([each.truth for each in seen], tracked) | {"ids": ids, "smoothing": smoothing, "rest": rest}


@click.command()
@click.option("--tracks", type=click.Path(path_type=Path, exists=True), help="Folder of clips with truth.")
@click.option("--detector", default="person", help="Beside the true boxes.")
@click.option("--cropped", is_flag=True, help="IDF1 of the clips with some columns and rows left out.")
def main(tracks: Path | None, detector: str, cropped: bool) -> None:
    """Print a Markdown table."""
    if cropped:
        _print_cropped(sorted(tracks.iterdir()) if tracks else [], detector)
        return
    click.echo(
        "| clip | boxes | IDF1 | HOTA | ids (true) | processor, ms a frame: ids, smoothing and gaps, all before |"
    )
    click.echo("|---" * 6 + "|")
    for name, scene in SCENES.items():
        _print(name, "painted, 2 % noise, 3 % missed", painted(scene))
    for stride in (1, 5):
        # Seeds from 1000 on: constants were chosen with other ones.
        boxes = f"painted, 3 % noise, 8 % missed, {25 // stride} frames a second"
        _print("12 busy streets", boxes, streets(stride, range(1000, 1012)))
    for folder in sorted(tracks.iterdir()) if tracks else []:
        _print(folder.name, "true, --fill-gaps 0", clip(folder, "true", Way("", propagated=False, max_gap=0.0)))
        for way in WAYS:
            _print(folder.name, f"{detector}, {way.options}", clip(folder, detector, way))
        _print(folder.name, f"{detector}, best possible ids", best(folder, detector))


def _print_cropped(folders: Iterable[Path], detector: str) -> None:
    click.echo("| clip | options | IDF1: mean | least | greatest | of each |")
    click.echo("|---" * 6 + "|")
    for folder in folders:
        rows = [[clip(folder, detector, way, cropped=cut)["IDF1"] for way in WAYS] for cut in CROPPED]
        for way, of_each in zip(WAYS, zip(*rows, strict=True), strict=True):
            figures = " | ".join(f"{value:.3f}" for value in (np.mean(of_each), min(of_each), max(of_each)))
            each = ", ".join(f"{value:.3f}" for value in of_each)
            click.echo(f"| {folder.name} | {way.options} | {figures} | {each} |")


def _print(name: str, boxes: str, row: dict[str, float]) -> None:
    spent = f"{row['ids']:.2f}, {row['smoothing']:.2f}, {row['rest']:.0f}" if "rest" in row else ""
    ids = f"{row['ids given']:.0f} ({row['ids true']:.0f})"
    click.echo(f"| {name} | {boxes} | {row['IDF1']:.3f} | {row['HOTA']:.3f} | {ids} | {spent} |")


if __name__ == "__main__":
    main()
