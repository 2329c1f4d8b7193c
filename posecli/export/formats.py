"""File formats of exported networks."""

import contextlib
import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posecli.errors import DataError, MachineError
from posecli.export.modules import Graph
from posecli.runtime.openvino_package import converter, openvino_package

INPUT = "input"
METADATA_KEY = "posecli"
# Supported by all runtimes of the last years; nothing in the networks needs a newer one.
_OPSET = 17


@dataclass(frozen=True)
class Format:
    """A file format.

    suffix: of the file that is given; companions: suffixes of files written beside it. ready: raises MachineError
    where a package is missing. write: a graph, example pixels, whether the batch is free, the metadata and the path of
    the file → writes it. Raises DataError where the format lacks an operation.
    """

    suffix: str
    ready: Callable[[], None]
    write: Callable[[Graph, Tensor, bool, Mapping[str, Any], Path], None]
    companions: tuple[str, ...] = ()

    def files(self, path: Path) -> list[Path]:
        """All files of an export to this path; that with the given suffix is the last."""
        return [*(path.with_suffix(suffix) for suffix in self.companions), path]


def _onnx_ready() -> None:
    if importlib.util.find_spec("onnx") is None:
        raise MachineError("--to onnx needs the package onnx: `pip install 'posecli[onnx]'` brings it")


def _write_onnx(graph: Graph, example: Tensor, dynamic: bool, metadata: Mapping[str, Any], path: Path) -> None:
    """By torch's TorchScript exporter.

    torch's other exporter takes 15 times as long on Lite-HRNet and needs onnxscript; the files are equally good.
    """
    import onnx

    axes = {name: {0: "batch"} for name in (INPUT, *graph.outputs)} if dynamic else None
    # A failure prints the whole graph.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                graph.module,
                (example,),
                path,
                dynamo=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=list(graph.outputs),
                dynamic_axes=axes,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise DataError(f"not convertible to ONNX: {_first_line(error)}") from error
    model = onnx.load(path)
    _without_identities(model.graph)
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _write_openvino(graph: Graph, example: Tensor, dynamic: bool, metadata: Mapping[str, Any], path: Path) -> None:
    shape = [-1 if dynamic else len(example), *graph.item]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = converter()(graph.module, example_input=example, input=shape)
        except RuntimeError as error:
            raise DataError(f"not convertible to OpenVINO: {_first_line(error)}") from error
    model.inputs[0].get_tensor().set_names({INPUT})
    for output, name in zip(model.outputs, graph.outputs, strict=True):
        output.get_tensor().set_names({name})
    model.set_rt_info(json.dumps(metadata, ensure_ascii=False), METADATA_KEY)
    openvino_package().save_model(model, path, compress_to_fp16=False)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# One line adds a format.
FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", _onnx_ready, _write_onnx),
    "openvino": Format(".xml", lambda: None, _write_openvino, (".bin",)),
}


def _without_identities(graph: Any) -> None:
    """Use constants directly where torch puts an Identity behind them, which OpenCV DNN cannot read."""
    constants = {tensor.name for tensor in graph.initializer}
    copies = [node for node in graph.node if node.op_type == "Identity" and node.input[0] in constants]
    names = {node.output[0]: node.input[0] for node in copies}
    for node in copies:
        graph.node.remove(node)
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
