"""Export of weights: converts, checks the file against torch, then renames it into place."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posecli import __version__
from posecli.atomic import remove, temporary
from posecli.errors import DataError, UsageError
from posecli.export.formats import FORMATS, INPUT, Format
from posecli.export.modules import Graph, fixed_pixels, load_graph
from posecli.runtime.openvino_package import openvino_package
from posecli.runtime.signals import signal_stack_kept
from posecli.weights.files import load_weights, sha256

# Largest difference from torch relative to an output's largest value, or to 1 where that is smaller.
TOLERANCE = 1e-3
# Difference from torch, in pixels, that nine tenths of the decoded values keep below: where two bins are equal but for
# rounding errors, or a distribution is flat, a decoded position may jump.
DECODED_TOLERANCE, DECODED_SHARE = 1e-2, 0.9
# Crops that a file is checked on.
CHECKED = 2


@dataclass(frozen=True)
class Exported:
    """An exported file. differences: output → difference from torch, on fixed pixels. shapes: of input and outputs."""

    files: tuple[Path, ...]
    differences: Mapping[str, float]
    shapes: Mapping[str, tuple[int, ...]]
    uint8: bool


def export_weights(
    weights: Path,
    target: Path,
    to: str,
    *,
    dynamic_batch: bool = False,
    uint8: bool = False,
    decode: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write a pose model or the person detector as a file of another program.

    weights: posecli's own file. to: of FORMATS. dynamic_batch: any number of crops instead of one. uint8: levels
    (N, H, W, 3) RGB instead of normalised float32 (N, 3, H, W) as input. decode: keypoints, scores and standard
    deviations instead of logits.

    Raises UsageError where the target exists, has another suffix or is the weights file; MachineError where a package
    is missing; DataError where the network cannot be converted, or the file's outputs differ from torch's.
    """
    form = FORMATS[to]
    _refuse(weights, target, form, to, overwrite)
    form.ready()
    _, header = load_weights(weights)
    graph = load_graph(weights, str(header.get("kind")), uint8=uint8, decode=decode)
    pixels = fixed_pixels(graph, CHECKED)
    with torch.no_grad():
        expected = dict(zip(graph.outputs, (tensor.numpy() for tensor in graph.module(pixels)), strict=True))
    metadata = _metadata(weights, header, graph)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = temporary(target)
    remove(folder)
    folder.mkdir()
    try:
        part = folder / f"model{form.suffix}"
        example = pixels if dynamic_batch else pixels[:1]
        try:
            form.write(graph, example, dynamic_batch, metadata, part)
        except DataError as error:
            raise DataError(f"{weights}: {error}") from error
        differences = _check(part, weights, graph, pixels, expected, dynamic_batch)
        for made, final in zip(form.files(part), form.files(target), strict=True):
            made.replace(final)
    finally:
        remove(folder)
    count = -1 if dynamic_batch else 1
    shapes = {INPUT: (count, *graph.item), **{name: (count, *v.shape[1:]) for name, v in expected.items()}}
    return Exported(tuple(form.files(target)), differences, shapes, uint8)


def _refuse(weights: Path, target: Path, form: Format, to: str, overwrite: bool) -> None:
    if target.suffix.lower() != form.suffix:
        raise UsageError(f"--out {target}: a file of --to {to} ends in {form.suffix}")
    for file in form.files(target):
        if file.exists() and file.samefile(weights):
            raise UsageError(f"--out {file}: would replace the weights themselves")
        if file.is_dir():
            raise UsageError(f"--out {file}: a folder")
        if (file.exists() or file.is_symlink()) and not overwrite:
            raise UsageError(f"--out {file}: there already; --overwrite replaces it")


def _metadata(weights: Path, header: Mapping[str, Any], graph: Graph) -> dict[str, Any]:
    """What stands in the file about it: one JSON document."""
    kind, height, width = header["kind"], *graph.size
    layout, dtype = ("NHWC", "uint8") if graph.uint8 else ("NCHW", "float32")
    normalised = "inside, by mean and std" if graph.uint8 else "(level - mean) / std, before"
    document = {
        "posecli": __version__,
        "kind": kind,
        "input": {"name": INPUT, "layout": layout, "dtype": dtype, "height": height, "width": width},
        "preprocessing": {**graph.preprocessing, "normalisation": normalised},
        "outputs": dict(graph.outputs),
        "config": header["config"],
        "licence": header.get("licence", "not given"),
        "source": header.get("source", "not given"),
        "weights": {"file": weights.name, "sha256": sha256(weights)},
    }
    if kind == "pose":
        document["keypoints"] = header["config"]["keypoints"]["names"]
    return document


@signal_stack_kept()
def _check(
    file: Path,
    weights: Path,
    graph: Graph,
    pixels: Tensor,
    expected: Mapping[str, NDArray[np.float32]],
    dynamic: bool,
) -> dict[str, float]:
    """Differences from torch of the file's outputs, computed by OpenVINO, which reads all formats."""
    openvino = openvino_package()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    try:
        compiled = openvino.Core().compile_model(str(file), "CPU", settings)
        batches = [pixels] if dynamic else [pixels[row : row + 1] for row in range(len(pixels))]
        answers = [compiled({INPUT: batch.numpy()}) for batch in batches]
    except RuntimeError as error:
        raise DataError(f"{weights}: the exported file does not run ({' '.join(str(error).split())[:200]})") from error
    differences = {}
    for name, truth in expected.items():
        found = np.concatenate([answer[name] for answer in answers])
        if found.shape != truth.shape or not np.isfinite(found).all():
            raise DataError(f"{weights}: the exported file's {name} has another shape than torch's, or is not finite")
        distance = np.abs(found - truth)
        if graph.decoded:
            limit, value = DECODED_TOLERANCE, np.quantile(distance, DECODED_SHARE)
        else:
            limit, value = TOLERANCE * max(1.0, float(np.abs(truth).max())), distance.max()
        differences[name] = float(value)
        if value > limit:
            raise DataError(
                f"{weights}: the exported file's {name} differs from torch's by {value:.2g}, more than {limit:.2g}: "
                "nothing was written"
            )
    return differences
