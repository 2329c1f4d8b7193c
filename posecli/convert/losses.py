"""What formats without COCO's fields do not hold, counted for the report."""

from collections.abc import Iterable

from posecli.convert.dataset import AnnotationSet, Picture, Report, make_set
from posecli.errors import DataError
from posecli.keypoints import find_flip_pairs


def count_set_fields(data: AnnotationSet, report: Report, *, skeleton: bool = True, flip_pairs: bool = False) -> None:
    """Count fields of the file and its category. skeleton, flip_pairs: whether the format holds them."""
    keypoint_set = data.keypoint_set
    try:
        again = make_set(data.label, keypoint_set.names, keypoint_set.skeleton)
    except DataError:
        again = None
    if keypoint_set.sigmas is not None and (again is None or again.sigmas != keypoint_set.sigmas):
        report.left_out["sigmas"] += len(keypoint_set)
    pairs = sorted((a, b) for a, b in keypoint_set.flip_pairs if a != b)
    if not flip_pairs and pairs != sorted(find_flip_pairs(keypoint_set.names)):
        report.left_out["flip_pairs"] += len(pairs)
    if not skeleton and keypoint_set.skeleton and (again is None or again.skeleton != keypoint_set.skeleton):
        report.left_out["skeleton"] += len(keypoint_set.skeleton)
    for key, value in data.category.items():
        report.left_out[f"{key} of the category"] += key != "supercategory" or value != data.label
    for key in data.extra:
        report.left_out[f"{key} of the file"] += key != "info"


def count_picture_fields(
    data: AnnotationSet, pictures: Iterable[Picture], report: Report, *, times: bool = False, held: Iterable[str] = ()
) -> None:
    """Count fields of pictures and videos. times: whether the format holds times of frames; held: further fields."""
    kept = frozenset(held)
    videos = set()
    for picture in pictures:
        report.left_out["times of frames"] += picture.time_s is not None and not times
        for key in picture.extra:
            report.left_out[f"{key} of images"] += key not in kept
        videos.add(picture.video)
    for place in videos - {None}:
        assert place is not None
        video = data.videos[place]
        report.left_out["frames per second"] += video.frame_rate is not None
        for key in video.extra:
            report.left_out[f"{key} of videos"] += 1
