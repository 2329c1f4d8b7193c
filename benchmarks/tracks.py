"""Tracking accuracy: IDF1 and HOTA on synthetic scenes, and on clips with true boxes and ids.

python benchmarks/tracks.py --tracks FOLDER

FOLDER has a folder for each clip: NAME/NAME.mp4 and NAME/gt.txt (MOTChallenge text). trackeval (pip install trackeval)
computes the figures. With true boxes as detections only the ids are evaluated.
"""

import itertools
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
from scipy.optimize import linear_sum_assignment
from trackeval.metrics import HOTA, Identity

sys.path.insert(0, str(Path(__file__).parents[1]))

from posecli.geometry import iou
from posecli.keypoints import COCO17
from posecli.media.video import VideoReader
from posecli.predict import load_predictor
from posecli.tracking.propagate import BoxPropagator
from posecli.tracking.smoothing import KalmanSmoother
from posecli.tracking.tracker import Tracker
from posecli.types import Detections
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


def clip(folder: Path, boxes: str, *, propagated: bool = False) -> dict[str, float]:
    """A clip with true boxes ("true") or those of a detector as detections; propagated: as with --detect-every auto."""
    truth = read_truth(folder / "gt.txt")
    predictor = load_predictor(detector="person" if boxes == "true" else boxes, device="cpu", precision="fp32")
    tracker = Tracker(predictor.keypoints)
    smoother, propagator = KalmanSmoother(), BoxPropagator(None if propagated else 1, predictor.keypoints)
    expected, tracked, seconds = [], [], np.zeros(3)
    with VideoReader(folder / f"{folder.name}.mp4") as reader:
        for frame in reader:
            ids, true = truth.get(frame.index + 1, ([], np.zeros((0, 4))))
            begin = time.process_time()
            if boxes == "true":
                given = Detections(true.astype(np.float32), np.ones(len(true), np.float32))
                poses = predictor.estimate([frame], [given])[0]
            elif propagator.needs_detection(frame):
                poses = propagator.update(frame, predictor.predict([frame], [""])[0], True)
            else:
                poses = propagator.update(frame, predictor.estimate([frame], [propagator.boxes(frame)])[0], False)
            # CPU time of all threads, the decoder's included.
            seconds[2] += time.process_time() - begin
            start = time.thread_time()
            poses = tracker(frame, poses)
            ids_given = time.thread_time()
            smoother(float(frame.time or 0), poses)
            seconds[:2] += ids_given - start, time.thread_time() - ids_given
            assert poses.track_ids is not None
            expected.append((ids, true))
            tracked.append((poses.track_ids.tolist(), poses.boxes))
    spent = 1000 * seconds / max(1, len(tracked))
    return figures(expected, tracked) | dict(zip(("ids", "smoothing", "rest"), spent.tolist(), strict=True))


@click.command()
@click.option("--tracks", type=click.Path(path_type=Path, exists=True), help="Folder of clips with truth.")
@click.option("--detector", default="person", help="Beside the true boxes.")
def main(tracks: Path | None, detector: str) -> None:
    """Print a Markdown table."""
    click.echo("| clip | boxes | IDF1 | HOTA | ids (true) | processor, ms a frame: ids, Kalman, all before |")
    click.echo("|---" * 6 + "|")
    for name, scene in SCENES.items():
        _print(name, "painted, 2 % noise, 3 % missed", painted(scene))
    for stride in (1, 5):
        # Seeds from 1000 on: constants were chosen with other ones.
        boxes = f"painted, 3 % noise, 8 % missed, {25 // stride} frames a second"
        _print("12 busy streets", boxes, streets(stride, range(1000, 1012)))
    for folder in sorted(tracks.iterdir()) if tracks else []:
        for boxes in ("true", detector):
            _print(folder.name, boxes, clip(folder, boxes))
        _print(folder.name, f"{detector}, --detect-every auto", clip(folder, detector, propagated=True))
        _print(folder.name, f"{detector}, best possible ids", best(folder, detector))


def _print(name: str, boxes: str, row: dict[str, float]) -> None:
    spent = f"{row['ids']:.2f}, {row['smoothing']:.2f}, {row['rest']:.0f}" if "rest" in row else ""
    ids = f"{row['ids given']:.0f} ({row['ids true']:.0f})"
    click.echo(f"| {name} | {boxes} | {row['IDF1']:.3f} | {row['HOTA']:.3f} | {ids} | {spent} |")


if __name__ == "__main__":
    main()
