"""Tables of evaluations for the terminal, and as Markdown."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from posecli.evaluate.evaluation import Evaluation
from posecli.results.html import printable

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = ("AP50", "AP75", "APm", "APl", "AR")


def figures_table(evaluations: Sequence[Evaluation]) -> "Table":
    """COCO's figures with their intervals: a column a model, or a row each where there are more than three."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("")
    if len(evaluations) > 3:
        for name in ("AP", *SHOWN):
            table.add_column(name, justify="right")
        for evaluation in evaluations:
            cells = [_with_interval(evaluation, "AP"), *(f"{evaluation.scores.values[name]:.3f}" for name in SHOWN)]
            table.add_row(Text(printable(evaluation.name)), *cells)
        return table
    for evaluation in evaluations:
        table.add_column(Text(printable(evaluation.name)), justify="right")
    for name in evaluations[0].scores.values:
        table.add_row(name, *(_with_interval(evaluation, name) for evaluation in evaluations))
    return table


def keypoint_table(evaluation: Evaluation) -> "Table":
    """OKS, error and error types by keypoint."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Keypoints of matched people", title_justify="left")
    types = ("jitter", "inversion", "swap", "miss")
    for column in ("keypoint", "labelled", "OKS", "PCK@0.05", "PCK@0.1", "median px", *types):
        table.add_column(column, justify="left" if column == "keypoint" else "right", no_wrap=True)
    for joint in evaluation.keypoints:
        if joint["count"]:
            table.add_row(
                Text(printable(joint["keypoint"])),
                str(joint["count"]),
                *(f"{joint[key]:.3f}" for key in ("oks", "pck_05", "pck_10")),
                f"{joint['median_error_px']:.1f} px",
                *(f"{joint[name]:.1%}" for name in types),
            )
    return table


def comparison_markdown(
    evaluations: Sequence[Evaluation], differences: Sequence[Mapping[str, Any]], command: str
) -> str:
    """comparison.md: the figures of all, their paired differences to the first, and the command that made them."""
    first = evaluations[0]
    # A fence longer than any run of backticks in the command.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    lines = [
        f"{first.scores.people} people in {first.scores.images} images. In brackets the 95 % interval over "
        f"{len(first.resamples['AP'])} resamplings of the images; differences are paired, on the same resamplings.",
        "",
        fence,
        printable(command),
        fence,
        "",
    ]
    head = ["", "AP", *SHOWN, "AP difference", "to"]
    lines += [_row(head), _row(["---", *["---:"] * (len(head) - 2), "---"])]
    for evaluation, row in zip(evaluations, [None, *differences], strict=True):
        values = evaluation.scores.values
        mark = " *" if evaluation.metadata.get("resampled_to_this_size") else ""
        gap = "" if row is None else "{value:+.4f} ({low:+.4f} to {high:+.4f})".format(**row["AP"])
        against = "" if row is None else _cell(row["against"])
        cells = [_with_interval(evaluation, "AP", brackets=True), *(f"{values[name]:.3f}" for name in SHOWN)]
        lines.append(_row([f"{_cell(evaluation.name)}{mark}", *cells, gap, against]))
    if any(evaluation.metadata.get("resampled_to_this_size") for evaluation in evaluations):
        lines += ["", "\\* The classifiers are resampled to this input size; the model was trained for another."]
    return "\n".join([*lines, *(f"\n{_cell(remark)}" for remark in first.scores.remarks), ""])


def _cell(value: str) -> str:
    """External text in a Markdown table: one line, with HTML, mark-up and column separators escaped."""
    line = " ".join(printable(value).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|!])", r"\\\1", line)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _with_interval(evaluation: Evaluation, name: str, *, brackets: bool = False) -> str:
    text = f"{evaluation.scores.values[name]:.3f}"
    low, high = evaluation.intervals.get(name, (math.nan, math.nan))
    if not math.isfinite(low):
        return text if brackets else text + " " * 13
    return f"{text} ({low:.3f}–{high:.3f})" if brackets else f"{text}  {low:.3f}–{high:.3f}"
