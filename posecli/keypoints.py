"""Keypoint sets: names, skeleton, left/right pairs and OKS sigmas."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from posecli.errors import DataError, UsageError
from posecli.sides import find_flip_pairs, side_of

__all__ = [
    "COCO17",
    "KEYPOINT_SETS",
    "KeypointSet",
    "describe_category",
    "find_flip_pairs",
    "find_keypoints",
    "from_category",
    "same_keypoints",
]


@dataclass(frozen=True)
class KeypointSet:
    """The keypoints that a model predicts.

    names: K names, in the order of every array.
    skeleton: limbs as pairs of 0-based indices into names.
    flip_pairs: left/right pairs of 0-based indices; the others are not swapped by a flip. A pair of an index with
    itself states that explicitly.
    sigmas: K per-keypoint OKS sigmas as in COCO (κ = 2σ), or None where unknown.
    """

    name: str
    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def flip_indices(self) -> tuple[int, ...]:
        """Permutation that swaps left and right: mirrored[i] = original[flip_indices[i]]."""
        order = list(range(len(self.names)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)

    @property
    def mirrors(self) -> bool:
        """Whether the keypoints of a flipped image are known.

        They are not if several keypoints have no pair at all, or if a left or right one has no partner.
        """
        paired = {index for pair in self.flip_pairs for index in pair}
        alone = any(side_of(name) != "middle" for i, name in enumerate(self.names) if i not in paired)
        return not alone and (bool(self.flip_pairs) or len(self.names) == 1)

    def side(self, index: int) -> str:
        """'left', 'right' or 'middle' of the body, from the name, or else from its pair."""
        side = side_of(self.names[index])
        if side == "middle":
            for left, right in self.flip_pairs:
                if left != right and index in (left, right):
                    return "left" if index == left else "right"
        return side


# Keypoints and limbs that a set may have at most.
MOST = 1000


def _read_sets() -> tuple[dict[str, KeypointSet], dict[str, str]]:
    """The published sets by name, and their names elsewhere.

    keypoint_sets.json has each as text: names; links and left-right pairs of indices; OKS sigmas in thousandths. They
    are facts of the data sets: of COCO (pycocotools, Params.setKpParams), Halpe, COCO-WholeBody (also its hands and its
    face of 68), AP-10K, CrowdPose, MPII, LaPa (106) and WFLW (98) as MMPose's configs/_base_/datasets list them.
    """
    sets, others = {}, {}
    text = resources.files("posecli").joinpath("keypoint_sets.json").read_text(encoding="utf-8")
    for name, given in json.loads(text).items():
        sigmas = tuple(int(sigma) / 1000 for sigma in given.get("sigmas", "").split())
        names = tuple(given["names"].split(","))
        # A set without sides (one hand) is its own mirror image.
        pairs = _indices(given["pairs"]) or tuple((i, i) for i in range(len(names)))
        sets[name] = KeypointSet(name, names, _indices(given["links"]), pairs, sigmas or None)
        others[given.get("also", name)] = name
    return sets, others


def _indices(text: str) -> tuple[tuple[int, int], ...]:
    return tuple((int(first), int(second)) for first, second in (pair.split("-") for pair in text.split()))


# Sets that a category is recognised as by its names, and whose names `weights import --keypoints` takes.
KEYPOINT_SETS: dict[str, KeypointSet]
KEYPOINT_SETS, _NAMES_ELSEWHERE = _read_sets()
COCO17 = KEYPOINT_SETS["coco17"]


def find_keypoints(name: str) -> KeypointSet:
    """The set of this name, posecli's or MMPose's. Raises UsageError where there is none."""
    name = _NAMES_ELSEWHERE.get(name, name)
    if name not in KEYPOINT_SETS:
        raise UsageError(f"keypoint set {_shown(name)}: choose from {', '.join(KEYPOINT_SETS)}")
    return KEYPOINT_SETS[name]


def from_category(category: Mapping[str, Any]) -> KeypointSet:
    """The keypoint set of a COCO category; see describe_category."""
    return describe_category(category)[0]


def describe_category(category: Mapping[str, Any]) -> tuple[KeypointSet, tuple[str, ...]]:
    """The keypoint set of a COCO category, and notes on fields that were repaired or left out.

    "skeleton" counts from 1 as in COCO, from 0 if it contains a 0, or has names; invalid limbs are left out. "sigmas"
    are used if there is a positive one for each name; for COCO's keypoints, in any spelling, COCO's are the default.
    "flip_pairs", of names or of indices from 0, or from 1 if only that fits, are the keypoints swapped by a flip;
    without the field they are derived from the names. Keypoints without a pair are not swapped.

    Raises DataError where the category names no keypoints.
    """
    label = category.get("name", "?")
    given = category.get("keypoints")
    if not isinstance(given, list | tuple) or not given:
        raise DataError(f"category {_shown(label)} names no keypoints")
    if len(given) > MOST:
        raise DataError(f"category {_shown(label)} names {len(given)} keypoints, more than {MOST}")
    notes: list[str] = []
    names = _distinct([name if isinstance(name, str) else _shown(name) for name in given], notes)
    plain = {key: category.get(key) for key in ("sigmas", "flip_pairs")}
    for known in KEYPOINT_SETS.values():
        if known.names == names and all(value is None for value in plain.values()):
            return known, tuple(notes)
    pairs = find_flip_pairs(names)
    if plain["flip_pairs"] is not None:
        try:
            pairs = _read_flip_pairs(plain["flip_pairs"], names, pairs)
        except (TypeError, ValueError, OverflowError) as error:
            notes.append(f"flip_pairs left out ({error}): left and right taken from the names of the keypoints")
    found = KeypointSet(
        name=label if isinstance(label, str) and label else "custom",
        names=names,
        skeleton=_read_skeleton(category.get("skeleton"), names, notes),
        flip_pairs=pairs,
        sigmas=_read_sigmas(plain["sigmas"], names, pairs, notes),
    )
    return found, tuple(notes)


def _distinct(names: Sequence[str], notes: list[str]) -> tuple[str, ...]:
    result: list[str] = []
    for name in names:
        number, free = 2, name
        while free in result:
            number, free = number + 1, f"{name}_{number}"
        result.append(free)
    renamed = [name for name, given in zip(result, names, strict=True) if name != given]
    if renamed:
        notes.append(f"keypoint names that stand twice: {len(renamed)} renamed, first {_shown(renamed[0])}")
    return tuple(result)


def _place(value: Any, names: Sequence[str]) -> int | None:
    """An index as given, or that of a name; None for anything else."""
    if isinstance(value, str):
        if value in names:
            return None if names.count(value) != 1 else -1 - names.index(value)
        value = int(value) if value.strip().isascii() and value.strip().isdigit() and len(value) < 9 else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _read_skeleton(given: Any, names: Sequence[str], notes: list[str]) -> tuple[tuple[int, int], ...]:
    if given is None:
        return ()
    if not isinstance(given, list | tuple):
        notes.append("a skeleton that is no list: left out")
        return ()
    limbs: list[tuple[int, int]] = []
    for limb in given:
        if isinstance(limb, list | tuple) and len(limb) == 2:
            start, end = (_place(value, names) for value in limb)
            if start is not None and end is not None:
                limbs.append((start, end))
    # Names give indices below 0; numbers start at 0 or 1 for all limbs.
    base = 0 if any(value == 0 for limb in limbs for value in limb) else 1
    placed = [tuple(-1 - value if value < 0 else value - base for value in limb) for limb in limbs]
    skeleton = tuple((a, b) for a, b in placed if a < len(names) and b < len(names) and a != b)[:MOST]
    if base == 0:
        notes.append("a skeleton that counts from 0: taken so")
    if len(skeleton) < len(given):
        notes.append(f"{len(given) - len(skeleton)} of {len(given)} limbs of the skeleton join no keypoints: left out")
    return skeleton


def _read_flip_pairs(given: Any, names: Sequence[str], named: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The category's flip pairs. Raises ValueError with the reason where they are invalid."""
    if isinstance(given, Mapping):
        given = list(given.items())
    if not isinstance(given, list | tuple):
        raise ValueError("no list of pairs")
    written = []
    for pair in given:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"{_shown(pair)} is no pair")
        places = [_place(value, names) for value in pair]
        if None in places:
            raise ValueError(f"{_shown(pair)} are not two of the keypoints")
        written.append([place for place in places if place is not None])
    numbers = [place for pair in written for place in pair if place >= 0]
    base = 0
    if 0 not in numbers and numbers:
        from_one = {frozenset(place - 1 for place in pair) for pair in written}
        base = int(max(numbers) == len(names) or from_one == {frozenset(pair) for pair in named})
    pairs = [tuple(-1 - place if place < 0 else place - base for place in pair) for pair in written]
    flat = [place for pair in pairs for place in set(pair)]
    if flat and max(flat) >= len(names):
        raise ValueError(f"a place beyond the {len(names)} keypoints")
    if len(set(flat)) != len(flat) and len({frozenset(pair) for pair in pairs}) * 2 != len(set(flat)):
        raise ValueError("a keypoint stands in two pairs")
    # All other keypoints are not swapped: the category's pairs are complete.
    own = {(min(pair), max(pair)): pair for pair in pairs}
    return (*((a, b) for a, b in own.values()), *((i, i) for i in range(len(names)) if i not in flat))


def _read_sigmas(
    given: Any, names: Sequence[str], pairs: Sequence[tuple[int, int]], notes: list[str]
) -> tuple[float, ...] | None:
    if given is not None:
        numbers = [_positive(value) for value in given] if isinstance(given, list | tuple) else []
        sigmas = tuple(value for value in numbers if value is not None)
        if len(sigmas) == len(numbers) == len(names):
            return sigmas
        notes.append(f"sigmas that are not {len(names)} positive numbers: left out")
    if names == COCO17.names:
        return COCO17.sigmas
    if _spelt_as_coco(names, pairs):
        notes.append("keypoints that are COCO's by another spelling: COCO's sigmas taken")
        return COCO17.sigmas
    return None


def same_keypoints(first: KeypointSet, second: KeypointSet) -> bool:
    """Whether two sets have the same keypoints: equal names, or COCO's in any spelling."""
    return first.names == second.names or all(_spelt_as_coco(each.names, each.flip_pairs) for each in (first, second))


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 1e-4 <= number <= 10 else None


def _spelt_as_coco(names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> bool:
    """Whether the names are COCO's, in its order, ignoring letter case, separators and the spelling of sides."""
    if len(names) != len(COCO17) or {(a, b) for a, b in pairs if a != b} != set(COCO17.flip_pairs):
        return False
    bare = [re.sub(r"[\W_]|left|right", "", name.casefold()) for name in names]
    of_coco = [re.sub(r"_|left|right", "", name) for name in COCO17.names]
    return all(a in (b, f"l{b}", f"r{b}", f"{b}l", f"{b}r") for a, b in zip(bare, of_coco, strict=True))


def _shown(value: Any) -> str:
    """A value from a file for a message: as JSON, shortened."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
