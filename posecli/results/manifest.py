"""run.json: versions, options and models of a run, and the result of each input."""

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from posecli import __version__
from posecli.atomic import AtomicFile
from posecli.results.records import Summary

_PACKAGES = ("torch", "torchvision", "opencv-python", "av", "numpy", "openvino")
# Numbers of a summary of which the document has totals.
_COUNTED = ("frames", "people", "lost_frames")


@dataclass(frozen=True, slots=True)
class Finished:
    """An input that ended. skipped: it was finished by an earlier run, whose outputs are kept.

    place: path of its files relative to the output folder, see names.OutputPlaces; "" for its name.
    """

    name: str
    path: str
    kind: str
    summary: Summary
    skipped: bool = False
    place: str = ""


def versions() -> dict[str, str]:
    """Versions of posecli and of the packages that its results depend on."""
    found = {"posecli": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def manifest(inputs: Iterable[Finished], run: Mapping[str, Any]) -> dict[str, Any]:
    """The document of run.json but for its last entry, `inputs`, which write_manifest adds.

    run: entries about the run (options, models, device), copied unchanged.
    """
    status: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for item in inputs:
        status[_status(item)] += 1
        counts.update({name: getattr(item.summary, name) for name in _COUNTED})
    totals = {"inputs": status.total(), "status": dict(status), **{name: counts[name] for name in _COUNTED}}
    return {"schema": 1, "versions": versions(), **run, "totals": totals}


def write_manifest(out: Path, document: Mapping[str, Any], inputs: Iterable[Finished]) -> None:
    """Write out/run.json atomically, an input at a time. document: see manifest."""
    start, end = orjson.dumps({**document, "inputs": []}, option=orjson.OPT_INDENT_2), b"]\n}"
    separator = b"\n    "
    with AtomicFile(out / "run.json") as file:
        file.write(start.removesuffix(end))
        for item in inputs:
            # A line break within a text is written as \\n.
            row = orjson.dumps(_row(item), option=orjson.OPT_INDENT_2).replace(b"\n", b"\n    ")
            file.write(separator + row)
            separator = b",\n    "
        file.write((b"\n  " if separator.startswith(b",") else b"") + end + b"\n")


def lost_reasons(inputs: Iterable[Finished]) -> dict[str, int]:
    """Lost frames of all inputs by reason."""
    counts: Counter[str] = Counter()
    for item in inputs:
        counts.update(item.summary.lost)
    return dict(counts)


def _status(item: Finished) -> str:
    return "skipped" if item.skipped else item.summary.status


def _row(item: Finished) -> dict[str, Any]:
    return {
        "name": item.name,
        "path": item.path,
        "kind": item.kind,
        "status": _status(item),
        "ended": item.summary.status,
        "frames": item.summary.frames,
        "people": item.summary.people,
        "tracks": item.summary.tracks,
        "lost_frames": item.summary.lost_frames,
        "lost": dict(item.summary.lost),
        "seconds": item.summary.seconds,
        "error": item.summary.error,
        "outputs": list(item.summary.outputs),
        "warnings": list(item.summary.warnings),
    }


def read_options(out: Path) -> dict[str, Any]:
    """The options of the run, from its run.json, of which the inputs are not read; empty where there are none."""
    lines = []
    try:
        with (out / "run.json").open("rb") as file:
            for line in file:
                if line.startswith(b'  "inputs": ['):
                    break
                lines.append(line)
        options = orjson.loads(b"".join([*lines, b'"inputs": []}'])).get("options")
    except (OSError, orjson.JSONDecodeError):
        return {}
    return options if isinstance(options, dict) else {}
