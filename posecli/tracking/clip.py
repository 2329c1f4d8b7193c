"""Tracking and streaming smoothing of one clip."""

from posecli.keypoints import KeypointSet
from posecli.tracking.smoothing import SMOOTHERS
from posecli.tracking.tracker import Tracker
from posecli.types import Frame, Poses


class ClipTracker:
    """Track ids and smoothed keypoints for the frames of one clip, called in the order of time.

    smooth: a name in SMOOTHERS. Where the image size changes, keypoints are smoothed in pixels of the first frame, see
    `to_first` and `from_first`.
    """

    def __init__(self, keypoint_set: KeypointSet, smooth: str = "none") -> None:
        self._track = Tracker(keypoint_set)
        self._smooth = SMOOTHERS[smooth](keypoint_set)
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: Frame, poses: Poses) -> Poses:
        """The poses with track ids, smoothed, in pixels of the frame; rows in the same order."""
        self._size = self._size or (frame.width, frame.height)
        tracked = self.to_first(frame, self._track(frame, poses))
        return self.from_first(frame, self._smooth(float(frame.time or 0), tracked))

    def to_first(self, frame: Frame, poses: Poses) -> Poses:
        """Poses in pixels of a frame, converted to pixels of the first frame."""
        width, height = self._size or (frame.width, frame.height)
        return poses.scaled(width / frame.width, height / frame.height)

    def from_first(self, frame: Frame, poses: Poses) -> Poses:
        """Poses in pixels of the first frame, converted to pixels of a frame."""
        width, height = self._size or (frame.width, frame.height)
        return poses.scaled(frame.width / width, frame.height / height)
