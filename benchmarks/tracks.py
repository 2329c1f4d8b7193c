"""How well ids are kept: IDF1 and HOTA on painted people, and on clips with true boxes and ids.

python benchmarks/tracks.py --tracks FOLDER

FOLDER holds a folder a clip: NAME/NAME.mp4 and NAME/gt.txt (MOTChallenge text). trackeval (pip install trackeval)
computes the figures.
"""

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
from trackeval.metrics import HOTA, Identity

sys.path.insert(0, str(Path(__file__).parents[1]))

from posecli.detect import load_detector
from posecli.geometry import iou
from posecli.keypoints import COCO17
from posecli.media.video import VideoReader
from posecli.pose.estimator import load_estimator
from posecli.track.tracker import Tracker
from posecli.types import Detections
from tests.painted import SCENES

Sight = tuple[list[int], np.ndarray]


def figures(truth: Iterable[Sight], tracked: Iterable[Sight]) -> dict[str, float]:
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
        "ids": len(own_ids),
        "true ids": len(true_ids),
    }


def painted(name: str, noise: float = 0.02, misses: float = 0.03) -> dict[str, float]:
    """One painted scene; somebody hidden is no truth, since nobody could see them."""
    tracker = Tracker(COCO17)
    truth, tracked = [], []
    for frame, poses, ids, _ in SCENES[name].frames(noise, misses):
        found = tracker(frame, poses)
        assert found.track_ids is not None
        truth.append((ids, poses.boxes))
        tracked.append((found.track_ids.tolist(), found.boxes))
    return figures(truth, tracked)


def read_truth(path: Path) -> dict[int, Sight]:
    """Frame (from 1) → ids and boxes."""
    rows = np.loadtxt(path, delimiter=",", ndmin=2)
    result = {}
    for frame in np.unique(rows[:, 0]):
        of_frame = rows[rows[:, 0] == frame]
        boxes = np.concatenate([of_frame[:, 2:4], of_frame[:, 2:4] + of_frame[:, 4:6]], axis=1)
        result[int(frame)] = (of_frame[:, 1].astype(int).tolist(), boxes)
    return result


def clip(folder: Path, boxes: str) -> dict[str, float]:
    """A clip with true boxes ("true") or those of a detector as detections."""
    truth = read_truth(folder / "gt.txt")
    estimator = load_estimator("pose", device="cpu")
    detector = None if boxes == "true" else load_detector(boxes, device="cpu")
    tracker = Tracker(estimator.config.keypoints)
    expected, tracked, seconds = [], [], 0.0
    with VideoReader(folder / f"{folder.name}.mp4") as reader:
        for frame in reader:
            ids, true = truth.get(frame.index + 1, ([], np.zeros((0, 4))))
            if detector is None:
                found = Detections(true.astype(np.float32), np.ones(len(true), np.float32))
            else:
                found = detector([frame], [""])[0]
            poses = estimator([frame], [found])[0]
            start = time.perf_counter()
            poses = tracker(frame, poses)
            seconds += time.perf_counter() - start
            assert poses.track_ids is not None
            expected.append((ids, true))
            tracked.append((poses.track_ids.tolist(), poses.boxes))
    return figures(expected, tracked) | {"ms a frame": 1000 * seconds / max(1, len(tracked))}


@click.command()
@click.option("--tracks", type=click.Path(path_type=Path, exists=True), help="Folder of clips with truth.")
@click.option("--detector", default="person", help="Beside the true boxes.")
def main(tracks: Path | None, detector: str) -> None:
    """Print a Markdown table."""
    click.echo("| clip | boxes | IDF1 | HOTA | ids (true) |\n|---|---|---|---|---|")
    rows = [(name, "painted, 2 % noise, 3 % missed", painted(name)) for name in SCENES]
    for row in rows:
        _print(*row)
    for folder in sorted(tracks.iterdir()) if tracks else []:
        for boxes in ("true", detector):
            _print(folder.name, boxes, clip(folder, boxes))


def _print(name: str, boxes: str, row: dict[str, float]) -> None:
    extra = f" | {row['ms a frame']:.2f} ms a frame" if "ms a frame" in row else ""
    click.echo(
        f"| {name} | {boxes} | {row['IDF1']:.3f} | {row['HOTA']:.3f} | {row['ids']} ({row['true ids']}){extra} |"
    )


if __name__ == "__main__":
    main()
