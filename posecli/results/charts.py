"""Charts in one style: what they show, and PNG files of them by matplotlib."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posecli.atomic import AtomicFile
from posecli.results.html import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind people can distinguish.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#b8a800")

# Longer names are shortened.
NAME_LETTERS = 40

# Labels of more letters in sum are rotated.
FLAT_LETTERS = 66

_STYLE: dict[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8884",
    "axes.axisbelow": True,
    "axes.edgecolor": "#777",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelcolor": "#444",
    "xtick.color": "#555",
    "ytick.color": "#555",
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    # Names of users' files may have dollar signs, which are no formulas.
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Series:
    """One line or one group of bars. low, high: an interval around y, drawn as a band or whiskers."""

    label: str
    x: Sequence[Any]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One chart. kind: "lines", "bars" (side by side) or "stacked"."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    kind: str = "lines"
    y_limits: tuple[float, float] | None = None
    x_limits: tuple[float, float] | None = None


def png(path: Path, panels: Sequence[Panel], columns: int = 1, width: float = 7.0, height: float = 3.2) -> None:
    """The panels as a PNG file."""
    with _figure(panels, columns, width, height) as figure, AtomicFile(path) as file:
        figure.savefig(file, format="png", dpi=120)


@contextmanager
def _figure(panels: Sequence[Panel], columns: int, width: float, height: float) -> "Iterator[Figure]":
    import matplotlib
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    # Letters that matplotlib's font lacks are boxes in the picture: no warning is needed.
    with warnings.catch_warnings(), matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")  # very long names
        # Without pyplot: no global state, no display.
        figure = Figure(figsize=(width, height * rows))
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for place, panel in zip(places, panels, strict=False):
            _draw(place, panel)
        for place in places[len(panels) :]:
            place.set_visible(False)
        yield figure


def _draw(axes: Any, panel: Panel) -> None:
    axes.set_title(shortened(panel.title))
    axes.set_xlabel(shortened(panel.x_label))
    axes.set_ylabel(shortened(panel.y_label))
    if not any(len(series.x) for series in panel.series):
        axes.text(0.5, 0.5, "nothing to show", ha="center", va="center", transform=axes.transAxes, color="#777")
        return
    if panel.kind == "lines":
        _draw_lines(axes, panel)
    else:
        _draw_bars(axes, panel)
    if panel.y_limits:
        axes.set_ylim(*panel.y_limits)
    if panel.x_limits:
        axes.set_xlim(*panel.x_limits)
    if len(panel.series) > 1:
        # The limits of panels with stacked bars leave space for the legend above the bars.
        axes.legend(fontsize=8.5, ncols=len(panel.series) if panel.kind == "stacked" else 1)


def _draw_lines(axes: Any, panel: Panel) -> None:
    for series, colour in zip(panel.series, colours(len(panel.series)), strict=True):
        marker = "o" if len(series.x) < 15 else None
        style = "--" if series.dashed else "-"
        axes.plot(series.x, series.y, style, color=colour, label=shortened(series.label), marker=marker, ms=3.5, lw=1.6)
        if series.low is not None and series.high is not None:
            axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.15, lw=0)


def _draw_bars(axes: Any, panel: Panel) -> None:
    names = [shortened(name) for name in panel.series[0].x]
    count = len(panel.series)
    below = [0.0] * len(names)
    for number, (series, colour) in enumerate(zip(panel.series, colours(count), strict=True)):
        if panel.kind == "stacked":
            axes.bar(range(len(names)), series.y, 0.75, bottom=below, color=colour, label=shortened(series.label))
            below = [a + b for a, b in zip(below, series.y, strict=True)]
            continue
        width = 0.8 / count
        places = [i - 0.4 + width * (number + 0.5) for i in range(len(names))]
        whiskers = None
        if series.low is not None and series.high is not None:
            whiskers = [
                [max(0.0, y - low) for y, low in zip(series.y, series.low, strict=True)],
                [max(0.0, high - y) for y, high in zip(series.y, series.high, strict=True)],
            ]
        axes.bar(
            places,
            series.y,
            width,
            color=colour,
            label=shortened(series.label),
            yerr=whiskers,
            error_kw={"lw": 1, "ecolor": "#555"},
        )
    longest = max((len(line) for name in names for line in name.split("\n")), default=0)
    if len(names) * longest <= FLAT_LETTERS:
        axes.set_xticks(range(len(names)), names, ha="center")
    else:
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.grid(False, axis="x")


def shortened(value: object) -> str:
    """Each line of a name, shortened."""
    lines = printable(value).split("\n")
    return "\n".join(line if len(line) <= NAME_LETTERS else f"{line[: NAME_LETTERS - 1]}…" for line in lines)


def colours(count: int) -> list[str]:
    """Colours of so many series."""
    return [PALETTE[i % len(PALETTE)] for i in range(count)]
