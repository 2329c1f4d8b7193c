"""A set of annotated pictures, to which every format is read and from which every format is written."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posecli.errors import DataError
from posecli.keypoints import KeypointSet, describe_category

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Person:
    """A person of a picture, in its pixels.

    keypoints: 3 K values, x, y and v of each (COCO's visibility: 0 not labelled, 1 hidden, 2 visible).
    box: x, y, width, height. track: id within the video, or within the set of pictures.
    id: of the annotation in a COCO file. extra: further fields of the annotation as in COCO: score, area, corrected, …
    """

    keypoints: tuple[float, ...]
    box: Box | None = None
    track: int | None = None
    id: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def points(self) -> Iterator[tuple[float, float, int]]:
        """x, y and v of each keypoint."""
        for i in range(0, len(self.keypoints), 3):
            yield self.keypoints[i], self.keypoints[i + 1], int(self.keypoints[i + 2])

    @property
    def labelled(self) -> int:
        """Number of labelled keypoints."""
        return sum(value > 0 for value in self.keypoints[2::3])


@dataclass(frozen=True)
class Video:
    """A video. size: (width, height); frames: their number; frame_rate: frames per second; None where unknown."""

    name: str
    size: tuple[int, int] | None = None
    frames: int | None = None
    frame_rate: float | None = None
    id: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A photo, or a frame of a video, with its people.

    name: as COCO's file_name; of a frame "clip.mp4#000012". size: (width, height) in pixels, None where unknown.
    video: place of its video in AnnotationSet.videos; index: its number there from 0; time_s: seconds.
    """

    name: str
    size: tuple[int, int] | None = None
    people: tuple[Person, ...] = ()
    video: int | None = None
    index: int = 0
    time_s: float | None = None
    id: Any = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AnnotationSet:
    """Annotated pictures. label: the people's category. category, extra: further fields of it and of the COCO file.

    notes: what was repaired or left out in reading, a sentence each. sources: files that were read beside the first.
    """

    keypoint_set: KeypointSet
    pictures: tuple[Picture, ...]
    videos: tuple[Video, ...] = ()
    label: str = "person"
    category: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()

    @property
    def people(self) -> Iterator[Person]:
        """The people of all pictures."""
        for picture in self.pictures:
            yield from picture.people


@dataclass
class Report:
    """What a format cannot hold: thing → count. notes: other sentences for the user."""

    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def lines(self, title: str) -> list[str]:
        """The notes, and one line with everything that the format called title does not hold."""
        things = ", ".join(f"{thing} ({count})" for thing, count in self.left_out.items() if count)
        return [*self.notes, *([f"{title} has no place for: {things}: left out"] if things else [])]


def frame_name(video: str, index: int) -> str:
    """The name of a frame as `posecli run` writes it into coco.json."""
    return f"{video}#{index:06d}"


def unlabelled(keypoint_set: KeypointSet) -> tuple[float, ...]:
    """The keypoints of a person without labelled ones."""
    return (0,) * (3 * len(keypoint_set))


def make_set(
    label: str,
    names: Sequence[str],
    skeleton: Sequence[tuple[int, int]] = (),
    flip_pairs: Sequence[tuple[int, int]] | None = None,
) -> KeypointSet:
    """The keypoint set of these names and limbs (pairs of 0-based indices). flip_pairs: else found by the names.

    Raises DataError for names that are none, too many, or stand twice.
    """
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"two keypoints are called {twice!a}")
    category: dict[str, Any] = {"name": label, "keypoints": list(names)}
    category["skeleton"] = [[a + 1, b + 1] for a, b in skeleton]
    if flip_pairs is not None:
        category["flip_pairs"] = [[names[a], names[b]] for a, b in flip_pairs]
    found = describe_category(category)[0]
    # The limbs of a known set are its own, a file's may be others.
    return KeypointSet(found.name, found.names, tuple(skeleton) or found.skeleton, found.flip_pairs, found.sigmas)
