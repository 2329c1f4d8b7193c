"""Painted people who walk through a picture: truth for ids, boxes and keypoints at every frame."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from posecli.types import Frame, Poses

# Seconds → x of the middle and y of the head's top, or None while hidden.
Path = Callable[[float], tuple[float, float] | None]

# A standing figure in units of its height, keypoints in COCO's order.
FIGURE = np.array(
    [
        (0.00, 0.07), (0.02, 0.05), (-0.02, 0.05), (0.04, 0.06), (-0.04, 0.06),
        (0.11, 0.18), (-0.11, 0.18), (0.14, 0.33), (-0.14, 0.33), (0.15, 0.47), (-0.15, 0.47),
        (0.08, 0.50), (-0.08, 0.50), (0.09, 0.73), (-0.09, 0.73), (0.09, 0.96), (-0.09, 0.96),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Walker:
    """Somebody who is height pixels tall."""

    height: float
    colour: tuple[int, int, int]
    path: Path

    def keypoints(self, time: float) -> np.ndarray | None:
        """(17, 2), arms and legs swinging once a second."""
        at = self.path(time)
        if at is None:
            return None
        points = FIGURE.copy()
        swing = 0.08 * np.sin(2 * np.pi * time + self.height)
        for joint, share in ((7, 0.5), (9, 1.0), (14, 0.5), (16, 1.0)):
            points[joint, 0] += swing * share
        for joint, share in ((8, 0.5), (10, 1.0), (13, 0.5), (15, 1.0)):
            points[joint, 0] -= swing * share
        return np.asarray(points * self.height + at)


def box_of(points: np.ndarray) -> np.ndarray:
    """The figure's box, xyxy, with a margin for head and hands."""
    low, high = points.min(axis=0), points.max(axis=0)
    height = high[1] - low[1]
    return np.array([low[0] - 0.04 * height, low[1] - 0.06 * height, high[0] + 0.04 * height, high[1] + 0.03 * height])


@dataclass(frozen=True)
class Scene:
    """Walkers, from back to front, in a picture of a size (width, height) at a frame rate."""

    walkers: tuple[Walker, ...]
    seconds: float
    size: tuple[int, int] = (640, 360)
    rate: int = 25
    hidden: float = 0.6

    def frames(
        self, noise: float = 0.0, misses: float = 0.0, seed: int = 0
    ) -> Iterator[tuple[Frame, Poses, list[int]]]:
        """For each frame: Frame, Poses with the noise of a detector, and the true id of each row.

        noise: of boxes and keypoints, in shares of the boxes' size. misses: share of people that is not found.
        Who is covered by more than `hidden` of the box by somebody in front is not found either.
        """
        random = np.random.default_rng(seed)
        for index in range(int(self.seconds * self.rate)):
            time = index / self.rate
            seen = [(i, w.keypoints(time)) for i, w in enumerate(self.walkers)]
            present = [(i, p) for i, p in seen if p is not None and -0.2 < p[0, 0] / self.size[0] < 1.2]
            yield self._frame(present, index), *self._found(present, noise, misses, random)

    def _frame(self, present: list[tuple[int, np.ndarray]], index: int) -> Frame:
        pixels = np.full((self.size[1], self.size[0], 3), 90, np.uint8)
        pixels[:, ::32] = 110
        for i, points in present:
            walker = self.walkers[i]
            thick = max(2, int(walker.height * 0.09))
            at = np.rint(points).astype(int).tolist()
            for a, b in ((5, 6), (5, 11), (6, 12), (11, 12), (5, 12), (6, 11)):
                cv2.line(pixels, at[a], at[b], walker.colour, 2 * thick)
            for a, b in ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16)):
                cv2.line(pixels, at[a], at[b], walker.colour, thick)
            cv2.circle(pixels, at[0], thick, (230, 190, 160), -1)
        return Frame(pixels, index, Fraction(index, self.rate))

    def _found(
        self, present: list[tuple[int, np.ndarray]], noise: float, misses: float, random: np.random.Generator
    ) -> tuple[Poses, list[int]]:
        rows, ids = [], []
        everyone = [(i, box_of(p)) for i, p in present]
        for place, (i, points) in enumerate(present):
            box = everyone[place][1]
            clipped = np.clip(box, 0, [*self.size, *self.size])
            area = np.prod(box[2:] - box[:2])
            if np.prod(np.maximum(clipped[2:] - clipped[:2], 0)) < 0.3 * area:
                continue
            covered = 0.0
            for _, front in everyone[place + 1 :]:
                low, high = np.maximum(clipped[:2], front[:2]), np.minimum(clipped[2:], front[2:])
                covered = max(covered, float(np.prod(np.maximum(high - low, 0)) / area))
            if covered > self.hidden or random.random() < misses:
                continue
            size = np.tile(box[2:] - box[:2], 2)
            rows.append((clipped + random.normal(0, noise, 4) * size, points, size))
            ids.append(i + 1)
        count = len(rows)
        boxes = np.array([box for box, _, _ in rows], np.float32).reshape(count, 4)
        truth = np.array([p for _, p, _ in rows], np.float64).reshape(count, 17, 2)
        jitter = random.normal(0, noise, truth.shape) * np.array([s[3] for *_, s in rows]).reshape(count, 1, 1)
        poses = Poses(
            keypoints=(truth + jitter).astype(np.float32),
            std=np.full((count, 17, 2), 1.0, np.float32),
            scores=np.full((count, 17), 0.7, np.float32),
            boxes=boxes,
            box_scores=np.full(count, 0.9, np.float32),
            person_scores=np.full(count, 0.6, np.float32),
        )
        return poses, ids


def line(x0: float, x1: float, y: float, seconds: float, first: float = 0.0) -> Path:
    """A walk from x0 to x1 in so many seconds, beginning at first; hidden before and after."""

    def path(time: float) -> tuple[float, float] | None:
        share = (time - first) / seconds
        return (x0 + share * (x1 - x0), y) if 0 <= share <= 1 else None

    return path


def there_and_back(x0: float, x1: float, y: float, seconds: float, away: float) -> Path:
    """Out of the picture at x1 for `away` seconds, then back the same way."""

    def path(time: float) -> tuple[float, float] | None:
        if time <= seconds:
            return x0 + time / seconds * (x1 - x0), y
        if time <= seconds + away:
            return None
        share = min(1.0, (time - seconds - away) / seconds)
        return x1 + share * (x0 - x1), y

    return path


def idf1(frames: Iterable[tuple[Sequence[int], Sequence[int]]]) -> float:
    """IDF1 of true and given ids, row by row the same person, frame by frame.

    Ristani et al., "Performance measures and a data set for multi-target, multi-camera tracking" (2016): the
    one assignment of given to true ids that explains most rows. With equal rows it is the share explained.
    """
    pairs = [(a, b) for true, given in frames for a, b in zip(true, given, strict=True)]
    true_ids, true_rows = np.unique([a for a, _ in pairs], return_inverse=True)
    given_ids, given_rows = np.unique([b for _, b in pairs], return_inverse=True)
    together = np.zeros((len(true_ids), len(given_ids)))
    np.add.at(together, (true_rows, given_rows), 1)
    return float(together[linear_sum_assignment(together, maximize=True)].sum() / len(pairs))


RED, BLUE, GREEN, GREY = (200, 60, 50), (50, 80, 210), (60, 170, 70), (150, 150, 160)

SCENES: dict[str, Scene] = {
    "apart": Scene((Walker(200, RED, line(60, 260, 80, 8)), Walker(180, BLUE, line(600, 400, 100, 8))), 8),
    "crossing": Scene((Walker(200, RED, line(60, 580, 90, 8)), Walker(210, BLUE, line(590, 70, 95, 8))), 8),
    "crossing alike": Scene((Walker(200, GREY, line(60, 580, 90, 6)), Walker(205, GREY, line(590, 70, 95, 6))), 6),
    "four crossing": Scene(
        (
            Walker(150, GREEN, line(20, 620, 60, 9)),
            Walker(170, RED, line(620, 20, 80, 9)),
            Walker(190, BLUE, line(100, 500, 100, 9)),
            Walker(220, GREY, line(560, 160, 110, 9)),
        ),
        9,
    ),
    "leaving and returning": Scene(
        (Walker(200, RED, there_and_back(300, 660, 90, 3, 0.8)), Walker(190, BLUE, line(100, 250, 100, 8))), 7.5
    ),
    "one leaves, another comes": Scene(
        (Walker(200, RED, line(300, 700, 90, 3)), Walker(195, BLUE, line(700, 300, 92, 4, first=3.5))), 7.5
    ),
}


def street(seed: int, seconds: float = 8) -> Scene:
    """Three to six people of four colours who walk, saunter, stop and turn, some coming later."""
    random = np.random.default_rng(seed)
    walkers = []
    for y in np.sort(random.uniform(20, 130, random.integers(3, 7))):
        height = 120 + 0.7 * y + random.uniform(-8, 8)
        x0, x1 = random.uniform(-100, 740, 2)
        colour = (RED, BLUE, GREEN, GREY)[random.integers(4)]
        first = random.choice([0.0, random.uniform(0, 3)])
        walkers.append(Walker(float(height), colour, saunter(x0, x1, float(y), seconds, float(first), random)))
    return Scene(tuple(walkers), seconds)


def saunter(x0: float, x1: float, y: float, seconds: float, first: float, random: np.random.Generator) -> Path:
    """From x0 to x1, now faster and now slower, with a stop in the middle for some."""
    sway, phase, stop = random.uniform(0, 40), random.uniform(0, 6), random.choice([0.0, 1.5])

    def path(time: float) -> tuple[float, float] | None:
        if time < first:
            return None
        middle = (first + seconds) / 2
        moving = time if time < middle else max(middle, time - stop)
        share = (moving - first) / (seconds - first)
        return x0 + share * (x1 - x0) + sway * np.sin(1.5 * moving + phase), y + 2 * np.sin(4 * moving)

    return path
