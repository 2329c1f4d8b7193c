"""PP-TinyPose's OpenVINO IR as posecli's weights, to start training from: `posecli train --init OUT`.

    python recipes/import_lite_hrnet.py tinypose_256x192.xml --out start.safetensors

The graph of posecli's Lite-HRNet and the IR's are followed from their outputs backwards, side by side: each convolution
takes the weight and bias of its counterpart. The two classifiers start as marginals of the heatmaps.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import openvino
import torch
from torch import Tensor, fx, nn

from posecli.backbones.lite_hrnet import WIDTHS, LiteHRNet
from posecli.errors import DataError
from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC, marginal_profile
from posecli.weights.files import save_weights, sha256

# Operations between two convolutions that neither have weights nor join two ways.
_PASSED = frozenset({"Convert", "Interpolate", "Relu", "Reshape", "ShuffleChannels", "Transpose"})
# Heatmaps are about 1 at a keypoint. Not tuned: training sets the scale of the logits.
_LOGITS = 3.0


class HeatmapNetwork(nn.Module):
    """Lite-HRNet with the 1×1 convolution to K heatmaps: (N, 3, H, W) → (N, K, H/4, W/4)."""

    def __init__(self, keypoints: int) -> None:
        super().__init__()
        self.backbone = LiteHRNet()
        self.final = nn.Conv2d(WIDTHS[0], keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Crops to heatmaps."""
        heatmaps: Tensor = self.final(self.backbone(x)[0])
        return heatmaps


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Conv2d | nn.ReLU | nn.ChannelShuffle)


def read_ir(path: Path) -> tuple[HeatmapNetwork, tuple[int, int]]:
    """The network of an IR file and its input size (height, width). Raises DataError where the graph is another."""
    model = openvino.Core().read_model(path)
    outputs = [result.input_value(0) for result in model.get_results()]
    heatmaps = [output for output in outputs if output.get_partial_shape().rank.get_length() == 4]
    size = model.inputs[0].get_partial_shape()
    if len(heatmaps) != 1 or size.rank.get_length() != 4:
        raise DataError(f"{path}: not one output of heatmaps")
    network = HeatmapNetwork(heatmaps[0].get_partial_shape()[1].get_length())
    found = _Matcher(network).match(heatmaps[0])
    missing = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d) and name not in found]
    if missing:
        raise DataError(f"{path}: no counterpart of {len(missing)} convolutions, first {missing[0]}")
    state = {}
    for name, (weight, bias) in found.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.from_numpy(weight), torch.from_numpy(bias)
    network.load_state_dict(state)
    return network.eval(), (size[2].get_length(), size[3].get_length())


class _Matcher:
    """Follows both graphs backwards; found: a convolution's name → weight and bias of its counterpart."""

    def __init__(self, network: nn.Module) -> None:
        self._modules = dict(network.named_modules())
        self._graph = _Tracer().trace(network)
        self._seen: set[tuple[fx.Node, str, int]] = set()
        self.found: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def match(self, output: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        last = next(node for node in self._graph.nodes if node.op == "output")
        waiting: list[tuple[Any, Any]] = [(last.args[0], output)]
        while waiting:
            waiting += self._step(*waiting.pop())
        return self.found

    def _step(self, node: fx.Node, value: Any) -> list[tuple[Any, Any]]:
        """The pairs before a pair."""
        other = value.get_node()
        key = (node, other.get_friendly_name(), value.get_index())
        if key in self._seen:
            return []
        self._seen.add(key)
        kind = other.get_type_name()
        if kind in _PASSED:
            return [(node, other.input_value(0))]
        node = self._before_unary(node)
        inputs: Sequence[Any] = node.args  # nodes and constants
        function = getattr(node.target, "__name__", "")
        if kind == "Add" and (bias := _constant(other.input_value(1))) is not None:
            return [self._take(node, other.input_value(0).get_node(), bias)]
        if kind == "Add" and node.op == "call_function" and function in ("add", "iadd"):
            return [(inputs[0], other.input_value(0)), (inputs[1], other.input_value(1))]
        if kind == "Concat" and node.target is torch.cat:
            return list(zip(inputs[0], other.input_values(), strict=True))
        halves = kind in ("Split", "VariadicSplit") and function == "getitem"
        if halves and inputs[1] == value.get_index():
            return [(inputs[0].args[0], other.input_value(0))]
        if kind == "Parameter" and node.op == "placeholder":
            return []
        raise DataError(f"the IR has {kind} where Lite-HRNet has {node.target}")

    def _before_unary(self, node: fx.Node) -> fx.Node:
        while True:
            module = self._module(node)
            name = getattr(node.target, "__name__", "")
            if not isinstance(module, nn.ReLU | nn.ChannelShuffle) and name not in ("relu", "interpolate"):
                return node
            before = node.args[0]
            assert isinstance(before, fx.Node)
            node = before

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._modules.get(str(node.target)) if node.op == "call_module" else None

    def _take(self, node: fx.Node, convolution: Any, bias: np.ndarray) -> tuple[Any, Any]:
        module = self._module(node)
        weight = _constant(convolution.input_value(1)) if "Convolution" in convolution.get_type_name() else None
        if not isinstance(module, nn.Conv2d) or weight is None or weight.size != module.weight.numel():
            raise DataError(f"the IR's {convolution.get_friendly_name()} is not Lite-HRNet's {node.target}")
        self.found[str(node.target)] = weight.reshape(module.weight.shape), bias.reshape(-1)
        return node.args[0], convolution.input_value(0)


def _constant(value: Any) -> np.ndarray | None:
    """A constant's values in float32, seen through conversions; None for what is computed."""
    node = value.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return np.array(node.data, np.float32) if node.get_type_name() == "Constant" else None


def simcc_of(network: HeatmapNetwork, config: PoseConfig) -> SimCC:
    """A SimCC network on the same features, its classifiers marginals of the heatmaps."""
    model = SimCC(config)
    model.trunk.load_state_dict(network.backbone.state_dict())
    model.final.load_state_dict(network.final.state_dict())
    height, width = config.map_size
    for layer, cells, across in ((model.fc_x, width, True), (model.fc_y, height, False)):
        profile = marginal_profile(layer.out_features, cells, width=1.0)
        grid = profile[:, None, :] if across else profile[:, :, None]
        layer.weight.data.copy_(_LOGITS * grid.expand(-1, height, width).reshape(layer.out_features, -1))
        nn.init.zeros_(layer.bias)
    return model.eval()


@click.command()
@click.argument("ir", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--split-ratio", default=2.0, show_default=True)
def main(ir: Path, out: Path, split_ratio: float) -> None:
    """Write OUT, weights of a SimCC model that starts where the network of IR ends."""
    network, size = read_ir(ir)
    sigma = 3 * split_ratio * size[0] / 256
    config = PoseConfig(
        backbone="lite_hrnet", deconv_channels=(), input_size=size, split_ratio=split_ratio, sigma=(sigma, sigma)
    )
    header = {"kind": "pose", "config": config.to_json(), "source": "PP-TinyPose (PaddleDetection, Apache-2.0)"}
    header["start"] = {"file": ir.name, "sha256": sha256(ir.with_suffix(".bin"))}
    save_weights(out, simcc_of(network, config).state_dict(), header)


if __name__ == "__main__":
    main()
