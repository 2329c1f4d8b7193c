"""Options of a conversion, named as on the command line."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReadOptions:
    """category: name or id of the people's, where there are several. keypoints: name of a keypoint set, or a COCO file
    with one, for formats that do not say it. images: folder of the pictures, for formats without their sizes.
    """

    category: str | None = None
    keypoints: str | None = None
    images: Path | None = None


@dataclass(frozen=True)
class WriteOptions:
    """images: folder of photos and videos. pictures: folder into which frames of videos are written as pictures.

    boxes: whether CVAT gets boxes beside the skeletons. image_root: address of the pictures in Label Studio; label_as:
    "predictions", "annotations" or "auto"; video_tasks: a task is a video. val_share: share of YOLO's val split.
    """

    images: Path | None = None
    pictures: Path | None = None
    boxes: bool = True
    image_root: str = "/data/local-files/?d="
    label_as: str = "auto"
    video_tasks: bool = False
    val_share: float = 0.0
