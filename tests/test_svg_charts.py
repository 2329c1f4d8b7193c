"""Charts as SVG: what is where in them, and names that are not what they seem."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posecli.results.charts import PALETTE, Panel, Series
from posecli.results.svg_charts import svg, ticks

SPACE = "{http://www.w3.org/2000/svg}"


def parts(text: str, kind: str) -> list[ET.Element]:
    return ET.fromstring(text).findall(f".//{SPACE}{kind}")


def filled(text: str, colour: str) -> list[str]:
    """Ways of the filled shapes of a colour, those of the legend left out."""
    return [p.get("d", "") for p in parts(text, "path") if p.get("fill") == colour and "h12v6" not in p.get("d", "")]


def heights(way: str) -> list[float]:
    """Heights of the bars of one way."""
    return [abs(float(low) - float(high)) for low, high in re.findall(r"M[-\d.]+ ([-\d.]+)V([-\d.]+)H", way)]


def test_bars_are_as_high_as_their_values() -> None:
    text = svg([Panel("t", "", "", [Series("a", ["p", "q", "r"], [0.25, 0.5, 1.0])], kind="bars", y_limits=(0, 2))])
    first, second, third = heights(filled(text, PALETTE[0])[0])
    assert second == pytest.approx(2 * first, abs=0.02) and third == pytest.approx(4 * first, abs=0.04)


def test_stacked_bars_begin_where_the_ones_below_end() -> None:
    series = [Series("a", ["p"], [0.25]), Series("b", ["p"], [0.5])]
    text = svg([Panel("t", "", "", series, kind="stacked", y_limits=(0, 1))])
    below, above = (re.search(r"M[-\d.]+ ([-\d.]+)V([-\d.]+)", filled(text, c)[0]) for c in PALETTE[:2])
    assert below is not None and above is not None and below[2] == above[1]


def test_lines_go_through_their_points_and_stop_at_gaps() -> None:
    x = [float(i) for i in range(20)]
    y = [0.5, 0.5, math.nan, *[1.0] * 17]
    text = svg([Panel("t", "", "", [Series("a", x, y, low=y, high=y)], y_limits=(0, 1), x_limits=(0, 19))])
    (way,) = [p.get("d", "") for p in parts(text, "path") if p.get("stroke") == PALETTE[0]]
    assert way.count("M") == 2 and way.count("L") == 17
    assert "nan" not in text


def test_whiskers_hold_the_interval() -> None:
    series = [Series("a", ["p", "q"], [0.5, 0.5], low=[0.25, math.nan], high=[0.75, math.nan])]
    text = svg([Panel("t", "", "", series, kind="bars", y_limits=(0, 1))])
    bar = heights(filled(text, PALETTE[0])[0])[0]
    (way,) = [p.get("d", "") for p in parts(text, "path") if p.get("stroke") == "#555"]
    ((low, high),) = re.findall(r"M[-\d.]+ ([-\d.]+)V([-\d.]+)", way)
    assert float(low) - float(high) == pytest.approx(bar, abs=0.02)


def test_panels_without_values_say_so() -> None:
    for panel in (Panel("t", "", "", []), Panel("t", "", "", [Series("a", [], [])], kind="bars")):
        assert "nothing to show" in svg([panel])


@pytest.mark.parametrize("kind", ["lines", "bars", "stacked"])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-9, 1e9])
def test_a_single_value_can_be_drawn(kind: str, value: float) -> None:
    x: list[object] = ["p"] if kind != "lines" else [1.0]
    assert parts(svg([Panel("t", "x", "y", [Series("a", x, [value]), Series("b", x, [value])], kind=kind)]), "path")


@given(st.text(max_size=60))
def test_names_are_escaped(name: str) -> None:
    text = svg([Panel(name, name, name, [Series(name, [name], [1.0]), Series(name, [name], [2.0])], kind="bars")])
    assert {element.tag for element in ET.fromstring(text).iter()} <= {SPACE + tag for tag in ("svg", "path", "text")}


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    high = low + span
    if not high > low:
        return
    found = ticks(low, high)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-6 * span <= value <= high + 1e-6 * span for value in found)
    if len(found) > 1:
        step = found[1] - found[0]
        digits = step / 10 ** math.floor(math.log10(step) + 1e-6)
        assert min(abs(digits - whole) for whole in (1, 2, 5)) < 1e-3
