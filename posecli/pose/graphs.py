"""Pose networks that are kept as graphs: imported with a header file beside them, and run in OpenVINO."""

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posecli.errors import DataError, UsageError
from posecli.pose.config import LARGEST_SIDE, PoseConfig, read_pose_config
from posecli.pose.outputs import Outputs
from posecli.pose.runner import Runner
from posecli.runtime import is_gpu, resolve_device
from posecli.runtime.graph import compile_graph, fix_size, metadata_of, names_of, read_graph, sizes_of
from posecli.runtime.precision import resolve_precision
from posecli.weights.files import sha256
from posecli.weights.graphs import (
    HEADER_SUFFIX,
    checked_graph,
    graph_file,
    header_file,
    read_header,
    read_source,
    save_graph,
)
from posecli.weights.header import Fields, shown

if TYPE_CHECKING:
    from posecli.pose.foreign import Given

# What mmdeploy and rtmlib call the two outputs.
_NAMES = ("simcc_x", "simcc_y")
# An entry of ONNX's external_data: protobuf's fields 1 and 2, texts, of which the first is "location".
_ELSEWHERE = b"\x0a\x08location\x12"


@dataclass(frozen=True)
class Axis:
    """An output of a graph: its number among the outputs, its keypoints and its bins."""

    number: int
    keypoints: int
    bins: int


def import_graph(
    source: Path, target: Path, given: "Given", *, origin: str | None = None, licence: str | None = None
) -> tuple[Path, PoseConfig]:
    """Keep an ONNX or OpenVINO graph, or that of a zip file; gives its header file and its configuration.

    target: its name decides those of the files, its suffix does not. origin, licence: what the header says of them.
    Raises MachineError where a file cannot be read, DataError where the graph is damaged or no SimCC model, UsageError
    where the target exists.
    """
    header_path = header_file(target)
    files = read_source(source)
    for suffix in (HEADER_SUFFIX, ".safetensors", *files):
        there = graph_file(header_path, suffix)
        if there.exists():
            raise UsageError(f"{there}: there already; remove it or choose another name")
    first = next(iter(files))
    if not files[first]:
        raise DataError(f"{source}: an empty file")
    if _ELSEWHERE in files.get(".onnx", b""):
        raise DataError(f"{source}: its weights are in another file (external data): save it as one file")
    with tempfile.TemporaryDirectory(prefix="posecli-", ignore_cleanup_errors=True) as folder:
        for suffix, data in files.items():
            (Path(folder) / f"graph{suffix}").write_bytes(data)
        try:
            graph = read_graph(Path(folder) / f"graph{first}", str(source))
        except DataError as error:
            raise _explained(error, source, files[first]) from error
        config = _config(graph, source, given)
        runner = _runner(graph, config, source)
    black = np.zeros((1, *config.input_size, 3), np.uint8)
    if not all(np.isfinite(logits).all() for logits in runner(black).logits):
        raise DataError(f"{source}: damaged, the graph answers with values that are not finite")
    header = {
        "kind": "pose",
        "config": config.to_json(),
        "source": origin or source.name,
        "licence": licence or "not given",
        "imported": {"file": source.name, "sha256": sha256(source)},
    }
    save_graph(header_path, files, header)
    return header_path, config


def load_graph(
    path: Path, device: str = "auto", runtime: str = "auto", precision: str = "fp32"
) -> tuple[Runner, PoseConfig]:
    """The graph of a header file, ready to run.

    Raises UsageError for another device than the CPU or another runtime than OpenVINO, MachineError where a file is
    missing, DataError where the header is invalid or the graph is not the one that it describes.
    """
    if runtime not in ("auto", "openvino"):
        raise UsageError(f"--runtime {runtime}: {path.name} is a graph, which only OpenVINO runs")
    if device != "auto" and is_gpu(resolve_device(device)):
        raise UsageError(f"--device {device}: {path.name} is a graph, which runs on the CPU only")
    # Its accuracy in bfloat16 was not measured: only on request.
    computed = resolve_precision(precision, "cpu", bfloat16_measured=False)
    header = read_header(path)
    config = read_pose_config(path, header)
    file = checked_graph(path, header)
    graph = read_graph(file, str(file))
    _fix_input(graph, file, config.input_size)
    return _runner(graph, config, file, computed), config


def _runner(graph: Any, config: PoseConfig, file: Path, precision: str = "float32") -> Runner:
    """A graph whose input size is fixed, ready to run. Raises DataError where the configuration is not its own."""
    x, y = _axes(graph, file, config.input_size)
    if {x.keypoints, y.keypoints} != {len(config.keypoints)} or (x.bins, y.bins) != config.bins:
        raise DataError(f"{file}: the configuration beside it is of another graph: import it again")
    pixels = config.preprocessing
    compiled = compile_graph(
        graph,
        pixels.mean,
        pixels.std,
        reverse_channels=pixels.channels == "BGR",
        where=str(file),
        precision=precision,
    )

    def run(crops: NDArray[np.uint8]) -> Outputs:
        arrays = compiled(crops)
        return Outputs((arrays[x.number], arrays[y.number]))

    return Runner(run, compiled.runtime, compiled.device, compiled.precision)


def _config(graph: Any, source: Path, given: "Given") -> PoseConfig:
    """The configuration of a graph, whose input size is fixed by this.

    `posecli export` writes it into the file. Other graphs do not tell their network: RTMPose is assumed, which nearly
    all published ones are, unless the file's name begins with rtmw or simcc.
    """
    from posecli.pose.foreign import usual_keypoints, usual_sigma  # imports torch

    size = _fix_input(graph, source, given.input_size)
    x, y = _axes(graph, source, size)
    name = source.name.lower()
    head = "rtmw" if name.startswith("rtmw") else "simcc" if name.startswith("simcc") else "rtmcc"
    ratio = x.bins / size[1]
    if given.split_ratio not in (None, ratio):
        raise DataError(f"{source}: split ratio {given.split_ratio:g} does not give its {x.bins} and {y.bins} bins")
    try:
        own = _exported_config(graph)
        if own is not None:
            keypoints = usual_keypoints(source, x.keypoints, {}, given) if given.keypoints else own.keypoints
            sigma, temperature = given.sigma or own.sigma, given.temperature or own.temperature
            return replace(own, input_size=size, sigma=sigma, temperature=temperature, keypoints=keypoints)
        return PoseConfig(
            backbone="graph",
            deconv_channels=(),
            input_size=size,
            split_ratio=ratio,
            sigma=given.sigma or usual_sigma(head, (x.bins, y.bins), {}),
            temperature=given.temperature or (10.0 if head == "rtmcc" else 1.0),
            keypoints=usual_keypoints(source, x.keypoints, {}, given),
        )
    except DataError as error:
        raise DataError(f"{source}: {error}") from error


def _exported_config(graph: Any) -> PoseConfig | None:
    """The configuration that `posecli export` wrote into a file, without what its graph leaves out; None in others.

    Raises DataError where it is not valid.
    """
    text = metadata_of(graph, "posecli")
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("its metadata under the key posecli is not JSON") from error
    if not isinstance(document, dict) or document.get("kind") != "pose":
        raise DataError("its metadata is of an exported network of another kind than a pose model")
    config = PoseConfig.from_json(Fields.of(document.get("config"), "config").values)
    config = replace(config, backbone="graph", widths=(), blocks=(), head="simcc", deconv_channels=(), laterals=False)
    return replace(config, person_score=False, box_head=False)


def _fix_input(graph: Any, source: Path, wanted: tuple[int, int] | None) -> tuple[int, int]:
    """Give the graph's input its size, that which it has or else the wanted one (height, width), and return it."""
    sizes = [sizes_of(port) for port in graph.inputs]
    if len(sizes) != 1 or len(sizes[0]) != 4 or sizes[0][1] not in (3, None):
        raise DataError(f"{source}: its input is {_listed(graph.inputs)}, not one of N×3×height×width")
    if not graph.inputs[0].get_element_type().is_real():
        raise DataError(f"{source}: its input is of whole numbers, not of normalised pixels")
    height, width = (own or (wanted or (0, 0))[i] for i, own in enumerate(sizes[0][2:]))
    if not height or not width:
        raise DataError(f"{source}: its input has no fixed size: give --input-size HEIGHTxWIDTH")
    if wanted is not None and wanted != (height, width):
        raise DataError(f"{source}: its input is {height}x{width}, not {wanted[0]}x{wanted[1]}")
    if max(height, width) > LARGEST_SIDE:
        raise DataError(f"{source}: its input is {height}x{width}; at most {LARGEST_SIDE} pixels a side are read")
    fix_size(graph, (height, width), str(source))
    return height, width


def _axes(graph: Any, source: Path, size: tuple[int, int]) -> tuple[Axis, Axis]:
    """The outputs over x and y: by their names, else by their lengths, else in this order."""
    every = [sizes_of(port) for port in graph.outputs]
    names = [names_of(port) for port in graph.outputs]
    numbers = [next((i for i, own in enumerate(names) if name in own), None) for name in _NAMES]
    if None in numbers and len(every) == 2:
        first, second = (sizes[-1] or 0 if sizes else 0 for sizes in every)
        numbers = [0, 1] if first * size[0] == second * size[1] else [1, 0]
    found = [] if None in numbers else [(i, every[i]) for i in numbers if i is not None]
    axes = [Axis(i, sizes[1] or 0, sizes[2] or 0) for i, sizes in found if len(sizes) == 3 and sizes[0] == 1]
    if len(axes) == 2 and axes[0].keypoints == axes[1].keypoints > 0:
        x, y = axes
        if x.bins * size[0] == y.bins * size[1] > 0:
            return x, y
    raise DataError(
        f"{source}: its outputs are {_listed(graph.outputs)}, not a SimCC model's {_NAMES[0]} and {_NAMES[1]} "
        f"for {size[0]}x{size[1]} pixels"
    )


def _listed(ports: Any) -> str:
    """Names and sizes for a message: 'simcc_x' 1×17×384."""
    parts = []
    for port in list(ports)[:4]:
        sizes = "×".join("?" if size is None else str(size) for size in sizes_of(port)) or "of any size"
        parts.append(f"{shown(min(names_of(port), default='unnamed'))} {sizes}")
    return " and ".join(parts) + (" and others" if len(ports) > 4 else "") or "none"


def _explained(error: DataError, source: Path, data: bytes) -> DataError:
    """The same with what the file may be instead, where its beginning tells that."""
    start = data[:512]
    from posecli.weights.checkpoint import guess  # imports torch

    reason = guess(start)
    if start.startswith(b"<?xml") or reason.startswith("not a checkpoint"):
        return error
    return DataError(f"{source}: {reason}")
