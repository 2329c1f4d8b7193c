"""Charts as SVG text with real letters, for reports: matplotlib would take longer than the rest of `posecli eval`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from posecli.results import html
from posecli.results.charts import FLAT_LETTERS, Panel, Series, colours, shortened

# Sizes in the units of the picture, 1/72 inch as in matplotlib.
_INCH = 72.0
_TITLE, _TEXT, _SMALL = 11.0, 9.5, 8.5
# Mean width of a letter in shares of the size of the font.
_LETTER = 0.56
_LINE = 1.2
# Angle of long names under bars in degrees.
_TILT = 40.0


@dataclass(frozen=True)
class _Area:
    """The part of a panel that shows values: its sides in the picture, and the values at them."""

    left: float
    top: float
    right: float
    bottom: float
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_limits
        return self.left + (self.right - self.left) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_limits
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)


def svg(panels: Sequence[Panel], columns: int = 1, width: float = 7.0, height: float = 3.2) -> str:
    """The panels as one SVG element. width, and height of a row of panels, in inches. Names are escaped."""
    rows = -(-len(panels) // columns)
    cell = width * _INCH / columns, height * _INCH
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}in" height="{_n(height * rows)}in" '
        f'viewBox="0 0 {_n(width * _INCH)} {_n(height * rows * _INCH)}" '
        'font-family="DejaVu Sans, Verdana, sans-serif" fill="none" role="img">'
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, (number % columns) * cell[0], (number // columns) * cell[1], *cell)
    return "".join(parts) + "</svg>"


def _panel(panel: Panel, left: float, top: float, width: float, height: float) -> list[str]:
    """The elements of one panel in a rectangle of the picture."""
    names = [shortened(name) for name in panel.series[0].x] if panel.kind != "lines" and panel.series else []
    tilted = len(names) * _longest(names) > FLAT_LETTERS
    several, stacked = len(panel.series) > 1, panel.kind == "stacked"
    labels = [shortened(series.label) for series in panel.series]
    beside = several and not stacked
    legend = (_longest(labels) * _LETTER * _SMALL + 30) if beside else 10
    below = _longest(names) * _LETTER * _TEXT * math.sin(math.radians(_TILT)) + 12 if tilted else _lines(names) * 12 + 6
    area = _Area(
        left + 46,
        top + 28 + (16 if several and stacked else 0),
        left + max(width - legend - 6, 100),
        top + height - max(14, min(below, height / 2)) - (16 if panel.x_label else 4),
        _x_limits(panel, names),
        _y_limits(panel),
    )
    parts = [_text(area.left, top + 18, panel.title, _TITLE, "#222", weight="bold")]
    if not any(len(series.x) for series in panel.series):
        middle = (area.left + area.right) / 2, (area.top + area.bottom) / 2
        return [*parts, _text(*middle, "nothing to show", _TEXT, "#777", anchor="middle")]
    parts += _axes(panel, area, left, top + height)
    parts += _names(area, names, tilted) if names else _numbers(area)
    parts += _lines_of(panel, area) if panel.kind == "lines" else _bars(panel, area)
    if several:
        parts += _legend(labels, area, stacked, top)
    return parts


def _x_limits(panel: Panel, names: Sequence[str]) -> tuple[float, float]:
    if names:
        return -0.6, len(names) - 0.4
    values = [float(x) for series in panel.series for x in series.x]
    return _wide(panel.x_limits or (min(values, default=0.0), max(values, default=1.0)))


def _y_limits(panel: Panel) -> tuple[float, float]:
    if panel.y_limits is not None:
        return _wide(panel.y_limits)
    if panel.kind == "stacked":
        high = max((sum(values) for values in zip(*(s.y for s in panel.series), strict=True)), default=1.0)
        return _wide((0.0, 1.05 * high))
    shown = [y for s in panel.series for values in (s.y, s.low or (), s.high or ()) for y in values if math.isfinite(y)]
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    return _wide((min(0.0, low) if panel.kind == "bars" else low - 0.05 * (high - low), high + 0.05 * (high - low)))


def _wide(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high: 1, 2 or 5 times a power of ten apart, at most so many."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most - 0.5)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _axes(panel: Panel, area: _Area, left: float, bottom: float) -> list[str]:
    """Grid lines with the numbers of the y axis, the axes, and what they are."""
    parts = []
    marks = ticks(*area.y_limits)
    digits = _digits(marks)
    for value in marks:
        y = area.y(value)
        parts.append(_path(f"M{_n(area.left)} {_n(y)}H{_n(area.right)}", "#8884", 0.8))
        parts.append(_text(area.left - 5, y + 3.3, f"{value:.{digits}f}", _TEXT, "#555", anchor="end"))
    parts.append(_path(f"M{_n(area.left)} {_n(area.top)}V{_n(area.bottom)}H{_n(area.right)}", "#777", 0.8))
    if panel.x_label:
        middle = (area.left + area.right) / 2
        parts.append(_text(middle, bottom - 6, panel.x_label, _TEXT, "#444", anchor="middle"))
    if panel.y_label:
        middle = (area.top + area.bottom) / 2
        parts.append(_text(left + 12, middle, panel.y_label, _TEXT, "#444", anchor="middle", angle=-90))
    return parts


def _numbers(area: _Area) -> list[str]:
    marks = ticks(*area.x_limits)
    digits = _digits(marks)
    parts = []
    for value in marks:
        x = area.x(value)
        parts.append(_path(f"M{_n(x)} {_n(area.top)}V{_n(area.bottom)}", "#8884", 0.8))
        parts.append(_text(x, area.bottom + 13, f"{value:.{digits}f}", _TEXT, "#555", anchor="middle"))
    return parts


def _names(area: _Area, names: Sequence[str], tilted: bool) -> list[str]:
    parts = []
    for place, name in enumerate(names):
        x = area.x(place)
        if tilted:
            parts.append(_text(x + 3, area.bottom + 11, name, _TEXT, "#555", anchor="end", angle=-_TILT))
            continue
        for number, line in enumerate(name.split("\n")):
            parts.append(_text(x, area.bottom + 13 + 12 * number, line, _TEXT, "#555", anchor="middle"))
    return parts


def _lines_of(panel: Panel, area: _Area) -> list[str]:
    parts = []
    for series, colour in zip(panel.series, colours(len(panel.series)), strict=True):
        if series.low is not None and series.high is not None:
            edge = [*zip(series.x, series.high, strict=True), *reversed([*zip(series.x, series.low, strict=True)])]
            parts.append(f'<path d="{_way(edge, area)}Z" fill="{colour}" fill-opacity="0.15"/>')
        points = list(zip(series.x, series.y, strict=True))
        parts.append(_path(_way(points, area), colour, 1.6, "5 3" if series.dashed else ""))
        if len(points) < 15:
            dots = "".join(
                f"M{_n(area.x(x) - 1.8)} {_n(area.y(y))}a1.8 1.8 0 1 0 3.6 0a1.8 1.8 0 1 0 -3.6 0"
                for x, y in points
                if math.isfinite(y)
            )
            parts.append(f'<path d="{dots}" fill="{colour}"/>')
    return parts


def _way(points: Sequence[tuple[float, float]], area: _Area) -> str:
    """A path through points; interrupted where a value is missing."""
    way, drawing = [], False
    for x, y in points:
        if not math.isfinite(y):
            drawing = False
            continue
        way.append(f"{'L' if drawing else 'M'}{_n(area.x(x))} {_n(area.y(y))}")
        drawing = True
    return "".join(way)


def _bars(panel: Panel, area: _Area) -> list[str]:
    parts = []
    count = len(panel.series)
    base = [0.0] * len(panel.series[0].x)
    for number, (series, colour) in enumerate(zip(panel.series, colours(count), strict=True)):
        width = 0.75 if panel.kind == "stacked" else 0.8 / count
        shift = 0.0 if panel.kind == "stacked" else -0.4 + width * (number + 0.5)
        way = []
        for place, (y, below) in enumerate(zip(series.y, base, strict=True)):
            if not math.isfinite(y):
                continue
            low, high = (below, below + y) if panel.kind == "stacked" else (0.0, y)
            sides = _n(area.x(place + shift - width / 2)), _n(area.x(place + shift + width / 2))
            way.append(f"M{sides[0]} {_n(area.y(low))}V{_n(area.y(high))}H{sides[1]}V{_n(area.y(low))}Z")
        parts.append(f'<path d="{"".join(way)}" fill="{colour}"/>')
        parts += _whiskers(series, area, shift)
        if panel.kind == "stacked":
            base = [a + b for a, b in zip(base, series.y, strict=True)]
    return parts


def _whiskers(series: Series, area: _Area, shift: float) -> list[str]:
    if series.low is None or series.high is None:
        return []
    limits = zip(series.low, series.high, strict=True)
    ways = [
        f"M{_n(area.x(place + shift))} {_n(area.y(low))}V{_n(area.y(high))}"
        for place, (low, high) in enumerate(limits)
        if math.isfinite(low) and math.isfinite(high)
    ]
    return [_path("".join(ways), "#555", 1.0)]


def _legend(labels: Sequence[str], area: _Area, in_a_row: bool, top: float) -> list[str]:
    parts = []
    x, y = (area.left, top + 36.0) if in_a_row else (area.right + 12, area.top + 8)
    for label, colour in zip(labels, colours(len(labels)), strict=True):
        parts.append(f'<path d="M{_n(x)} {_n(y - 6)}h12v6h-12z" fill="{colour}"/>')
        parts.append(_text(x + 16, y, label, _SMALL, "#333"))
        if in_a_row:
            x += 30 + len(label) * _LETTER * _SMALL
        else:
            y += _SMALL * _LINE + 3
    return parts


def _text(
    x: float,
    y: float,
    words: object,
    size: float,
    colour: str,
    *,
    anchor: str = "start",
    weight: str = "normal",
    angle: float = 0.0,
) -> str:
    turned = f' transform="rotate({_n(angle)} {_n(x)} {_n(y)})"' if angle else ""
    bold = f' font-weight="{weight}"' if weight != "normal" else ""
    where = f'x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" fill="{colour}" text-anchor="{anchor}"{bold}{turned}'
    return f"<text {where}>{html.text(shortened(words))}</text>"


def _path(way: str, colour: str, width: float, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="{way}" stroke="{colour}" stroke-width="{_n(width)}"{dashed}/>'


def _n(value: float) -> str:
    """A number with at most two digits after the point."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _digits(marks: Sequence[float]) -> int:
    """Digits after the point that tell the marks apart."""
    step = marks[1] - marks[0] if len(marks) > 1 else 1.0
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _longest(names: Sequence[str]) -> int:
    return max((len(line) for name in names for line in name.split("\n")), default=0)


def _lines(names: Sequence[str]) -> int:
    return max((name.count("\n") + 1 for name in names), default=1)
