"""Graphs from elsewhere (ONNX, OpenVINO's IR) in OpenVINO, on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posecli.errors import DataError
from posecli.runtime.network import CompiledNetwork
from posecli.runtime.openvino_package import openvino_package
from posecli.runtime.openvino_requests import numpy_function
from posecli.runtime.openvino_runtime import compile_model
from posecli.runtime.signals import signal_stack_kept

# Sizes of an input or output; None where it is dynamic.
Sizes = tuple[int | None, ...]


@signal_stack_kept()
def read_graph(path: Path, where: str) -> Any:
    """The graph of a file, .onnx, or .xml with its .bin beside it.

    where: the file's name for messages. Raises DataError where OpenVINO cannot read it.
    """
    openvino = openvino_package()
    # Core.read_model would try the readers of all formats, which write to stderr.
    reader = openvino.frontend.FrontEndManager().load_by_framework("onnx" if path.suffix == ".onnx" else "ir")
    unreadable = f"{where}: no graph that OpenVINO can read: cut off, damaged or another format"
    try:
        graph = reader.convert(reader.load(str(path)))
    except Exception as error:  # the readers' own exceptions have no common base
        raise DataError(unreadable) from error
    if not graph.inputs:
        raise DataError(unreadable)
    return graph


def sizes_of(port: Any) -> Sizes:
    """The sizes of an input or output; () where not even their number is known."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return ()
    return tuple(None if size.is_dynamic else size.get_length() for size in shape)


def names_of(port: Any) -> set[str]:
    """The names of an input or output."""
    return set(port.get_names())


def metadata_of(graph: Any, key: str) -> str | None:
    """The text that an ONNX file or an IR has under a key of its metadata; None where it has none."""
    for place in (["framework", key], [key]):
        if graph.has_rt_info(place):
            return str(graph.get_rt_info(place).astype(str))
    return None


def fix_size(graph: Any, size: tuple[int, int], where: str) -> None:
    """Set the only input to one item (1, 3, height, width). Raises DataError where the graph does not allow it."""
    try:
        graph.reshape([1, 3, *size])
    except RuntimeError as error:
        raise DataError(f"{where}: the graph does not take one picture of {size[0]}x{size[1]} pixels") from error


@signal_stack_kept()
def compile_graph(
    graph: Any,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    reverse_channels: bool,
    where: str,
    precision: str = "float32",
) -> CompiledNetwork:
    """A graph with input (1, 3, H, W) as a function of uint8 pixels (N, H, W, 3) RGB.

    mean, std: in levels, in the order of channels that the graph takes; reverse_channels: that this is BGR. Raises
    DataError where OpenVINO cannot compute it.
    """
    openvino = openvino_package()
    try:
        steps = openvino.preprocess.PrePostProcessor(graph)
        given = steps.input()
        given.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        given.model().set_layout(openvino.Layout("NCHW"))
        pixels = given.preprocess().convert_element_type(openvino.Type.f32)
        if reverse_channels:
            pixels = pixels.reverse_channels()
        pixels.mean(list(mean)).scale(list(std))
        requests = compile_model(openvino.Core(), steps.build(), None, precision)
    except Exception as error:  # likewise
        raise DataError(f"{where}: OpenVINO cannot run this graph") from error
    return CompiledNetwork(numpy_function(lambda *_: requests), "openvino", "cpu", precision)
