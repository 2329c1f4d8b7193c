"""Reader of YOLO-pose data sets: data.yaml, a text file with normalised values for each picture, and the pictures."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from posecli.annotations.document import number, quoted_name, shown
from posecli.convert.dataset import AnnotationSet, Person, Picture, make_set
from posecli.convert.names import given_set
from posecli.convert.options import ReadOptions
from posecli.convert.pictures import SUFFIXES, size_of
from posecli.convert.yaml_subset import LENGTH, parse_yaml
from posecli.errors import DataError, UsageError
from posecli.keypoints import COCO17, MOST, KeypointSet
from posecli.media.walk import walk

# Decimals of a pixel; a text file has six of the picture's size or more.
_DECIMALS = 4
_MOST_TEXT = 64 << 20


@dataclass(frozen=True)
class _Description:
    """What data.yaml says. dims: 2 or 3 values a keypoint. taken: number of the class of the people."""

    root: Path
    keypoint_set: KeypointSet
    dims: int
    classes: Mapping[int, str]
    taken: int
    splits: Mapping[str, tuple[str, ...]]


def find_description(path: Path) -> Path:
    """The data.yaml of a folder, or the file itself. Raises DataError."""
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in (".yaml", ".yml") and file.is_file())
    named = [file for file in found if file.stem in ("data", path.name)] or found
    if len(named) != 1:
        raise DataError(f"{quoted_name(path)}: {len(named)} YAML files with the names of a YOLO-pose data set, not one")
    return named[0]


def read(path: Path, options: ReadOptions) -> AnnotationSet:
    """Read a data set by its data.yaml, or the folder with it; the pictures give the sizes.

    Pictures are looked for where Ultralytics does, and by the names of the label files in options.images. Names are
    those in images/SPLIT. Raises DataError for files that Ultralytics would not read, or without a picture.
    """
    file = find_description(path)
    description = _read_description(file, options)
    sources = [file]
    left_out: Counter[str] = Counter()
    pictures: list[tuple[str, str, Picture]] = []
    for split, entries in description.splits.items():
        for entry in entries:
            for image, labels, name in _pairs(description.root, entry, options.images):
                sources += [image, labels]
                pictures.append((split, name, _picture(image, labels, name, split, description, left_out)))
    if not pictures:
        raise DataError(f"{quoted_name(path)}: no picture, neither of its images nor of its labels")
    names = Counter(name for _, name, _ in pictures)
    seen: dict[tuple[str, str], Picture] = {}
    for split, name, picture in pictures:
        whole = name if names[name] == 1 else f"{split}/{name}"
        seen.setdefault((split, name), Picture(whole, picture.size, picture.people, extra=picture.extra))
    notes = tuple(f"{thing}: {count} left out" for thing, count in left_out.items())
    label = description.classes[description.taken]
    found = tuple(seen.values())
    return AnnotationSet(description.keypoint_set, found, label=label, notes=notes, sources=tuple(sources))


def _read_description(path: Path, options: ReadOptions) -> _Description:
    where = quoted_name(path)
    document = parse_file(path)
    if not isinstance(document, dict):
        raise DataError(f"{where}: no names and values, as data.yaml of a YOLO-pose data set has")
    count, dims = _shape(document.get("kpt_shape"), where)
    classes = _classes(document, where)
    taken = _choose(classes, options.category, where)
    keypoint_set = _keypoint_set(document, count, classes[taken], taken, options, where)
    splits = _splits(document, where)
    root = document.get("path")
    folder = path.parent / root if isinstance(root, str) else path.parent
    # The path may be that of another machine.
    return _Description(
        folder if folder.is_dir() and any((folder / e).exists() for v in splits.values() for e in v) else path.parent,
        keypoint_set, dims, classes, taken, splits,
    )  # fmt: skip


def _shape(given: Any, where: str) -> tuple[int, int]:
    if isinstance(given, list) and len(given) == 2 and all(type(value) is int for value in given):
        count, dims = given
        if 0 < count <= MOST and dims in (2, 3):
            return count, dims
    raise DataError(f"{where}: kpt_shape is {shown(given)}, not [number of keypoints, 2 or 3]")


def _splits(document: Mapping[Any, Any], where: str) -> dict[str, tuple[str, ...]]:
    """The folders and lists of each split; what stands in several is of the first."""
    splits: dict[str, tuple[str, ...]] = {}
    earlier: set[str] = set()
    for split, keys in (("train", ("train",)), ("val", ("val", "validation")), ("test", ("test",))):
        given: Any = next((document[key] for key in keys if document.get(key)), [])
        entries = given if isinstance(given, list) else [given]
        if not all(isinstance(entry, str) and "\0" not in entry for entry in entries):
            raise DataError(f"{where}: {split} is {shown(given)}, not a folder, a list of pictures, or several")
        splits[split] = tuple(entry for entry in dict.fromkeys(entries) if entry not in earlier)
        earlier |= set(entries)
    return splits


def parse_file(path: Path) -> Any:
    """The value of a YAML file. Raises DataError."""
    try:
        with path.open("rb") as file:
            text = file.read(LENGTH + 4).decode("utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{quoted_name(path)}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    try:
        return parse_yaml(text)
    except DataError as error:
        raise DataError(f"{quoted_name(path)}: {error}") from error


def _classes(document: Mapping[Any, Any], where: str) -> dict[int, str]:
    names = document.get("names")
    if names is None and type(document.get("nc")) is int and 0 < document["nc"] <= MOST:
        names = [f"class_{i}" for i in range(document["nc"])]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(type(key) is int for key in names):
        raise DataError(f"{where}: names is {shown(names)}, not names of classes by number")
    return {key: value if isinstance(value, str) else shown(value) for key, value in names.items()}


def _choose(classes: Mapping[int, str], wanted: str | None, where: str) -> int:
    text = "person" if wanted is None else wanted.strip().casefold()
    for key, name in classes.items():
        if name.strip().casefold() == text or (wanted is not None and str(key) == text):
            return key
    if wanted is not None:
        known = ", ".join(f"{key} {shown(name)}" for key, name in list(classes.items())[:12])
        raise UsageError(f"--category {shown(wanted)}: {where} has the classes {known}")
    if len(classes) > 1:
        raise UsageError(f"{where}: several classes and none is person: choose one with --category")
    return next(iter(classes))


def _keypoint_set(
    document: Mapping[Any, Any], count: int, label: str, taken: int, options: ReadOptions, where: str
) -> KeypointSet:
    """The keypoints by --keypoints, kpt_names, COCO's number and pairs, or else numbered."""
    if options.keypoints is not None:
        found = given_set(options.keypoints)
        if len(found) != count:
            raise UsageError(f"--keypoints {options.keypoints}: {len(found)} keypoints, {where} has {count}")
        return found
    flip = document.get("flip_idx")
    if flip is not None and (
        not isinstance(flip, list) or not all(type(place) is int for place in flip)
        or sorted(flip) != list(range(count)) or any(flip[flip[i]] != i for i in range(count))
    ):  # fmt: skip
        raise DataError(f"{where}: flip_idx is {shown(flip)}, which swaps no pairs of {count} keypoints")
    pairs = None if flip is None else [(i, flip[i]) for i in range(count) if i <= flip[i]]
    names = document.get("kpt_names")
    if isinstance(names, dict):
        names = names.get(taken)
    elif isinstance(names, list) and names and isinstance(names[0], list):
        names = names[taken] if taken < len(names) else None
    limbs = _limbs(document.get("skeleton"), count)
    if isinstance(names, list) and len(names) == count:
        plain = [name if isinstance(name, str) else shown(name) for name in names]
        known = make_set(label, plain, limbs)
        if flip is None or list(known.flip_indices) == flip:
            return known
        return make_set(label, plain, limbs, pairs)
    if count == len(COCO17) and (flip is None or flip == list(COCO17.flip_indices)):
        return COCO17
    return make_set(label, [str(i + 1) for i in range(count)], limbs, pairs)


def _limbs(given: Any, count: int) -> list[tuple[int, int]]:
    rows = given if isinstance(given, list) else []
    return [
        (row[0], row[1])
        for row in rows
        if isinstance(row, list) and len(row) == 2 and all(type(end) is int and 0 <= end < count for end in row)
        if row[0] != row[1]
    ]


def _pairs(root: Path, entry: str, images: Path | None) -> Iterator[tuple[Path, Path, str]]:
    """Picture, label file and name of each picture of a folder or list."""
    folder = root / entry
    if entry.startswith("../") and not folder.exists():
        folder = root / entry[3:]  # as Ultralytics does, for exports of Roboflow
    if folder.resolve() in root.resolve().parents:
        raise DataError(f"{quoted_name(folder)}: a folder around the data set, not one of its pictures")
    if folder.suffix.lower() == ".txt" and folder.is_file():
        for line in _lines(folder):
            picture = (folder.parent / line) if line.startswith("./") else root / line
            yield picture, _labels_of(picture), _name_in(line)
        return
    if folder.is_dir():
        for picture, problem in walk(folder):
            if problem is None and picture.suffix.lower() in SUFFIXES:
                yield picture, _labels_of(picture), picture.relative_to(folder).as_posix()
        return
    labels = _labels_of(folder / "x").parent
    if not labels.is_dir():
        return
    if images is None:
        raise DataError(f"{quoted_name(folder)}: no such folder: name that of the pictures with --images")
    by_stem: dict[str, list[Path]] = {}
    for picture, problem in walk(images):
        if problem is None and picture.suffix.lower() in SUFFIXES:
            stem = picture.relative_to(images).with_suffix("").as_posix()
            by_stem.setdefault(stem, []).append(picture)
    for file, problem in walk(labels):
        if problem is None and file.suffix.lower() == ".txt":
            stem = file.relative_to(labels).with_suffix("").as_posix()
            found = by_stem.get(stem) or by_stem.get(f"{folder.name}/{stem}") or []
            if len(found) != 1:
                raise DataError(f"{quoted_name(file)}: {len(found)} pictures of this name in {quoted_name(images)}")
            yield found[0], file, f"{stem}{found[0].suffix}"


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_TEXT:
            raise DataError(f"{quoted_name(path)}: more than {_MOST_TEXT >> 20} MiB of text")
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{quoted_name(path)}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error


def _labels_of(picture: Path) -> Path:
    """The label file as Ultralytics finds it: the last folder "images" is "labels", the suffix .txt."""
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _name_in(line: str) -> str:
    """The name of a picture of a list: what follows images/SPLIT/, or else images/."""
    parts = PurePath(line.removeprefix("./")).as_posix().split("/")
    if "images" in parts[:-1]:
        parts = parts[len(parts) - 1 - parts[::-1].index("images") + 1 :]
        if len(parts) > 1 and parts[0] in ("train", "val", "test"):
            parts = parts[1:]
    return "/".join(part for part in parts if part not in ("", ".", "..")) or line


def _picture(
    image: Path, labels: Path, name: str, split: str, description: _Description, left_out: Counter[str]
) -> Picture:
    size = size_of(image)
    if size is None or not all(size):
        raise DataError(f"{quoted_name(image)}: no picture that can be read, its size is needed")
    rows = _lines(labels) if labels.is_file() else []
    people = []
    for place, line in enumerate(rows, 1):
        values = [number(cell) for cell in line.split()]
        where = f"{quoted_name(labels)}: line {place}"
        expected = 5 + len(description.keypoint_set) * description.dims
        if len(values) != expected:
            raise DataError(f"{where}: {len(values)} values, not {expected} (class, box, keypoints)")
        numbers = [value for value in values if value is not None]
        if len(numbers) != expected:
            raise DataError(f"{where}: a value that is no finite number")
        if numbers[0] != int(numbers[0]) or int(numbers[0]) not in description.classes:
            raise DataError(f"{where}: class {shown(values[0])}, which data.yaml does not name")
        if int(numbers[0]) != description.taken:
            left_out[f"people of class {shown(description.classes[int(numbers[0])])}"] += 1
            continue
        people.append(_person(numbers, size, description.dims, where))
    return Picture(name, size, tuple(people), extra={"split": split})


def _person(values: list[float], size: tuple[int, int], dims: int, where: str) -> Person:
    width, height = size
    if max(values[1:5]) > 1.01 or min(values[1:5]) < -0.01:
        raise DataError(f"{where}: a box that is not normalised (values from 0 to 1)")
    x, y, w, h = values[1] * width, values[2] * height, values[3] * width, values[4] * height
    box = tuple(round(value, _DECIMALS) for value in (x - w / 2, y - h / 2, w, h))
    keypoints: list[float] = []
    for i in range(5, len(values), dims):
        kx, ky = values[i], values[i + 1]
        if dims == 3:
            v = values[i + 2]
            if v not in (0, 1, 2):
                raise DataError(f"{where}: visibility {v:g}, not 0, 1 or 2")
        else:
            # Ultralytics takes negative values as not labelled; a keypoint exactly in the corner is none either.
            v = 0 if kx < 0 or ky < 0 or (kx == 0 and ky == 0) else 2
        if v and not (-0.01 <= kx <= 1.01 and -0.01 <= ky <= 1.01):
            raise DataError(f"{where}: a keypoint that is not normalised (values from 0 to 1)")
        keypoints += [round(kx * width, _DECIMALS), round(ky * height, _DECIMALS), int(v)] if v else [0, 0, 0]
    return Person(tuple(keypoints), (box[0], box[1], box[2], box[3]))
