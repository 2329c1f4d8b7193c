"""Label Studio's labelling interface: the names of the keypoints, which the tasks do not have in order."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from posecli.annotations.document import number, quoted_name, shown
from posecli.convert.dataset import make_set
from posecli.convert.fields import from_text
from posecli.convert.names import given_set
from posecli.convert.xml_items import Node, parse_fragment
from posecli.errors import DataError
from posecli.keypoints import COCO17, KEYPOINT_SETS, MOST, KeypointSet

_MOST_BYTES = 4 << 20
_SKELETON = re.compile(r"<!-- skeleton of the keypoints by model_index: ([0-9, -]*) -->")
_NAMES = re.compile(r"<!-- keypoints: (\[.*?\]) -->")


@dataclass(frozen=True)
class Interface:
    """names: of the keypoints. limbs: pairs of 0-based indices. label: of the rectangles, "" where it has several."""

    names: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    label: str


def read_interface(path: Path) -> Interface | None:
    """The interface of a file, None where there is none with keypoints. Raises DataError where it is not XML."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{quoted_name(path)}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    root = parse_fragment(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    if root is None:
        raise DataError(f"{quoted_name(path)}: not XML without a DOCTYPE, as a labelling interface is")
    labels: list[tuple[float, str]] = []
    boxes: list[str] = []
    for node in _all(root):
        values = [child for child in node.children if child.tag == "Label" and child.attributes.get("value")]
        if node.tag == "KeyPointLabels":
            for child in values:
                order = number(child.attributes.get("model_index"))
                labels.append((len(labels) if order is None else order, child.attributes["value"]))
        elif node.tag in ("RectangleLabels", "Labels"):
            boxes += [child.attributes["value"] for child in values]
    names = [name for _, name in sorted(labels, key=lambda row: row[0])]
    if not names and (found := _NAMES.search(text)) is not None:
        given = from_text(found[1])
        names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    names = list(dict.fromkeys(names))
    if not names or len(names) > MOST:
        return None
    return Interface(tuple(names), tuple(_limbs(text, len(names))), boxes[0] if len(set(boxes)) == 1 else "")


def _all(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _all(child)


def _limbs(text: str, count: int) -> Iterator[tuple[int, int]]:
    found = _SKELETON.search(text)
    for pair in (found[1] if found else "").split(","):
        start, _, end = pair.strip().partition("-")
        if start.isdecimal() and end.isdecimal() and len(pair) < 12:
            a, b = int(start), int(end)
            if a < count and b < count and a != b:
                yield a, b


def find_set(
    label: str,
    labels: Sequence[str],
    interface: Interface | None,
    given: str | None,
    path: Path,
    notes: list[str],
) -> KeypointSet:
    """The keypoints: given by the user, of the interface, COCO's or the smallest known set with all labels, or these.

    Raises DataError where there are none.
    """
    if given is not None:
        return given_set(given)
    if interface is not None:
        return make_set(label, interface.names, interface.limbs)
    if not labels:
        raise DataError(f"{quoted_name(path)}: no keypoints: name their set with --keypoints")
    known = [found for found in KEYPOINT_SETS.values() if set(labels) <= set(found.names)]
    if known:
        return COCO17 if COCO17 in known else min(known, key=len)
    notes.append(f"keypoints in the order of the labels, first {shown(labels[0])}: --keypoints gives another one")
    return make_set(label, labels)
