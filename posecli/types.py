"""The three data types: Frame, Detections and Poses, frozen dataclasses of arrays."""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
PixelArray = NDArray[np.uint8]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Frame:
    """One upright picture: a photo, or a frame of a video.

    pixels: (height, width, 3) uint8 RGB, upright. Not to be written to.
    index: position among the frames decoded from its source, from 0.
    time: seconds since the start of the source's timeline; None for a photo.
    """

    pixels: PixelArray
    index: int = 0
    time: Fraction | None = None

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])


@dataclass(frozen=True, eq=False)
class Detections:
    """People found in one frame.

    boxes: (N, 4) float32, x1 y1 x2 y2 in source pixels, continuous corners as in COCO.
    scores: (N,) float32 in [0, 1], descending.
    """

    boxes: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls) -> "Detections":
        """No people."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class Poses:
    """People of one frame with their keypoints. N people, K keypoints.

    keypoints: (N, K, 2) float32, x y in source pixels, pixel centres at integers.
    std: (N, K, 2) float32, standard deviation of x and y in source pixels.
    scores: (N, K) float32 in [0, 1].
    boxes: (N, 4) float32, x1 y1 x2 y2 in source pixels.
    box_scores: (N,) float32 in [0, 1], the detector's; of verified proposals, rescored by the pose model.
    person_scores: (N,) float32 in [0, 1], box score × mean of keypoint scores above 0.2.
    track_ids: (N,) int64, or None without tracking.
    raw_keypoints: (N, K, 2) float32, before smoothing; None where `keypoints` are not smoothed.
    filled: (N,) bool, True for people without a detection in this frame, interpolated over a short gap. None where
    there are none.
    """

    keypoints: FloatArray
    std: FloatArray
    scores: FloatArray
    boxes: FloatArray
    box_scores: FloatArray
    person_scores: FloatArray
    track_ids: IntArray | None = None
    raw_keypoints: FloatArray | None = None
    filled: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    def rows(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> "Poses":
        """The people at these positions, or where the mask is true."""
        return replace(self, **{name: array[which] for name, array in vars(self).items() if array is not None})

    def scaled(self, x: float, y: float) -> "Poses":
        """The same people in a picture whose sides are so many times as long."""
        if x == y == 1:
            return self
        factors = np.array([x, y], np.float32)
        raw = None if self.raw_keypoints is None else self.raw_keypoints * factors
        return replace(
            self,
            keypoints=self.keypoints * factors,
            std=self.std * factors,
            boxes=self.boxes * np.tile(factors, 2),
            raw_keypoints=raw,
        )

    @classmethod
    def empty(cls, keypoint_count: int) -> "Poses":
        """No people."""
        return cls(
            keypoints=np.zeros((0, keypoint_count, 2), np.float32),
            std=np.zeros((0, keypoint_count, 2), np.float32),
            scores=np.zeros((0, keypoint_count), np.float32),
            boxes=np.zeros((0, 4), np.float32),
            box_scores=np.zeros(0, np.float32),
            person_scores=np.zeros(0, np.float32),
        )
