"""Functions of `import posecli` around a predictor: reading, drawing and tracking."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from posecli.draw import skeleton
from posecli.errors import UsageError
from posecli.keypoints import COCO17, KeypointSet
from posecli.media.photos import PhotoReader
from posecli.media.video import VideoReader
from posecli.predict import as_frame
from posecli.tracking.tracker import Tracker
from posecli.types import Frame, PixelArray, Poses

LOG = logging.getLogger(__name__)


def read_image(path: str | Path) -> Frame:
    """A photo, decoded and rotated upright as in `posecli run`; of a file of several pages the first.

    Damage is logged as a warning where an image can be decoded. Raises MediaError where the file cannot be read.
    """
    reader = PhotoReader(Path(path))
    frame = next(iter(reader))
    if reader.damage is not None:
        LOG.warning("%s: %s", path, reader.damage)
    return frame


def read_video(path: str | Path) -> Iterator[Frame]:
    """The frames of a video, upright, with their times; a generator, with one frame in memory.

    path: a file, or another input of `posecli video`: "-", a URL, "webcam:0", "frame_%05d.png". Lost frames and changes
    are logged as warnings at the end. Raises MediaError, at the first frame, where it cannot be read.
    """
    with VideoReader(path) as reader:
        yield from reader
        for warning in [*reader.warnings, *(f"{count} frames lost: {why}" for why, count in reader.lost.items())]:
            LOG.warning("%s: %s", path, warning)


def draw_poses(
    image: PixelArray | Frame,
    poses: Poses,
    keypoint_set: KeypointSet = COCO17,
    *,
    keypoint_threshold: float = 0.3,
    show_boxes: bool = False,
    show_ids: bool = False,
) -> PixelArray:
    """A copy of the image, (height, width, 3) uint8 RGB, with the skeletons of its people drawn on it.

    keypoint_set: of the poses, Predictor.keypoints for other models. keypoint_threshold: lowest score of a drawn
    keypoint. show_ids: draw track ids, and each person in the colour of the id. Raises UsageError for an invalid image
    or another number of keypoints.
    """
    frame = as_frame(image)
    _check_keypoints(poses, keypoint_set)
    return skeleton.draw_poses(
        frame.pixels,
        poses,
        keypoint_set,
        keypoint_threshold=keypoint_threshold,
        show_boxes=show_boxes,
        show_ids=show_ids and poses.track_ids is not None,
    )


def track(frames: Iterable[tuple[Frame, Poses]], keypoint_set: KeypointSet = COCO17) -> Iterator[Poses]:
    """The poses of consecutive frames with track ids, the same id for the same person.

    frames: pairs of a frame and its poses, taken one at a time:

        posecli.track((frame, predictor(frame)) for frame in posecli.read_video("clip.mp4"))

    keypoint_set: of the poses, Predictor.keypoints for other models. Raises UsageError for another number of keypoints.
    """
    tracker = Tracker(keypoint_set)
    for frame, poses in frames:
        _check_keypoints(poses, keypoint_set)
        yield tracker(frame, poses)


def _check_keypoints(poses: Poses, keypoint_set: KeypointSet) -> None:
    count = poses.keypoints.shape[1]
    if count != len(keypoint_set):
        raise UsageError(
            f"the poses have {count} keypoints, the keypoint set has {len(keypoint_set)}: give predictor.keypoints"
        )
