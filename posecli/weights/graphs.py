"""Networks kept as graphs (ONNX, or OpenVINO's IR): their files, and the header file beside them.

NAME.graph.json stands beside NAME.onnx, or beside NAME.xml and NAME.bin. It has "format", "kind" ("pose"), "config"
and "files": the SHA-256 of each graph file by its suffix.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from posecli.atomic import AtomicFile
from posecli.errors import DataError, MachineError, UsageError
from posecli.weights.archives import open_archive, read_member
from posecli.weights.header import Fields, shown

HEADER_SUFFIX = ".graph.json"
FORMAT = 1
# The files of a graph by their suffixes; OpenVINO reads the first.
KINDS = ((".onnx",), (".xml", ".bin"))
_FIRSTS = tuple(kind[0] for kind in KINDS)
# ONNX files are protobuf messages, which end at 2 GiB.
_LARGEST = 1 << 31
_LARGEST_HEADER = 10_000_000


def is_graph(path: Path) -> bool:
    """Whether the name is that of a graph or of its header file."""
    return path.name.lower().endswith((HEADER_SUFFIX, *_FIRSTS))


def holds_graph(source: Path) -> bool:
    """Whether this is a graph to import: by its suffix, a zip file's by its members'."""
    if source.suffix.lower() != ".zip":
        return source.suffix.lower() in _FIRSTS
    try:
        with source.open("rb") as file, open_archive(file, str(source)) as archive:
            return any(_is_first(name) for name in archive.namelist())
    except OSError as error:
        raise MachineError(f"{source}: cannot be read ({error.strerror})") from error


def header_file(path: Path) -> Path:
    """The header file of a graph, by the name of one of its files."""
    name = path.name
    suffix = next((end for end in (HEADER_SUFFIX, ".safetensors", *_FIRSTS) if name.lower().endswith(end)), "")
    return path.with_name(name[: len(name) - len(suffix)] + HEADER_SUFFIX)


def graph_file(header: Path, suffix: str) -> Path:
    """A graph's file beside its header file."""
    return header.with_name(header.name.removesuffix(HEADER_SUFFIX) + suffix)


def refuse(path: Path) -> UsageError:
    """The error where tensors are needed, as for training and export."""
    return UsageError(
        f"{path}: a graph, for --weights of run and eval; training and export need the checkpoint (.pth) "
        "that it was made from"
    )


def read_source(source: Path) -> dict[str, bytes]:
    """The bytes of a graph's files by suffix, from files or from a zip file.

    Raises MachineError where one cannot be read, DataError where the zip file is damaged, hostile or holds several.
    """
    try:
        if source.suffix.lower() == ".zip":
            with source.open("rb") as file:
                return _members(file.read(), source)
        first = source.suffix.lower()
        data = {first: source.read_bytes()}
        for suffix in _others(first):
            beside = source.with_suffix(suffix)
            if not beside.is_file():
                raise MachineError(f"{beside}: no such file; the graph's weights are in it, beside {source.name}")
            data[suffix] = beside.read_bytes()
    except OSError as error:
        raise MachineError(f"{source}: cannot be read ({error.strerror})") from error
    return data


def _members(data: bytes, source: Path) -> dict[str, bytes]:
    where = str(source)
    with open_archive(io.BytesIO(data), where) as archive:
        names = archive.namelist()
        firsts = [name for name in names if _is_first(name)]
        if len(firsts) != 1:
            raise DataError(
                f"{source}: a zip file of {len(firsts)} graphs ({shown(', '.join(firsts))}): unpack it and import one"
            )
        first = PurePosixPath(firsts[0])
        found = {first.suffix.lower(): read_member(archive, firsts[0], where, _LARGEST)}
        for suffix in _others(first.suffix.lower()):
            found[suffix] = read_member(archive, str(first.with_suffix(suffix)), where, _LARGEST)
    return found


def _is_first(name: str) -> bool:
    path = PurePosixPath(name)
    # macOS adds such members, which describe the others.
    return path.suffix.lower() in _FIRSTS and path.parts[0] != "__MACOSX" and not path.name.startswith("._")


def _others(first: str) -> tuple[str, ...]:
    return next(kind[1:] for kind in KINDS if kind[0] == first)


def save_graph(header_path: Path, files: Mapping[str, bytes], header: Mapping[str, Any]) -> None:
    """Write a graph's files, and its header file last. Raises MachineError where they cannot be written."""
    hashes = {suffix: hashlib.sha256(data).hexdigest() for suffix, data in files.items()}
    document = {"format": FORMAT, **header, "files": hashes}
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, indent=2) + "\n"
    written = []
    try:
        header_path.parent.mkdir(parents=True, exist_ok=True)
        for suffix, data in (*files.items(), (HEADER_SUFFIX, text.encode("utf-8", "backslashreplace"))):
            path = graph_file(header_path, suffix)
            with AtomicFile(path) as file:
                file.write(data)
            written.append(path)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise MachineError(f"{header_path}: cannot be written ({error.strerror})") from error


def read_header(path: Path) -> dict[str, Any]:
    """A graph's header file. Raises MachineError where it cannot be read, DataError where it is none."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_HEADER)
    except OSError as error:
        raise MachineError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not the header of a graph: no JSON") from error
    if not isinstance(header, dict):
        raise DataError(f"{path}: not the header of a graph, but {shown(header)}")
    found = header.get("format")
    if found != FORMAT or isinstance(found, bool):
        raise DataError(f"{path}: layout {shown(found)} is not layout {FORMAT}, which this posecli reads")
    return header


def checked_graph(path: Path, header: Mapping[str, Any]) -> Path:
    """The file that OpenVINO reads, after all files were compared with the header's SHA-256.

    path: of the header file. Raises MachineError where a file is missing, DataError where it is another one.
    """
    hashes = Fields.of(header.get("files"), f"{path}: files")
    kind = next((kind for kind in KINDS if set(kind) == set(hashes.values)), None)
    if kind is None:
        raise DataError(f"{path}: its files are {shown(list(hashes.values))}, not those of a graph")
    for suffix in kind:
        file = graph_file(path, suffix)
        try:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise MachineError(f"{file}: cannot be read ({error.strerror})") from error
        if digest != hashes.text(suffix):
            raise DataError(f"{file}: damaged, or not the file that {path.name} describes: import it again")
    return graph_file(path, kind[0])
