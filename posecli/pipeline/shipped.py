"""Models of a run as a value that a worker on another machine can load, with the files that it may not have."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from posecli.pipeline.models import ModelOptions
from posecli.pose.pull import find_or_pull
from posecli.runtime.cache import cache_folder
from posecli.weights.files import EMBEDDED, is_known
from posecli.weights.graphs import HEADER_SUFFIX, KINDS, graph_file, is_graph

# Sets of files that are kept on a machine.
_KEPT = 8
_BOXES = "boxes:"


@dataclass(frozen=True)
class Shipped:
    """Options of models whose files are given by name. files: name → content."""

    models: ModelOptions
    files: Mapping[str, bytes] = field(default_factory=dict)


def pack(models: ModelOptions) -> Shipped:
    """Read the files that the models are made of, but for embedded weights, which every installation has.

    Raises what find_weights raises, OSError.
    """
    files: dict[str, bytes] = {}
    path = find_or_pull(models.weights)
    if not _is_embedded(models.weights, path):
        models = replace(models, weights=_add(files, "weights", path))
    if models.detector_weights is not None:
        models = replace(models, detector_weights=_add(files, "detector", Path(models.detector_weights)))
    if models.detector.startswith(_BOXES):
        boxes = _add(files, "boxes", Path(models.detector.removeprefix(_BOXES)))
        models = replace(models, detector=_BOXES + boxes)
    return Shipped(models, files)


def unpack(shipped: Shipped) -> ModelOptions:
    """Write the files into the cache folder, once for all workers of a machine; options that name them there.

    Raises OSError.
    """
    if not shipped.files:
        return shipped.models
    folder = cache_folder() / f"shipped-{_digest(shipped.files)}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
        try:
            for name, data in shipped.files.items():
                (part / name).parent.mkdir(exist_ok=True)
                (part / name).write_bytes(data)
            with suppress(OSError):  # another worker was first
                part.rename(folder)
            if not folder.is_dir():
                raise OSError(f"{folder}: cannot be made")
        finally:
            shutil.rmtree(part, ignore_errors=True)
        _remove_old(folder)
    os.utime(folder)
    models = shipped.models

    def here(name: str) -> str:
        return str(folder / name) if name in shipped.files else name

    boxes = models.detector.removeprefix(_BOXES)
    return replace(
        models,
        weights=here(models.weights),
        detector_weights=None if models.detector_weights is None else here(models.detector_weights),
        detector=_BOXES + here(boxes) if models.detector.startswith(_BOXES) else models.detector,
    )


def _is_embedded(name: str, path: Path) -> bool:
    return is_known(name) and name in EMBEDDED and not os.environ.get("POSECLI_WEIGHTS_DIR")


def _add(files: dict[str, bytes], folder: str, path: Path) -> str:
    """Read a file, with those that belong to it; its name among the files."""
    paths = [path]
    if is_graph(path) and path.name.endswith(HEADER_SUFFIX):
        paths += [found for kind in KINDS for suffix in kind if (found := graph_file(path, suffix)).is_file()]
    for each in paths:
        files[f"{folder}/{each.name}"] = each.read_bytes()
    return f"{folder}/{path.name}"


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    return digest.hexdigest()


def _remove_old(newest: Path) -> None:
    """Remove the sets that were not used for the longest time."""
    with suppress(OSError):
        found = [path for path in newest.parent.glob("shipped-*") if path != newest]
        found.sort(key=lambda path: path.stat().st_mtime)
        for path in found[: 1 - _KEPT]:
            shutil.rmtree(path, ignore_errors=True)
