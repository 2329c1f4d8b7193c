"""Convert RTMDet-nano's ONNX (one class) to initial weights for training a person detector.

    python recipes/import_rtmdet.py rtmdet_nano.onnx --out start.safetensors

The converted detector computes the same outputs as the file's network, see `match_graphs`.
"""

from pathlib import Path
from typing import Any

import click
from match_graphs import constant, matched_state
from torch import Tensor, nn

from posecli.backbones.cspnext import STRIDES
from posecli.detect.person import PersonNetwork, build_fcos
from posecli.detect.person_config import PersonConfig
from posecli.detect.rtmdet import Features, Head
from posecli.errors import DataError
from posecli.runtime.openvino_package import openvino_package
from posecli.weights.files import save_weights, sha256

CONFIG = PersonConfig()


class Maps(nn.Module):
    """A detector's head before its maps are flattened: (N, 3, H, W) → logits and distances of each level."""

    def __init__(self, features: Features, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = features, head

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Normalised images, BGR, to maps."""
        features = self.backbone.neck(self.backbone.body(x))
        return self.head.maps(features)


def head_outputs(model: Any) -> tuple[list[Any], list[Any]]:
    """The file's logits and distances, a map for each level from fine to coarse.

    They are the convolutions whose transposed maps, one per level, are concatenated. Raises DataError without them.
    """
    found: dict[int, list[Any]] = {}
    for operation in model.get_ordered_ops():
        if operation.get_type_name() != "Concat" or operation.get_input_size() != len(STRIDES):
            continue
        maps = [_convolution_before(value) for value in operation.input_values()]
        if all(value is not None for value in maps):
            found[maps[0].get_partial_shape()[1].get_length()] = maps
    if not {1, 4} <= set(found):
        raise DataError("no scores of one class and distances at three strides")
    return found[1], found[4]


def _convolution_before(value: Any) -> Any:
    """The convolution with its bias before transposes and a product with the stride; None for other values."""
    node = value.get_node()
    while node.get_type_name() in ("Reshape", "Transpose", "Multiply"):
        if node.get_type_name() == "Multiply" and constant(node.input_value(1)) is None:
            return None
        value = node.input_value(0)
        node = value.get_node()
    added = node.get_type_name() == "Add" and constant(node.input_value(1)) is not None
    return value if added and "Convolution" in node.input_value(0).get_node().get_type_name() else None


def read_rtmdet(path: Path) -> Maps:
    """The network of an ONNX or IR file, for BGR like the file's. Raises DataError for another graph."""
    model = openvino_package().Core().read_model(path)
    network = Maps(Features(CONFIG.channels), Head(CONFIG.channels, CONFIG.convolutions))
    logits, distances = head_outputs(model)
    network.load_state_dict(matched_state(network, [*logits, *distances], "RTMDet-nano"))
    return network.eval()


def detector_of(network: Maps) -> PersonNetwork:
    """The same network as posecli's detector, for RGB."""
    model = build_fcos(CONFIG)
    model.load_state_dict(network.state_dict())
    first = model.backbone.body.stem[0][0]
    first.weight.data = first.weight.data.flip(1)
    return PersonNetwork(model, CONFIG).eval()


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(source: Path, out: Path) -> None:
    """Write OUT, weights of a detector with the same outputs as the network of SOURCE."""
    header = {
        "kind": "detector",
        "architecture": CONFIG.architecture,
        "config": vars(CONFIG),
        "licence": "Apache-2.0",
        "source": "RTMDet-nano (OpenMMLab, Apache-2.0)",
        "start": {"file": source.name, "sha256": sha256(source)},
    }
    save_weights(out, detector_of(read_rtmdet(source)).state_dict(), header)


if __name__ == "__main__":
    main()
