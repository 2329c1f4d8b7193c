"""The best weights of a run, in files named by validation AP and samples: best-0.6412-48000.safetensors.

They depend on evaluations.csv only, so that a resumed run keeps the same files as an uninterrupted one.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_NAME = re.compile(r"best-\d\.\d{4}-\d+\.safetensors")


def numbered_name(evaluation: Mapping[str, Any]) -> str:
    """The file name of the weights of an evaluation, a row of evaluations.csv."""
    return f"best-{float(evaluation['AP']):.4f}-{int(evaluation['samples'])}.safetensors"


def best_names(evaluations: Iterable[Mapping[str, Any]], count: int) -> list[str]:
    """File names of the count best evaluations, best first, of equal ones the earlier first; none for a count of 1.

    A single best one has no number: it is best.safetensors.
    """
    if count == 1:
        return []
    # Without people to score AP is -1 or NaN.
    scored = [row for row in evaluations if float(row["AP"]) >= 0]
    scored.sort(key=lambda row: (-float(row["AP"]), int(row["samples"])))
    return [numbered_name(row) for row in scored[:count]]


def read_evaluations(path: Path) -> list[dict[str, str]]:
    """The rows of evaluations.csv; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbered_files(folder: Path) -> list[Path]:
    """The numbered files in a run's folder."""
    return sorted(path for path in folder.glob("best-*.safetensors") if _NAME.fullmatch(path.name))


def remove_others(folder: Path, names: Iterable[str]) -> None:
    """Delete the numbered files that are not among the names."""
    kept = set(names)
    for path in numbered_files(folder):
        if path.name not in kept:
            path.unlink(missing_ok=True)
