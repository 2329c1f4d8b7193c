"""CVAT's skeleton labels: names of keypoints, limbs, the drawing that shows them, and the labels' constructor."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

from posecli.convert.dataset import AnnotationSet
from posecli.convert.xml_items import Node, parse_fragment


@dataclass(frozen=True)
class SkeletonLabel:
    """A label of skeletons. names: of its points, in their order. limbs: pairs of 0-based indices."""

    name: str
    names: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...] = ()


def read_labels(meta: Node) -> dict[str, SkeletonLabel]:
    """The skeleton labels of a file's meta, by name."""
    found: list[Node] = []
    for kind in ("task", "project", "job"):
        labels = meta.find(kind, "labels")
        found += [label for label in labels.children if label.tag == "label"] if labels else []
    points: dict[str, list[str]] = {}
    for label in found:
        if parent := label.words("parent"):
            points.setdefault(parent, []).append(label.words("name"))
    result = {}
    for label in found:
        name = label.words("name")
        if not label.words("parent") and (label.words("type") == "skeleton" or name in points):
            names = tuple(dict.fromkeys(points.get(name, [])))
            result[name] = SkeletonLabel(name, names, _limbs(label.words("svg"), names))
    return result


def _limbs(svg: str, names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The limbs that a drawing shows: lines between nodes, which name their points."""
    drawing = parse_fragment(svg)
    if drawing is None:
        return ()
    places: dict[str, int] = {}
    for node in drawing.children:
        name = node.attributes.get("data-label-name")
        if node.tag == "circle" and name in names:
            places[node.attributes.get("data-node-id", "")] = names.index(name)
    limbs = []
    for node in drawing.children:
        ends = [places.get(node.attributes.get(f"data-node-{end}", "")) for end in ("from", "to")]
        if node.tag == "line" and ends[0] is not None and ends[1] is not None and ends[0] != ends[1]:
            limbs.append((ends[0], ends[1]))
    return tuple(limbs)


def box_label(data: AnnotationSet) -> str:
    """The label of the boxes beside the skeletons."""
    return f"{data.label}_box"


def drawing(data: AnnotationSet) -> str:
    """The SVG of a skeleton label, 100 x 100: points where they are on average within the boxes of the people."""
    places = _layout(data)
    lines = []
    for start, end in data.keypoint_set.skeleton:
        (x1, y1), (x2, y2) = places[start], places[end]
        lines.append(
            f'<line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}" stroke="black" data-type="edge" '
            f'data-node-from="{start + 1}" stroke-width="0.5" data-node-to="{end + 1}"></line>'
        )
    for number, (name, (x, y)) in enumerate(zip(data.keypoint_set.names, places, strict=True), 1):
        lines.append(
            f'<circle r="1.5" stroke="black" fill="#b3b3b3" cx="{x:.2f}" cy="{y:.2f}" stroke-width="0.1" '
            f'data-type="element node" data-element-id="{number}" data-node-id="{number}" '
            f"data-label-name={quoteattr(name)}></circle>"
        )
    return "".join(lines)


def _layout(data: AnnotationSet) -> list[tuple[float, float]]:
    count = len(data.keypoint_set)
    sums = [[0.0, 0.0, 0] for _ in range(count)]
    for person in data.people:
        points = list(person.points)
        seen = [(x, y) for x, y, v in points if v]
        if len(seen) < 2:
            continue
        left, right = min(x for x, _ in seen), max(x for x, _ in seen)
        top, bottom = min(y for _, y in seen), max(y for _, y in seen)
        if not (0 < right - left < math.inf and 0 < bottom - top < math.inf):
            continue
        for place, (x, y, v) in zip(sums, points, strict=True):
            if v:
                place[0] += (x - left) / (right - left)
                place[1] += (y - top) / (bottom - top)
                place[2] += 1
    # A point that no person has gets a place on a circle.
    angles = [2 * math.pi * i / count for i in range(count)]
    return [
        (10 + 80 * x / n, 10 + 80 * y / n) if n else (50 + 40 * math.sin(a), 50 - 40 * math.cos(a))
        for (x, y, n), a in zip(sums, angles, strict=True)
    ]


def constructor(data: AnnotationSet, attributes: Iterable[str], boxes: bool) -> list[dict[str, Any]]:
    """The labels as CVAT's constructor takes them (Raw)."""
    specs = [
        {"name": name, "input_type": "text", "mutable": True, "values": [""], "default_value": ""}
        for name in attributes
    ]
    labels: list[dict[str, Any]] = [
        {
            "name": data.label,
            "type": "skeleton",
            "attributes": specs,
            "sublabels": [{"name": name, "type": "points", "attributes": []} for name in data.keypoint_set.names],
            "svg": drawing(data),
        }
    ]
    if boxes:
        labels.append({"name": box_label(data), "type": "rectangle", "attributes": specs})
    return labels
