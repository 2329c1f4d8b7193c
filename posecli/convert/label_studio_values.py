"""Label Studio's values: coordinates in per cent, and the names of the controls that they belong to."""

from pathlib import Path
from typing import Any

from posecli.convert.dataset import Box, Report

Entry = dict[str, Any]

# Names of the controls of the labelling interface.
IMAGE, BOX, POINTS, VISIBILITY, TRACK = "image", "box", "keypoints", "visibility", "track_id"
VIDEO, VECTOR, LABELS = "video", "pose", "labels"


def interface_path(tasks: Path) -> Path:
    """Where the labelling interface of a file of tasks is."""
    return tasks.with_suffix(".label_config.xml")


def percent(value: float, side: float) -> float:
    """A coordinate in per cent of the picture's side."""
    return min(max(value / side * 100, 0.0), 100.0)


def rectangle(box: Box, size: tuple[int, int], report: Report) -> dict[str, float] | None:
    """A box in per cent, cut at the picture's borders; None where nothing of it is inside."""
    x, y, width, height = box
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, size[0]), min(y + height, size[1])
    if right <= left or bottom <= top:
        return None
    cut = max(left - x, top - y, x + width - right, y + height - bottom) > 1e-6
    report.left_out["parts of boxes outside of their picture"] += cut
    # Not right - left where nothing is cut: that has rounding errors.
    size_of_box = (right - left, bottom - top) if cut else (width, height)
    return {
        "x": percent(left, size[0]),
        "y": percent(top, size[1]),
        "width": percent(size_of_box[0], size[0]),
        "height": percent(size_of_box[1], size[1]),
    }
