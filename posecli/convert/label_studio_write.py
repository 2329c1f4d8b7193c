"""Writer of Label Studio's JSON: tasks with regions as annotations or predictions, and the labelling interface."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from posecli.annotations.people import box_of
from posecli.atomic import AtomicFile
from posecli.convert.dataset import AnnotationSet, Person, Picture, Report
from posecli.convert.fields import to_json
from posecli.convert.label_studio_tracks import video_tasks
from posecli.convert.label_studio_values import (
    BOX,
    IMAGE,
    LABELS,
    POINTS,
    TRACK,
    VECTOR,
    VIDEO,
    VISIBILITY,
    Entry,
    interface_path,
    percent,
    rectangle,
)
from posecli.convert.losses import count_set_fields
from posecli.convert.options import WriteOptions
from posecli.convert.pictures import place_of, shown_name, sized
from posecli.convert.xml_items import clean, clean_names
from posecli.errors import UsageError

# Size of a drawn keypoint in per cent of the picture's width.
_POINT = 0.4


def files(data: AnnotationSet, out: Path, options: WriteOptions) -> list[Path]:
    """The files that write writes: the tasks, and the labelling interface beside them. Raises UsageError."""
    if out.suffix.lower() != ".json":
        raise UsageError(f"--out {out}: Label Studio's tasks are a .json file")
    photos = sum(picture.video is None for picture in data.pictures)
    if options.video_tasks and 0 < photos < len(data.pictures):
        raise UsageError("--video-tasks: photos and videos are two projects of Label Studio: convert them one by one")
    return [out, interface_path(out)]


def write(data: AnnotationSet, out: Path, options: WriteOptions, report: Report) -> None:
    """Write a task for each picture, or with video_tasks for each video; coordinates in per cent.

    A person is a rectangle with its keypoints as children (parentID); whether a keypoint is hidden is a choice, the
    track id a number of the region; other fields are the rectangle's meta. Label Studio takes no coordinates outside of
    the picture: labelled keypoints there are left out, boxes cut. Raises DataError where a size is unknown, OSError.
    """
    names = tuple(clean_names(data.keypoint_set.names))
    data = replace(data, keypoint_set=replace(data.keypoint_set, names=names), label=clean(data.label))
    pictures = [p for p in data.pictures if p.video is None or not options.video_tasks]
    count_set_fields(data, report)
    sizes = sized(data, pictures, "Label Studio")
    predictions = _are_predictions(data) if options.label_as == "auto" else options.label_as == "predictions"

    def tasks() -> Iterator[Entry]:
        for picture, size in zip(pictures, sizes, strict=True):
            result = list(_regions(data, picture, size, report))
            own = _data(data, picture, size, options)
            yield _task(own, result, predictions, _mean_score(picture.people))
        if options.video_tasks:
            for own, result in video_tasks(data, options, report):
                yield _task(own, result, predictions, None)

    with AtomicFile(out) as file:
        file.write(b"[")
        for count, task in enumerate(tasks()):
            file.write((b",\n" if count else b"\n") + to_json(task))
        file.write(b"]\n")
    with AtomicFile(interface_path(out)) as file:
        videos = options.video_tasks and any(picture.video is not None for picture in data.pictures)
        file.write(_interface(data, bool(pictures) or not videos, videos).encode("utf-8", "backslashreplace"))


def _are_predictions(data: AnnotationSet) -> bool:
    """Whether people have scores and none was corrected."""
    scored = corrected = False
    for person in data.people:
        scored = scored or "score" in person.extra
        corrected = corrected or any(person.extra.get(key) for key in ("corrected", "added", "accepted"))
    return scored and not corrected


def _task(own: Entry, result: Sequence[Entry], predictions: bool, score: float | None) -> Entry:
    if predictions:
        more = {} if score is None else {"score": score}
        return {"data": own, "predictions": [{"model_version": "posecli", **more, "result": result}]}
    return {"data": own, "annotations": [{"result": result}]}


def _mean_score(people: Sequence[Person]) -> float | None:
    """The mean of the scores; None where there are none from 0 to 1, others are refused."""
    scores = [person.extra["score"] for person in people if _score(person.extra.get("score"))]
    mean = sum(scores) / len(scores) if scores else None
    return mean if mean is not None and 0 <= mean <= 1 else None


def _data(data: AnnotationSet, picture: Picture, size: tuple[int, int], options: WriteOptions) -> Entry:
    """A task's data: the picture's address, and what says which one it is."""
    own: Entry = {IMAGE: options.image_root + quote(place_of(data, picture)), "file_name": shown_name(picture)}
    own |= {"width": size[0], "height": size[1]}
    if picture.id is not None:
        own["image_id"] = picture.id
    if picture.video is not None:
        video = data.videos[picture.video]
        own |= {"video": video.name, "frame_index": picture.index, "time_s": picture.time_s}
        fields = {"frames": video.frames, "frame_rate": video.frame_rate, "video_id": video.id, "size": video.size}
        own["video_fields"] = {k: v for k, v in fields.items() if v is not None} | dict(video.extra)
    return own | ({"fields": picture.extra} if picture.extra else {})


def _regions(data: AnnotationSet, picture: Picture, size: tuple[int, int], report: Report) -> Iterator[Entry]:
    for number, person in enumerate(picture.people, 1):
        box = person.box
        if box is None and person.labelled:
            x, y, width, height = box_of(person.keypoints, data.keypoint_set.names, shown_name(picture))
            box = x, y, width, height
        value = None if box is None else rectangle(box, size, report)
        if value is None:
            report.left_out["people without a box in their picture"] += 1
            continue
        own = f"p{number}"
        base: Entry = {"to_name": IMAGE, "original_width": size[0], "original_height": size[1], "image_rotation": 0}
        meta = {key: v for key, v in {"id": person.id, "fields": person.extra}.items() if v not in (None, {})}
        meta |= {} if person.box is not None else {"box": "made from the keypoints"}
        labelled = {**value, "rotation": 0}
        yield {
            **base, "id": own, "type": "rectanglelabels", "from_name": BOX,
            "value": {**labelled, "rectanglelabels": [data.label]}, **_score(person.extra.get("score")),
            **({"meta": {"posecli": meta}} if meta else {}),
        }  # fmt: skip
        if person.track is not None:
            yield {
                **base,
                "id": own,
                "type": "number",
                "from_name": TRACK,
                "value": {**labelled, "number": person.track},
            }
        yield from _points(data, person, own, size, base, report)


def _points(
    data: AnnotationSet, person: Person, parent: str, size: tuple[int, int], base: Entry, report: Report
) -> Iterator[Entry]:
    scores = person.extra.get("keypoint_scores")
    for place, (name, (x, y, v)) in enumerate(zip(data.keypoint_set.names, person.points, strict=True)):
        if not v:
            report.left_out["coordinates of keypoints with v 0"] += x != 0 or y != 0
            continue
        if not (0 <= x <= size[0] and 0 <= y <= size[1]):
            report.left_out["keypoints outside of their picture"] += 1
            continue
        value = {"x": percent(x, size[0]), "y": percent(y, size[1]), "width": _POINT}
        own = f"{parent}k{place + 1}"
        region = {**base, "id": own, "parentID": parent}
        score = _score(scores[place]) if isinstance(scores, list) and len(scores) == len(data.keypoint_set) else {}
        labelled = {**value, "keypointlabels": [name]}
        yield {**region, "type": "keypointlabels", "from_name": POINTS, "value": labelled, **score}
        if v == 1:
            choice = {"type": "choices", "from_name": VISIBILITY, "value": {**value, "choices": ["hidden"]}}
            yield {**region, **choice}


def _score(value: Any) -> Entry:
    return {"score": value} if isinstance(value, int | float) and not isinstance(value, bool) else {}


def _interface(data: AnnotationSet, images: bool, videos: bool) -> str:
    """The labelling interface: the controls that the tasks name."""
    label = f"<Label value={quoteattr(data.label)}/>"
    skeleton = ", ".join(f"{a}-{b}" for a, b in data.keypoint_set.skeleton).replace("--", "- -")
    lines = ["<View>", f"  <!-- skeleton of the keypoints by model_index: {skeleton} -->"]
    if images:
        lines += [f'  <Image name="{IMAGE}" value="${IMAGE}" zoom="true" zoomControl="true"/>']
        lines += [f'  <RectangleLabels name="{BOX}" toName="{IMAGE}">', f"    {label}", "  </RectangleLabels>"]
        lines += [f'  <KeyPointLabels name="{POINTS}" toName="{IMAGE}">']
        for place, name in enumerate(data.keypoint_set.names):
            lines.append(f'    <Label value={quoteattr(name)} model_index="{place}"/>')
        lines += ["  </KeyPointLabels>"]
        when = f'toName="{IMAGE}" perRegion="true" visibleWhen="region-selected" whenTagName'
        lines += [f'  <Choices name="{VISIBILITY}" {when}="{POINTS}" choice="single-radio">']
        lines += ['    <Choice value="visible"/>', '    <Choice value="hidden"/>', "  </Choices>"]
        lines += [f'  <Number name="{TRACK}" {when}="{BOX}"/>']
    elif videos:
        lines += [f'  <Video name="{VIDEO}" value="${VIDEO}"/>']
        lines += [f'  <VideoRectangle name="{BOX}" toName="{VIDEO}"/>']
        lines += [f'  <VideoVector name="{VECTOR}" toName="{VIDEO}" skeleton="true"/>']
        lines += [f'  <Labels name="{LABELS}" toName="{VIDEO}">', f"    {label}", "  </Labels>"]
        names = to_json(list(data.keypoint_set.names)).decode().replace("--", "\\u002d\\u002d")
        lines += [f"  <!-- keypoints: {names} -->"]
    return "\n".join([*lines, "</View>", ""])
