"""COCO keypoints files, with track ids and videos: posecli's own, and as CVAT imports and exports them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from posecli.annotations.coco_keypoints import Annotations, read_annotations
from posecli.annotations.document import Repairs, entries_of, number
from posecli.annotations.people import box_of, read_box
from posecli.atomic import AtomicFile
from posecli.convert.dataset import AnnotationSet, Box, Person, Picture, Report, Video
from posecli.convert.fields import OWN, to_json, to_text, track_of, without_own
from posecli.convert.options import ReadOptions, WriteOptions
from posecli.convert.pictures import is_frame, place_of
from posecli.errors import UsageError
from posecli.geometry import AREA_OF_BOX
from posecli.keypoints import KEYPOINT_SETS, find_flip_pairs

_PERSON_FIELDS = frozenset(
    {"id", "image_id", "category_id", "keypoints", "num_keypoints", "bbox", "track_id", "attributes"}
)
_PICTURE_FIELDS = frozenset({"id", "file_name", "width", "height", "video_id", "frame_index", "time_s"})
_VIDEO_FIELDS = frozenset({"id", "name", "width", "height", "frames", "frame_rate"})
_CATEGORY_FIELDS = frozenset({"id", "name", "keypoints", "skeleton", "sigmas", "flip_pairs"})
# Fields that no attribute of the same name replaces.
_RESERVED = _PERSON_FIELDS - {"track_id", "attributes"}
# Lists of whole bodies, which the reader joins with the keypoints.
_PARTS = frozenset({"foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts"})
# CVAT keeps attributes up to this length.
MOST_TEXT = 4096


def read(path: Path, options: ReadOptions) -> AnnotationSet:
    """Read a COCO keypoints file. Raises DataError, as annotations.coco_keypoints does."""
    found = read_annotations(path, options.category, keep_document=True)
    document = found.document
    raw = {found.ids.find(entry["id"]): entry for _, entry in entries_of(document["images"], "image", path, Repairs())}
    notes = list(found.notes)
    videos, places = _read_videos(document.get("videos"))
    people: dict[int, list[Person]] = {}
    tracks_lost = 0
    for person, entry in zip(found.people, found.entries, strict=True):
        read_person, lost = _person(person, entry, found)
        tracks_lost += lost
        people.setdefault(person["image_id"], []).append(read_person)
    if tracks_lost:
        notes.append(f"{tracks_lost} track ids that are no whole numbers: left out")
    pictures = []
    for image in found.images:
        entry = raw[image.id]
        video, index = _frame(entry, image.file_name, videos, places)
        pictures.append(
            Picture(
                image.file_name,
                image.size,
                tuple(people.get(image.id, ())),
                video,
                index,
                number(entry.get("time_s")) if video is not None else None,
                image.own_id,
                {k: v for k, v in entry.items() if k not in _PICTURE_FIELDS or (k == "time_s" and video is None)},
            )
        )
    return AnnotationSet(
        found.keypoint_set,
        tuple(pictures),
        tuple(videos),
        found.category.name or "person",
        {k: v for k, v in found.category.entry.items() if k not in _CATEGORY_FIELDS},
        {k: v for k, v in document.items() if k not in ("images", "annotations", "categories", "videos")},
        tuple(notes),
    )


def _person(person: Mapping[str, Any], entry: Mapping[str, Any], found: Annotations) -> tuple[Person, int]:
    """A person, and 1 where its track id is no number."""
    attributes = entry.get("attributes") if isinstance(entry.get("attributes"), dict) else {}
    assert attributes is not None
    given = entry.get("track_id", attributes.get("track_id"))
    track = track_of(given)
    dropped = _PERSON_FIELDS | (_PARTS if found.keypoint_set is KEYPOINT_SETS["coco_wholebody"] else frozenset())
    extra = without_own(attributes) | {k: v for k, v in entry.items() if k not in dropped}
    if not person["iscrowd"]:
        extra.pop("iscrowd", None)
    if extra.get("segmentation") == []:
        del extra["segmentation"]  # CVAT needs the field, it says nothing
    if "area" in extra and number(extra["area"]) != person["area"]:
        extra["area"] = person["area"]
    box = read_box(entry.get("bbox"))
    keypoints = tuple(person["keypoints"])
    x, y, width, height = box or (0.0, 0.0, 0.0, 0.0)
    kept: Box | None = (x, y, width, height) if box is not None else None
    return Person(keypoints, kept, track, entry.get("id"), extra), int(given is not None and track is None)


def _read_videos(given: Any) -> tuple[list[Video], dict[Any, int]]:
    """The videos, and their places by id."""
    videos: list[Video] = []
    places: dict[Any, int] = {}
    for entry in given if isinstance(given, list) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int | str):
            continue
        name = entry.get("name", entry.get("file_name"))
        size = entry.get("width"), entry.get("height")
        sized = all(type(side) is int and 0 < side < 2**31 for side in size)
        frames, rate = entry.get("frames"), number(entry.get("frame_rate"))
        places[entry["id"]] = len(videos)
        videos.append(
            Video(
                name if isinstance(name, str) and name else f"video {entry['id']}",
                (size[0], size[1]) if sized else None,  # type: ignore[arg-type]
                frames if type(frames) is int and frames >= 0 else None,
                rate if rate is not None and rate > 0 else None,
                entry["id"],
                {k: v for k, v in entry.items() if k not in _VIDEO_FIELDS},
            )
        )
    return videos, places


def _frame(entry: Mapping[str, Any], name: str, videos: list[Video], places: dict[Any, int]) -> tuple[int | None, int]:
    """The place of a frame's video, and the frame's number; None and 0 for another picture."""
    own, index = entry.get("video_id"), entry.get("frame_index")
    if not isinstance(own, int | str) or type(index) is not int or index < 0:
        return None, 0
    if own not in places:
        places[own] = len(videos)
        videos.append(Video(name.rpartition("#")[0] or f"video {own}", id=own))
    return places[own], index


def files(data: AnnotationSet, out: Path, options: WriteOptions) -> list[Path]:
    """The files that write writes. Raises UsageError."""
    if out.suffix.lower() != ".json":
        raise UsageError(f"--out {out}: COCO is a .json file")
    return [out]


def files_for_cvat(data: AnnotationSet, out: Path, options: WriteOptions) -> list[Path]:
    """The files that write_for_cvat writes. Raises UsageError for several tasks."""
    photos = any(picture.video is None for picture in data.pictures)
    if photos + len(data.videos) > 1:
        raise UsageError(
            f"{len(data.videos)} videos{' and photos' if photos else ''}: a task of CVAT's is one video, or "
            "photos: convert them one by one, or --to cvat with a folder as --out"
        )
    return files(data, out, options)


def write(data: AnnotationSet, out: Path, options: WriteOptions, report: Report) -> None:
    """Write a COCO file as `posecli run` does: ids are kept where all have distinct ones, else counted from 1.

    With options.pictures frames have the names of their pictures. Raises OSError.
    """
    frames = options.pictures is not None
    names = [place_of(data, picture) if frames and is_frame(picture) else picture.name for picture in data.pictures]
    _write(data, out, report, names, lambda person: {"track_id": person.track, **person.extra})


def write_for_cvat(data: AnnotationSet, out: Path, options: WriteOptions, report: Report) -> None:
    """Write a COCO file that CVAT imports as "COCO Keypoints 1.0": frames named as in CVAT, fields as attributes.

    CVAT reads track ids from the attributes, and needs segmentation and iscrowd. Raises OSError.
    """
    names = [picture.name if picture.video is None else f"frame_{picture.index:06d}.PNG" for picture in data.pictures]

    def fields(person: Person) -> dict[str, Any]:
        attributes: dict[str, Any] = {"occluded": False}
        if person.track is not None:
            attributes |= {"track_id": person.track, "keyframe": True}
        for key, value in person.extra.items():
            if key in ("score", "area", "iscrowd", "segmentation"):
                continue
            text = value if isinstance(value, bool | int | float) else to_text(value)
            if key in OWN or (isinstance(text, str) and len(text) > MOST_TEXT):
                report.left_out[key] += 1
            else:
                attributes[key] = text
        own = {key: person.extra[key] for key in ("score", "area", "iscrowd") if key in person.extra}
        return own | {"segmentation": person.extra.get("segmentation", []), "attributes": attributes}

    for video in data.videos:
        report.left_out["name of the video"] += 1
        report.left_out["frames per second"] += video.frame_rate is not None
    report.left_out["times of frames"] += sum(picture.time_s is not None for picture in data.pictures)
    _write(data, out, report, names, fields, for_cvat=True)


def _write(
    data: AnnotationSet,
    out: Path,
    report: Report,
    names: list[str],
    fields: Callable[[Person], Mapping[str, Any]],
    *,
    for_cvat: bool = False,
) -> None:
    # CVAT reads whole numbers only.
    kinds = (int,) if for_cvat else (int, str)
    image_ids, person_ids = _ids(data, kinds), _numbers([person.id for person in data.people], kinds)
    video_ids = _numbers([video.id for video in data.videos], kinds)
    made = 0

    def annotations() -> Iterator[dict[str, Any]]:
        nonlocal made
        ids = iter(person_ids)
        for image_id, picture in zip(image_ids, data.pictures, strict=True):
            for person in picture.people:
                made += person.box is None and person.labelled > 0
                yield _annotation(next(ids), image_id, person, data, fields(person))

    def images() -> Iterator[dict[str, Any]]:
        for image_id, name, picture in zip(image_ids, names, data.pictures, strict=True):
            yield _image(image_id, name, picture, None if for_cvat else video_ids)

    with AtomicFile(out) as file:
        extra = {"info": {"description": "posecli", "schema": 1}, **data.extra}
        file.write(b"{")
        for key, value in extra.items():
            file.write(to_json(key) + b":" + to_json(value) + b",\n")
        file.write(b'"categories":' + to_json([_category(data)]))
        if not for_cvat:
            rows = (_video(own, video) for own, video in zip(video_ids, data.videos, strict=True))
            _list(file, b',\n"videos":', rows)
        _list(file, b',\n"images":', images())
        _list(file, b',\n"annotations":', annotations())
        file.write(b"}\n")
    if made:
        report.notes.append(f"boxes of {made} people without one made from their keypoints")


def _list(file: BinaryIO, start: bytes, rows: Iterable[dict[str, Any]]) -> None:
    file.write(start + b"[")
    for count, row in enumerate(rows):
        file.write((b",\n" if count else b"\n") + to_json(row))
    file.write(b"]")


def _category(data: AnnotationSet) -> dict[str, Any]:
    keypoint_set = data.keypoint_set
    category: dict[str, Any] = {"id": 1, "name": data.label, "supercategory": data.label, **data.category}
    category |= {
        "keypoints": list(keypoint_set.names),
        "skeleton": [[a + 1, b + 1] for a, b in keypoint_set.skeleton],
    }
    if keypoint_set.sigmas is not None:
        category["sigmas"] = list(keypoint_set.sigmas)
    pairs = [(a, b) for a, b in keypoint_set.flip_pairs if a != b]
    if sorted(pairs) != sorted(find_flip_pairs(keypoint_set.names)):
        category["flip_pairs"] = [[keypoint_set.names[a], keypoint_set.names[b]] for a, b in keypoint_set.flip_pairs]
    return category


def _video(own: Any, video: Video) -> dict[str, Any]:
    width, height = video.size or (None, None)
    fields = {"width": width, "height": height, "frames": video.frames, "frame_rate": video.frame_rate}
    return {"id": own, "name": video.name, **{k: v for k, v in fields.items() if v is not None}, **video.extra}


def _image(own: Any, name: str, picture: Picture, video_ids: list[Any] | None) -> dict[str, Any]:
    image: dict[str, Any] = {"id": own} | ({"file_name": name} if name else {})
    if picture.video is not None and video_ids is not None:
        image |= {"video_id": video_ids[picture.video], "frame_index": picture.index}
        image |= {} if picture.time_s is None else {"time_s": picture.time_s}
    if picture.size is not None:
        image |= {"width": picture.size[0], "height": picture.size[1]}
    return image | {k: v for k, v in picture.extra.items() if k not in _PICTURE_FIELDS or k not in image}


def _annotation(
    own: Any, image_id: Any, person: Person, data: AnnotationSet, fields: Mapping[str, Any]
) -> dict[str, Any]:
    box = list(person.box) if person.box is not None else [0, 0, 0, 0]
    if person.box is None and person.labelled:
        box = box_of(person.keypoints, data.keypoint_set.names, f"annotation {own}")
    return {
        "id": own,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": box,
        "area": AREA_OF_BOX * box[2] * box[3],
        "keypoints": list(person.keypoints),
        "num_keypoints": person.labelled,
    } | {k: v for k, v in fields.items() if v is not None and k not in _RESERVED}


def _numbers(own: list[Any], kinds: tuple[type, ...]) -> list[Any]:
    """The own ids where they are distinct and of these kinds, else numbers from 1."""
    plain = all(type(value) in kinds for value in own)
    return own if plain and len(set(own)) == len(own) else list(range(1, len(own) + 1))


def _ids(data: AnnotationSet, kinds: tuple[type, ...]) -> list[Any]:
    """Ids of the pictures: their own, else the numbers that are their names, as COCO's, else numbers from 1."""
    own = [picture.id for picture in data.pictures]
    if any(value is not None for value in own):
        return _numbers(own, kinds)
    stems = [Path(picture.name).stem for picture in data.pictures]
    if all(stem.isascii() and stem.isdigit() and 6 <= len(stem) <= 15 for stem in stems):
        numbers = [int(stem) for stem in stems]
        if min(numbers, default=0) > 0 and len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(own) + 1))
