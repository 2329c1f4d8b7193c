"""A skeleton or a box of CVAT's."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from posecli.annotations.document import shown
from posecli.convert.dataset import Box

Point = tuple[float, float, int]


@dataclass(frozen=True)
class Shape:
    """points: of a skeleton, by name, x, y and v. box: x, y, width, height of a box. fields: its attributes' texts."""

    attributes: Mapping[str, str]
    fields: Mapping[str, str] = field(default_factory=dict)
    points: Mapping[str, Point] | None = None
    box: Box | None = None

    @property
    def group(self) -> str:
        """The group's id, "" without one."""
        group = self.attributes.get("group_id", "")
        return "" if group == "0" else group

    @property
    def outside(self) -> bool:
        """Whether it is not in the frame: marked so, or all of its points are."""
        if self.attributes.get("outside") == "1":
            return True
        return self.points is not None and bool(self.points) and all(v == 0 for _, _, v in self.points.values())

    def keypoints(self, names: Sequence[str], left_out: Counter[str]) -> tuple[float, ...]:
        """x, y and v of the points of these names; 0 for those that it does not have."""
        assert self.points is not None
        for name in self.points:
            if name not in names:
                left_out[f"points {shown(name)}"] += 1
        return tuple(value for name in names for value in self.points.get(name, (0, 0, 0)))

    def towards(self, other: "Shape", share: float) -> "Shape":
        """The shape between this one (share 0) and the other one (1), as CVAT shows it; without attributes."""

        def between(a: float, b: float) -> float:
            return round(a + (b - a) * share, 6)

        if self.box is not None and other.box is not None:
            x, y, width, height = (between(a, b) for a, b in zip(self.box, other.box, strict=True))
            return replace(self, box=(x, y, width, height), fields={})
        points = {}
        for name, (x, y, v) in (self.points or {}).items():
            to_x, to_y, to_v = (other.points or {}).get(name, (x, y, 0))
            moves = v > 0 and to_v > 0
            points[name] = (between(x, to_x), between(y, to_y), v) if moves else (x, y, v)
        return replace(self, points=points, fields={})
