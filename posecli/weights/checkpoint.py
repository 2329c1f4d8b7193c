"""torch's checkpoints, of its zip format and of the one before it, read without running anything in them."""

import io
import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch

from posecli.errors import DataError, MachineError
from posecli.weights.archives import open_archive, read_member
from posecli.weights.header import shown
from posecli.weights.pickles import Storage, StoredTensor, read_pickle

# What the older format begins with, before the layout's version: torch/serialization.py, torch.save.
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# A pickle describes its tensors, whose values lie elsewhere.
_LARGEST_PICKLE = 1 << 30


@dataclass
class Checkpoint:
    """What a file holds, in plain containers with StoredTensor for tensors, and where its storages' bytes are."""

    path: Path
    contents: Any
    _read: Any

    def load(self, stored: StoredTensor) -> torch.Tensor:
        """A tensor's values. Raises DataError where they are cut off or damaged."""
        storage, item = stored.storage, stored.storage.dtype.itemsize
        if not stored.count:
            return torch.zeros(stored.shape, dtype=storage.dtype)
        data = self._read(storage)
        if len(data) < storage.count * item:
            raise DataError(f"{self.path}: cut off, a tensor of it has {len(data)} bytes of {storage.count * item}")
        values = torch.frombuffer(bytearray(data[: storage.count * item]), dtype=storage.dtype)
        return values.as_strided(stored.shape, stored.strides, stored.offset).clone()


@contextmanager
def open_checkpoint(path: Path) -> Iterator[Checkpoint]:
    """A file that torch.save wrote; its tensors can be loaded until the block ends.

    Raises MachineError where it is missing or cannot be read, DataError where it is something else.
    """
    try:
        file = path.open("rb")
        with file:
            if not file.read(1):
                raise DataError(f"{path}: an empty file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield _of_zip(path, file) if data[:4] == b"PK\x03\x04" else _of_pickles(path, data)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and "mmap" not in str(error):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise MachineError(f"{path}: cannot be read ({reason})") from error


def _of_zip(path: Path, data: IO[bytes]) -> Checkpoint:
    where = str(path)
    archive = open_archive(data, where)
    names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise DataError(f"{path}: a zip file, but not one of torch's checkpoints")
    folder = names[0].removesuffix("data.pkl")
    members = set(archive.namelist())
    if any(name.startswith(f"{folder}code/") for name in members):
        raise DataError(f"{path}: a TorchScript program, not a checkpoint: save the model's state_dict()")
    if f"{folder}byteorder" in members and read_member(archive, f"{folder}byteorder", where, 100) != b"little":
        raise DataError(f"{path}: written on a machine of another byte order")
    contents = read_pickle(io.BytesIO(read_member(archive, names[0], where, _LARGEST_PICKLE)), where)

    def read(storage: Storage) -> bytes:
        return read_member(archive, f"{folder}data/{storage.key}", where)

    return Checkpoint(path, contents, read)


def _of_pickles(path: Path, data: mmap.mmap) -> Checkpoint:
    """The older format: a magic number, a version, facts of the machine, the object, its storages one by one."""
    where = str(path)
    if data[:1] != b"\x80":
        raise DataError(f"{path}: {guess(data[:512])}")
    data.seek(0)
    file = cast(io.BytesIO, data)
    if read_pickle(file, where) != _MAGIC:
        raise DataError(f"{path}: a pickle, but not one of torch's checkpoints")
    if read_pickle(file, where) != _PROTOCOL:
        raise DataError(f"{path}: a layout of torch's checkpoints that is not known")
    facts = read_pickle(file, where)
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise DataError(f"{path}: written on a machine of another byte order")
    contents = read_pickle(file, where)
    keys = read_pickle(file, where)
    storages = {tensor.storage.key: tensor.storage for tensor in tensors_of(contents)}
    places = _places(path, data, keys, storages)

    def read(storage: Storage) -> bytes:
        if storage.key not in places:
            raise DataError(f"{path}: cut off, the values of a tensor are missing")
        start, length = places[storage.key]
        return data[start : start + length]

    return Checkpoint(path, contents, read)


def _places(path: Path, data: mmap.mmap, keys: Any, storages: Mapping[str, Storage]) -> dict[str, tuple[int, int]]:
    """Start and length in bytes of each storage: each is its number of values in 8 bytes, then the values."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise DataError(f"{path}: damaged, its list of tensors is none")
    places: dict[str, tuple[int, int]] = {}
    position = data.tell()
    for key in keys:
        storage = storages.get(key)
        if storage is None or key in places:
            raise DataError(f"{path}: damaged, its list of tensors is not that of its contents")
        (count,) = struct.unpack("<q", data[position : position + 8].ljust(8, b"\0"))
        length = storage.count * storage.dtype.itemsize
        if count != storage.count or position + 8 + length > len(data):
            raise DataError(f"{path}: cut off or damaged, {len(places)} of {len(keys)} tensors can be read")
        places[key] = (position + 8, length)
        position += 8 + length
    return places


def tensors_of(contents: Any) -> Iterator[StoredTensor]:
    """All tensors in nested containers and records, without recursion."""
    seen: set[int] = set()
    waiting = [contents]
    while waiting:
        value = waiting.pop()
        if isinstance(value, StoredTensor):
            yield value
            continue
        if isinstance(value, str | bytes | int | float | None) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        elif hasattr(value, "arguments"):
            waiting += [value.arguments, value.state]


# Where training frameworks keep the network's tensors; mmengine swaps its moving average into "state_dict" itself.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "module")


def state_dict(checkpoint: Checkpoint) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """The network's tensors by name, and the other plain values beside them (a training's meta).

    The names of a distributed training lose their "module.". Raises DataError where there is no dict of tensors.
    """
    found = checkpoint.contents
    beside: dict[str, Any] = {}
    for _ in range(3):
        if not isinstance(found, dict):
            break
        tensors = {name: value for name, value in found.items() if isinstance(value, StoredTensor)}
        key = next((key for key in _WRAPPERS if isinstance(found.get(key), dict)), None)
        if key is None:
            if tensors and all(isinstance(name, str) for name in tensors):
                return _unwrapped(tensors), beside
            break
        beside |= {name: value for name, value in found.items() if name != key and isinstance(name, str)}
        found = found[key]
    raise DataError(f"{checkpoint.path}: it holds {_what(found)}, not a model's tensors by name")


def _unwrapped(tensors: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    prefix = "module."
    if all(name.startswith(prefix) for name in tensors):
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _what(value: Any) -> str:
    if isinstance(value, StoredTensor):
        return "a single tensor"
    if isinstance(value, dict):
        return f"a dictionary of {len(value)} values"
    name = getattr(value, "name", None)
    return f"an object of class {shown(name)}" if isinstance(name, str) else f"a {type(value).__name__}"


def guess(start: bytes) -> str:
    """What a file that is no checkpoint may be, by its first bytes."""
    text = start.lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer: fetch the real file with `git lfs pull`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page, not weights: the address gave a page instead of the file"
    if start.startswith(b"\x1f\x8b"):
        return "a gzip file: unpack it first"
    if start[257:262] == b"ustar":
        return "a tar file, which torch has not written since 2017: save the state dict again"
    return "not a checkpoint of torch's: cut off, damaged or another format"
