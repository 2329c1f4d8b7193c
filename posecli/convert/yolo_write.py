"""Writer of YOLO-pose data sets, as Ultralytics reads them: data.yaml, labels/SPLIT/*.txt and images/SPLIT/*."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from posecli.annotations.document import quoted_name
from posecli.atomic import AtomicFile
from posecli.convert.dataset import AnnotationSet, Person, Picture, Report
from posecli.convert.losses import count_picture_fields, count_set_fields
from posecli.convert.options import WriteOptions
from posecli.convert.pictures import (
    SUFFIXES,
    find_sources,
    is_frame,
    place_of,
    shown_name,
    sized,
    source_name,
    without_suffix,
    write_pictures,
)
from posecli.errors import DataError, UsageError
from posecli.media.identity import name_key

SPLITS = ("train", "val", "test")
# Decimals of a normalised coordinate: 0.0005 pixels of the largest picture.
_DECIMALS = 8


def files(data: AnnotationSet, out: Path, options: WriteOptions) -> list[Path]:
    """The files that write writes. Raises DataError where two pictures would have one file of labels, UsageError."""
    if out.suffix.lower() in (".yaml", ".yml", ".txt", ".json"):
        raise UsageError(f"--out {out}: a YOLO-pose data set is a folder")
    places = _places(data, options)
    labels = [out / "labels" / f"{without_suffix(place)}.txt" for place in places]
    images = [out / "images" / place for place in places] if options.images is not None else []
    return [out / "data.yaml", *labels, *images]


def _places(data: AnnotationSet, options: WriteOptions) -> list[str]:
    """SPLIT/NAME of each picture."""
    shared = _shared(data, options.val_share)
    places: list[str] = []
    owners: dict[str, str] = {}
    for picture in data.pictures:
        split = picture.extra.get("split")
        if split not in SPLITS:
            split = "val" if _unit(data, picture) in shared else "train"
        place = f"{split}/{place_of(data, picture)}"
        key = name_key(without_suffix(place))
        if key in owners:
            names = f"{quoted_name(owners[key])} and {quoted_name(shown_name(picture))}"
            raise DataError(f"{names} would have one file of labels: rename one of them")
        owners[key] = shown_name(picture)
        places.append(place)
    return places


def _unit(data: AnnotationSet, picture: Picture) -> str:
    """What is not divided between the splits: a video, or a photo."""
    return source_name(data, picture) if is_frame(picture) else shown_name(picture)


def _shared(data: AnnotationSet, share: float) -> set[str]:
    """The photos and videos of the val split, chosen by a hash of their names; of several at least one, never all."""
    units = {_unit(data, picture) for picture in data.pictures if picture.extra.get("split") not in SPLITS}
    if share <= 0 or len(units) < 2:
        return set()
    order = sorted(units, key=lambda unit: hashlib.blake2b(unit.encode("utf-8", "surrogatepass")).digest())
    return set(order[: min(max(round(share * len(units)), 1), len(units) - 1)])


def write(data: AnnotationSet, out: Path, options: WriteOptions, report: Report) -> None:
    """Write a data set; with options.images pictures are copied, and frames of videos decoded.

    Coordinates are divided by the picture's size. Ultralytics refuses coordinates outside of the picture: labelled
    keypoints there get v 0, boxes are cut. Raises DataError where the size of a picture is unknown, two pictures would
    have one file of labels, or pictures are missing; OSError.
    """
    places = _places(data, options)
    sizes = sized(data, data.pictures, "YOLO-pose")
    sources = find_sources(data, options.images, report) if options.images is not None else {}
    for place, picture, size in zip(places, data.pictures, sizes, strict=True):
        rows = [row for person in picture.people if (row := _row(person, size, report)) is not None]
        path = out / "labels" / f"{without_suffix(place)}.txt"
        with AtomicFile(path) as file:
            file.write("".join(f"{row}\n" for row in rows).encode())
    out.mkdir(parents=True, exist_ok=True)
    if sources:
        write_pictures(data, sources, {i: out / "images" / place for i, place in enumerate(places)}, report)
    _count_losses(data, report)
    splits = [split for split in SPLITS if any(place.startswith(f"{split}/") for place in places)]
    with AtomicFile(out / "data.yaml") as file:
        file.write(_description(data, splits).encode("utf-8", "backslashreplace"))
    if "val" not in splits:
        report.notes.append("no val split: data.yaml names train for it; --val-share 0.1 makes one")
    unread = sum(Path(place).suffix.lower() not in SUFFIXES for place in places)
    if unread:
        report.notes.append(f"{unread} pictures of formats that Ultralytics does not read: convert them to JPEG or PNG")


def _count_losses(data: AnnotationSet, report: Report) -> None:
    count_set_fields(data, report, flip_pairs=True)
    count_picture_fields(data, data.pictures, report, held=("split",))
    for person in data.people:
        report.left_out["track ids"] += person.track is not None
        for key in person.extra:
            report.left_out[key] += 1


def _row(person: Person, size: tuple[int, int], report: Report) -> str | None:
    """A line of a label file: class, box and keypoints; None for a person that has no box within the picture."""
    width, height = size
    if person.extra.get("iscrowd"):
        report.left_out["crowds"] += 1
        return None
    points = []
    for x, y, v in person.points:
        inside = v > 0 and 0 <= x <= width and 0 <= y <= height
        report.left_out["keypoints outside of their picture"] += v > 0 and not inside
        points.append((x / width, y / height, v) if inside else (0, 0, 0))
    box = person.box
    if box is None:
        seen = [(x, y) for x, y, v in points if v]
        if not seen:
            report.left_out["people with neither box nor keypoints"] += 1
            return None
        report.left_out["people's lack of a box (made from keypoints)"] += 1
        left, top = min(x for x, _ in seen), min(y for _, y in seen)
        right, bottom = max(x for x, _ in seen), max(y for _, y in seen)
    else:
        corners = box[0] / width, box[1] / height, (box[0] + box[2]) / width, (box[1] + box[3]) / height
        left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in corners)
        cut = max(abs(a - b) for a, b in zip(corners, (left, top, right, bottom), strict=True)) * max(size)
        if right <= left or bottom <= top:
            report.left_out["people outside of their picture"] += 1
            return None
        report.left_out["parts of boxes outside of their picture"] += cut > 1e-6
    values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    cells = [_number(value) for value in values]
    for kx, ky, v in points:
        cells += [_number(kx), _number(ky), str(v)]
    return " ".join(["0", *cells])


def _number(value: float) -> str:
    return f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")


def _description(data: AnnotationSet, splits: Sequence[str]) -> str:
    """data.yaml. Without path, so that Ultralytics takes its folder; JSON's texts and lists are YAML."""
    keypoint_set = data.keypoint_set
    train = "images/train" if "train" in splits or not splits else f"images/{splits[0]}"
    lines = ["# Written by posecli convert.", f"train: {train}"]
    lines.append("val: images/val" if "val" in splits else f"val: {train}")
    lines += ["test: images/test"] if "test" in splits else []
    lines += ["", f"kpt_shape: [{len(keypoint_set)}, 3]"]
    if keypoint_set.mirrors:
        lines.append(f"flip_idx: {json.dumps(keypoint_set.flip_indices)}")
    names = json.dumps(list(keypoint_set.names), ensure_ascii=False)
    lines += ["", "names:", f"  0: {json.dumps(data.label, ensure_ascii=False)}", "kpt_names:", f"  0: {names}"]
    # Not Ultralytics' own, which has no limbs and ignores the key.
    lines += [f"skeleton: {json.dumps(keypoint_set.skeleton)}"] if keypoint_set.skeleton else []
    return "\n".join(lines) + "\n"
