"""Weights files: safetensors with a header that describes the model. Nothing in them is executed.

The header is one JSON document under the safetensors metadata key "posecli". It always has "format" (the version of
this layout) and "kind" ("pose" or "detector"); the other keys depend on the kind.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError

from posecli.errors import DataError, MachineError, UsageError
from posecli.weights.graphs import HEADER_SUFFIX, header_file, is_graph, refuse
from posecli.weights.header import Fields, shown
from posecli.weights.old_names import current_config, current_tensors

if TYPE_CHECKING:
    import torch

Config = TypeVar("Config")
FORMAT = 1
HEADER_KEY = "posecli"
EMBEDDED = ("pose", "pose-fast", "person")


def save_weights(path: Path, tensors: "Mapping[str, torch.Tensor]", header: Mapping[str, Any]) -> None:
    """Write tensors and header atomically. The same content gives the same bytes."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    document = json.dumps({"format": FORMAT, **header}, sort_keys=True, ensure_ascii=False)
    part = path.with_name(path.name + ".part")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    save_file(contiguous, part, metadata={HEADER_KEY: document})
    part.replace(path)


def read_header(path: Path) -> dict[str, Any]:
    """posecli's header of a weights file, old names of its configuration converted. torch is not imported.

    Raises what load_weights raises; the tensors are not read.
    """
    return _read(path, with_tensors=False)[0]


def load_weights(path: Path) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
    """Tensors and header of a file that save_weights wrote; old names of pose models are converted (old_names.py).

    Raises MachineError where the file is missing or cannot be read, DataError where it is not a weights file,
    UsageError where it is a graph.
    """
    from safetensors.torch import load

    header, data = _read(path, with_tensors=True)
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise DataError(f"{path}: damaged ({_one_line(error)}); its header is there, its tensors are not") from error
    return (current_tensors(tensors) if header.get("kind") == "pose" else tensors), header


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, Any], bytes]:
    """The header, and the whole file or b""."""
    if is_graph(path):
        raise refuse(path)
    if not _is_file(path):
        raise MachineError(_no_file(path))
    try:
        with path.open("rb") as file:
            # The rest is read only if there is posecli's header: any other file may be very large.
            start, described = _describe(file.read(8), file.read, path)
            header = _header(described, path)
            data = start + file.read() if with_tensors else b""
    except OSError as error:
        raise MachineError(f"{path}: cannot be read ({error.strerror})") from error
    if header.get("kind") == "pose" and isinstance(header.get("config"), dict):
        header["config"] = current_config(header["config"])
    return header, data


def read_config(path: Path, header: Mapping[str, Any], kind: str) -> Any:
    """The header's "config" of a model of this kind. Raises DataError for another kind or none."""
    found = header.get("kind")
    if found != kind:
        article = "a pose model" if kind == "pose" else f"a {kind}"
        raise DataError(f"{path}: weights of {shown(found) if found else 'a model without a kind'}, not of {article}")
    return Fields.of(header.get("config"), f"{path}: the header's config").values


def parsed_config(
    path: Path, header: Mapping[str, Any], kind: str, parse: Callable[[Mapping[str, Any]], Config]
) -> Config:
    """The header's "config" of a model of this kind, parsed; the path is put before what parse raises.

    Raises DataError for another kind, or where parse does.
    """
    values = read_config(path, header, kind)
    try:
        return parse(values)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def fitting(
    path: Path, tensors: "Mapping[str, torch.Tensor]", expected: "Mapping[str, torch.Tensor]"
) -> "dict[str, torch.Tensor]":
    """The tensors in the dtypes of the expected ones (float16 to float32, for example).

    expected: the model's tensors, of which only shapes and dtypes are used; they may be on torch's device "meta", so
    that a file is checked before its model is allocated. Raises DataError where a tensor is missing, unexpected, of
    another shape or kind, or has values that are not finite.
    """
    for what, names in (("lacks", expected.keys() - tensors.keys()), ("also holds", tensors.keys() - expected.keys())):
        if names:
            first = shown(min(names))
            raise DataError(
                f"{path}: its tensors do not fit its own configuration: it {what} {len(names)} tensors, first {first}"
            )
    result = {}
    for name, model in expected.items():
        tensor = tensors[name]
        if tensor.shape != model.shape:
            mismatch = f"{name} is {_size(tensor)}, the model needs {_size(model)}"
            raise DataError(f"{path}: its tensors do not fit its own configuration: {mismatch}")
        if tensor.is_floating_point() != model.is_floating_point() or tensor.is_complex():
            raise DataError(f"{path}: {name} is {_dtype(tensor)}, the model needs {_dtype(model)}")
        result[name] = tensor.to(model.dtype)
        if not bounded(result[name]):
            raise DataError(f"{path}: damaged, {name} holds values that are not finite, or beyond all sense")
    return result


def bounded(tensor: "torch.Tensor") -> bool:
    """Whether all values are finite and of a plausible size: a flipped bit can turn 0.01 into 1e36."""
    return not tensor.is_floating_point() or bool((tensor.abs() < 1e15).all())


def find_weights(name: str) -> Path:
    """The weights file of a name or path, or the header file of a graph.

    In this order: a path with a suffix or a separator; NAME.safetensors or NAME.graph.json in $POSECLI_WEIGHTS_DIR; the
    embedded weights of this installation; a file of that name. Raises MachineError where none exists, UsageError where
    it is a graph that was not imported.
    """
    if name.endswith(".safetensors") or is_graph(Path(name)) or os.sep in name:
        path = _expanded(name)
        if not _is_file(path):
            raise MachineError(_no_file(path))
        if not is_graph(path):
            return path
        if not _is_file(header_file(path)):
            raise UsageError(f"{path}: a graph that was not imported: posecli weights import {path.name}")
        return header_file(path)
    for path in _named(name):
        if _is_file(path):
            return path
    if _is_file(Path(name)):
        return Path(name)
    places = " or ".join(str(folder) for folder in _folders())
    raise MachineError(f"weights {name!r}: put {name}.safetensors into {places}, or give a path")


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_known(name: str | None) -> bool:
    """Whether this is a name, not a path, of embedded, imported or fetched weights."""
    if not name or os.sep in name or name.endswith(".safetensors") or is_graph(Path(name)):
        return False
    return name in EMBEDDED or any(_is_file(path) for path in _named(name))


def user_folder() -> Path:
    """Where imported and fetched weights are kept: $POSECLI_WEIGHTS_DIR, else in the user's data folder."""
    if folder := os.environ.get("POSECLI_WEIGHTS_DIR"):
        return _expanded(folder)
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "posecli" / "weights"


def named_file(name: str) -> Path:
    """Where weights of this name are kept. Raises UsageError where it is no plain name, or one of the embedded."""
    if name in EMBEDDED or name != Path(name).name or name.startswith(".") or not name.isprintable():
        raise UsageError(f"name {shown(name)}: give a plain name, other than the embedded {', '.join(EMBEDDED)}")
    return user_folder() / f"{name}.safetensors"


def _named(name: str) -> Iterator[Path]:
    for folder in _folders():
        yield folder / f"{name}.safetensors"
        yield folder / f"{name}{HEADER_SUFFIX}"


def _folders() -> Iterator[Path]:
    if os.environ.get("POSECLI_WEIGHTS_DIR"):
        yield user_folder()
    installed = Path(str(resources.files("posecli"))) / "_weights"
    # An editable installation has no copy inside the package: the repository's own folder serves.
    yield installed if installed.is_dir() else installed.parents[1] / "weights"
    if not os.environ.get("POSECLI_WEIGHTS_DIR"):
        yield user_folder()


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # "~name" of an unknown user
        return Path(name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder without permission
        return False


def _no_file(path: Path) -> str:
    try:
        path.stat()
    except FileNotFoundError:
        return f"{path}: no such weights file"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    return f"{path}: {'a folder' if path.is_dir() else 'a pipe or device'}, not a weights file"


def _describe(length: bytes, read: Any, path: Path) -> tuple[bytes, dict[str, Any]]:
    """The first bytes of a safetensors file (length and header), and the header's JSON.

    read: number of bytes → the next bytes of the file, fewer at its end.
    """
    size = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
    # safetensors allows headers up to 100 MB.
    text = read(size) if 0 < size <= 100_000_000 else b""
    described = None
    if len(text) == size > 0:
        try:
            described = json.loads(text)
        except (ValueError, RecursionError):
            described = None
    if not isinstance(described, dict):
        reason = _guess(length + text + (read(64) if not text else b""))
        raise DataError(f"{path}: not a safetensors file ({reason})")
    return length + text, described


def _header(described: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """posecli's document in the metadata."""
    metadata = described.get("__metadata__")
    document = metadata.get(HEADER_KEY) if isinstance(metadata, dict) else None
    if not isinstance(document, str):
        raise DataError(f"{path}: a safetensors file without posecli's header")
    try:
        header = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: posecli's header in it is not JSON ({_one_line(error)})") from error
    if not isinstance(header, dict):
        raise DataError(f"{path}: posecli's header in it is {shown(header)}, not an object")
    found = header.get("format")
    if found != FORMAT or isinstance(found, bool):
        raise DataError(f"{path}: layout {shown(found)} is not layout {FORMAT}, which this posecli reads")
    return header


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.encode("utf-8", "backslashreplace").decode()[:150]


def _size(tensor: "torch.Tensor") -> str:
    return "×".join(map(str, tensor.shape)) or "a single value"


def _dtype(tensor: "torch.Tensor") -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _guess(start: bytes) -> str:
    if not start:
        return "empty file"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: fetch the real file with `git lfs pull`"
    if start.startswith((b"PK", b"\x80")):
        return "a PyTorch pickle: `posecli weights import` reads it without running anything in it"
    return "cut off, damaged or another format"
