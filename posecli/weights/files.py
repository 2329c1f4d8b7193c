"""Weights files: safetensors whose header says what the tensors are. Nothing in them is executed.

The header is one JSON document under the safetensors metadata key "posecli". It always holds
"format" (the version of this layout) and "kind" ("pose" or "detector"); the rest belongs to the kind.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from posecli.errors import DataError, MachineError

FORMAT = 1
HEADER_KEY = "posecli"
EMBEDDED = ("pose", "person")


def save_weights(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and header, whole or not at all. The same content gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = json.dumps({"format": FORMAT, **header}, sort_keys=True, ensure_ascii=False)
    part = path.with_name(path.name + ".part")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    save_file(contiguous, part, metadata={HEADER_KEY: document})
    part.replace(path)


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of a file that save_weights wrote.

    Raises MachineError where the file is missing, DataError where it is not such a file.
    """
    if not path.is_file():
        raise MachineError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file ({_guess(path)}): {error}") from error
    if HEADER_KEY not in metadata:
        raise DataError(f"{path}: a safetensors file without posecli's header")
    header = json.loads(metadata[HEADER_KEY])
    if header.get("format") != FORMAT:
        raise DataError(f"{path}: layout {header.get('format')} is not layout {FORMAT}, which this posecli reads")
    return tensors, header


def find_weights(name: str) -> Path:
    """The file that a name or path means.

    In this order: a path with a suffix or a separator; NAME.safetensors in $POSECLI_WEIGHTS_DIR; the
    embedded weights of this installation. Raises MachineError where none is there.
    """
    if name.endswith(".safetensors") or os.sep in name:
        path = Path(name).expanduser()
        if not path.is_file():
            raise MachineError(f"{path}: no such weights file")
        return path
    for folder in _folders():
        path = folder / f"{name}.safetensors"
        if path.is_file():
            return path
    places = " or ".join(str(folder) for folder in _folders())
    raise MachineError(f"weights {name!r}: put {name}.safetensors into {places}, or give a path")


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folders() -> Iterator[Path]:
    if folder := os.environ.get("POSECLI_WEIGHTS_DIR"):
        yield Path(folder).expanduser()
    installed = Path(str(resources.files("posecli"))) / "_weights"
    # An editable installation has no copy inside the package: the repository's own folder serves.
    yield installed if installed.is_dir() else installed.parents[1] / "weights"


def _guess(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return "empty file"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: fetch the real file with `git lfs pull`"
    if start.startswith((b"PK", b"\x80")):
        return "a PyTorch pickle: convert it with `posecli weights import`"
    return "damaged or another format"
