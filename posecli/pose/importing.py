"""`posecli weights import`: a foreign file of tensors as posecli's weights."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from posecli.errors import DataError, MachineError, UsageError
from posecli.pose.config import PoseConfig
from posecli.pose.foreign import Given, read_layout
from posecli.weights.checkpoint import guess, open_checkpoint, state_dict
from posecli.weights.files import HEADER_KEY, save_weights, sha256
from posecli.weights.header import shown

# Tensors may share bytes of a file, but not so often that a small file fills the memory.
_MOST_SHARING = 4


@dataclass(frozen=True)
class Opened:
    """A file of tensors: shapes by name, their size in bytes altogether, what stands beside them, how one is read."""

    shapes: Mapping[str, tuple[int, ...]]
    size: int
    meta: Mapping[str, Any]
    load: Callable[[str], torch.Tensor]


def import_weights(
    source: Path, target: Path, given: Given, *, origin: str | None = None, licence: str | None = None
) -> PoseConfig:
    """Write a foreign checkpoint as posecli's weights, and give its configuration.

    source: a checkpoint of torch's (a state dict, or a training's) or a safetensors file. origin, licence: what the
    header says of them. Raises MachineError where the source cannot be read, DataError where it is no SimCC model that
    is known here, UsageError where the target exists.
    """
    if target.exists():
        raise UsageError(f"{target}: there already; remove it or choose another name")
    with _open(source) as opened:
        if opened.size > _MOST_SHARING * source.stat().st_size + 1_000_000:
            raise DataError(f"{source}: its tensors would be {opened.size} bytes, far more than the file")
        layout = read_layout(source, opened.shapes, opened.meta, given)
        state = layout.state(source, {name: opened.load(name) for name in layout.names.values()})
    header = {
        "kind": "pose",
        "config": layout.config.to_json(),
        "source": origin or source.name,
        "licence": licence or "not given",
        "imported": {"file": source.name, "sha256": sha256(source), **_facts(opened.meta)},
    }
    try:
        save_weights(target, state, header)
    except OSError as error:
        raise MachineError(f"{target}: cannot be written ({error.strerror})") from error
    return layout.config


@contextmanager
def _open(path: Path) -> Iterator[Opened]:
    if path.suffix.lower() != ".safetensors":
        with open_checkpoint(path) as checkpoint:
            tensors, beside = state_dict(checkpoint)
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            size = sum(tensor.count * tensor.storage.dtype.itemsize for tensor in tensors.values())
            meta = beside.get("meta")
            yield Opened(
                shapes, size, meta if isinstance(meta, dict) else {}, lambda name: checkpoint.load(tensors[name])
            )
        return
    if not path.is_file():
        raise MachineError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            if HEADER_KEY in (file.metadata() or {}):
                raise UsageError(f"{path}: posecli's own weights already: give them by --weights")
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            yield Opened(shapes, 0, {}, file.get_tensor)
    except (SafetensorError, OSError) as error:
        with path.open("rb") as raw:
            start = raw.read(512)
        reason = guess(start) if start else "an empty file"
        raise DataError(f"{path}: {reason.replace('a checkpoint of torch', 'a safetensors file')}") from error


def _facts(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a training's meta says that is short and plain."""
    kept = ("epoch", "iter", "time", "mmengine_version", "mmcv_version", "mmpose_version", "experiment_name")
    values = {key: meta[key] for key in kept if isinstance(meta.get(key), int | str)}
    return {key: value if isinstance(value, int) else shown(value, 100).strip("'") for key, value in values.items()}
