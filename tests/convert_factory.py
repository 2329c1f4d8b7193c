"""Random annotation sets for the tests of `posecli convert`, and their comparison."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from posecli.convert.dataset import AnnotationSet, Person, Picture, Report, Video, frame_name, make_set
from posecli.convert.formats import FORMATS
from posecli.convert.options import ReadOptions, WriteOptions
from posecli.keypoints import COCO17, KeypointSet

TEXT = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="#"), min_size=1, max_size=6)
NAMES = st.lists(TEXT | st.sampled_from(["left eye", "a<b>&\"c'", "--", "1", "x,y", "[]", "a: b", "é"]), unique=True)
VALUES = st.one_of(
    st.integers(-5, 5), st.floats(-9, 9), st.booleans(), TEXT, st.sampled_from(["3", "true", "null", '"', " a\n\tb\r"]),
    st.lists(st.integers(0, 3), max_size=3), st.just({"a": [1, None]}),
)  # fmt: skip
FIELDS = st.dictionaries(st.sampled_from(["score", "corrected", "note", "keypoint_std"]), VALUES, max_size=3)


@st.composite
def keypoint_sets(draw: st.DrawFn) -> KeypointSet:
    names = draw(NAMES.filter(bool))[:5]
    if len(names) < 2:
        return COCO17
    ends = st.integers(0, len(names) - 1)
    limbs = draw(st.lists(st.tuples(ends, ends).filter(lambda pair: pair[0] != pair[1]), max_size=4, unique=True))
    return make_set("person", names, limbs)


def people(
    random: Random, keypoint_set: KeypointSet, size: tuple[int, int], inside: bool, track: int | None, extra: Any
) -> Person:
    """A person with coordinates in hundredths of a pixel; inside: within the picture, and with a box."""
    margin = 0 if inside else 50

    def between(low: float, high: float) -> float:
        return random.choice([random.randint(round(low * 100), round(high * 100)) / 100, round(low, 2), round(high, 2)])

    keypoints: list[float] = []
    for _ in range(len(keypoint_set)):
        v = random.randint(0, 2)
        keypoints += [*(between(-margin, side + margin) for side in size), v] if v else [0, 0, 0]
    left, top = (between(-margin, side - 1) for side in size)
    right, bottom = between(left + 0.5, size[0] + margin), between(top + 0.5, size[1] + margin)
    boxed = inside or random.random() < 0.7 or not any(keypoints[2::3])
    box = (left, top, round(right - left, 2), round(bottom - top, 2))
    return Person(tuple(keypoints), box if boxed else None, track, extra=extra)


@st.composite
def photo_sets(draw: st.DrawFn, *, inside: bool = True) -> AnnotationSet:
    """Sets of photos. inside: coordinates within the pictures only."""
    keypoint_set = draw(keypoint_sets())
    random = Random(draw(st.integers(0, 2**32)))
    names = draw(st.lists(TEXT.filter(lambda name: not set(name) & set("/\\.:")), unique_by=str.casefold, max_size=3))
    pictures = []
    for number, name in enumerate(names):
        size = random.randint(20, 4000), random.randint(20, 4000)
        tracks = [random.choice([None, random.randint(0, 9)]) for _ in range(draw(st.integers(0, 3)))]
        row = tuple(people(random, keypoint_set, size, inside, track, draw(FIELDS)) for track in tracks)
        pictures.append(Picture(f"{number}/{name}.jpg", size, row, id=number + 1))
    return AnnotationSet(keypoint_set, tuple(pictures), label=draw(st.sampled_from(["person", "dog & cat"])))


@st.composite
def video_sets(draw: st.DrawFn, *, inside: bool = True) -> AnnotationSet:
    """Sets of one video, every step-th frame of it, with gaps in the tracks."""
    keypoint_set = draw(keypoint_sets())
    random = Random(draw(st.integers(0, 2**32)))
    size = random.randint(20, 2000), random.randint(20, 2000)
    step, count = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    pictures = []
    for index in range(0, step * count, step):
        tracks = sorted(draw(st.sets(st.integers(0, 3), max_size=3)))
        row = tuple(people(random, keypoint_set, size, inside, track, draw(FIELDS)) for track in tracks)
        pictures.append(Picture(frame_name("a/clip.mp4", index), size, row, 0, index, index / 25, index + 1))
    video = Video("a/clip.mp4", size, None if step > 1 else count, 25.0, 1)
    return AnnotationSet(keypoint_set, tuple(pictures), (video,))


def through(data: AnnotationSet, name: str, out: Path, options: WriteOptions | None = None) -> tuple[Any, Report]:
    """The set after COCO, the format and COCO again, and the writer's report."""
    options, report = options or WriteOptions(), Report()
    first, last = out / "first.json", out / "last.json"
    FORMATS["coco"].write(data, first, WriteOptions(), Report())
    target = {"cvat": "x.xml", "yolo-pose": "yolo", "label-studio": "x.ls.json"}.get(name, "x.json")
    reading = ReadOptions(images=options.images)
    FORMATS[name].write(FORMATS["coco"].read(first, ReadOptions()), out / target, options, report)
    FORMATS["coco"].write(FORMATS[name].read(out / target, reading), last, WriteOptions(), Report())
    return FORMATS["coco"].read(last, ReadOptions()), report


def rows(data: AnnotationSet, fields: Iterable[str] | None = None) -> Mapping[str, Any]:
    """The people of each picture by its name: keypoints, box, track id and fields (None: all but area)."""

    def row(person: Person) -> Any:
        kept = {k: v for k, v in person.extra.items() if (k != "area" if fields is None else k in fields)}
        return person.keypoints, person.box, person.track, kept

    return {picture.name: [row(person) for person in picture.people] for picture in data.pictures}


def near(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two structures are equal, numbers within the tolerance."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(near(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(near(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) or isinstance(other, float):
        return isinstance(one, int | float) and isinstance(other, int | float) and abs(one - other) <= tolerance
    return bool(one == other)
