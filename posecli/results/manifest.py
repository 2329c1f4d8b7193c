"""run.json: versions, options and models of a run, and the result of each input."""

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from posecli import __version__
from posecli.atomic import AtomicFile
from posecli.results.records import Summary

_PACKAGES = ("torch", "torchvision", "opencv-python", "av", "numpy", "openvino")


@dataclass(frozen=True)
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


def manifest(inputs: Sequence[Finished], run: Mapping[str, Any]) -> dict[str, Any]:
    """The document of run.json. run: entries about the run (options, models, device), copied unchanged."""
    rows = [
        {
            "name": item.name,
            "path": item.path,
            "kind": item.kind,
            "status": "skipped" if item.skipped else item.summary.status,
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
        for item in inputs
    ]
    totals = {
        "inputs": len(inputs),
        "status": dict(Counter(row["status"] for row in rows)),
        "frames": sum(item.summary.frames for item in inputs),
        "people": sum(item.summary.people for item in inputs),
        "lost_frames": sum(item.summary.lost_frames for item in inputs),
    }
    return {"schema": 1, "versions": versions(), **run, "totals": totals, "inputs": rows}


def write_manifest(out: Path, document: Mapping[str, Any]) -> None:
    """Write out/run.json atomically."""
    with AtomicFile(out / "run.json") as file:
        file.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
