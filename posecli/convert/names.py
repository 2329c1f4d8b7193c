"""Keypoint sets that the user names, for formats that do not say theirs."""

from pathlib import Path

from posecli.annotations.coco_keypoints import read_dataset
from posecli.annotations.document import quoted_name
from posecli.errors import DataError, UsageError
from posecli.keypoints import KEYPOINT_SETS, KeypointSet, describe_category, find_keypoints


def given_set(text: str) -> KeypointSet:
    """The set of --keypoints: by its name, or of the category with keypoints of a COCO file.

    Raises UsageError where there is none, DataError for a file that is no COCO file.
    """
    path = Path(text)
    if text in KEYPOINT_SETS or not path.is_file():
        return find_keypoints(text)
    categories = read_dataset(path, ("categories",))["categories"]
    rows = [row for row in categories if isinstance(row, dict) and row.get("keypoints")]
    if len(rows) != 1:
        raise UsageError(f"--keypoints {quoted_name(path)}: {len(rows)} categories with keypoints, not one")
    try:
        return describe_category(rows[0])[0]
    except DataError as error:
        raise DataError(f"{quoted_name(path)}: {error}") from error
