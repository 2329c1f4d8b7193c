"""Convert PP-TinyPose's OpenVINO IR to initial weights for training: `posecli train --init OUT`.

    python recipes/import_lite_hrnet.py tinypose_256x192.xml --out start.safetensors

Backbone and heatmaps get the file's weights, see `match_graphs`. The two classifiers are initialised as marginals of
the heatmaps.
"""

from pathlib import Path

import click
from match_graphs import matched_state
from torch import Tensor, nn

from posecli.backbones.lite_hrnet import WIDTHS, LiteHRNet
from posecli.errors import DataError
from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC, marginal_profile
from posecli.runtime.openvino_package import openvino_package
from posecli.weights.files import save_weights, sha256

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


def read_ir(path: Path) -> tuple[HeatmapNetwork, tuple[int, int]]:
    """The network of an IR file and its input size (height, width). Raises DataError for another graph."""
    model = openvino_package().Core().read_model(path)
    outputs = [result.input_value(0) for result in model.get_results()]
    heatmaps = [output for output in outputs if output.get_partial_shape().rank.get_length() == 4]
    size = model.inputs[0].get_partial_shape()
    if len(heatmaps) != 1 or size.rank.get_length() != 4:
        raise DataError(f"{path}: not one output of heatmaps")
    network = HeatmapNetwork(heatmaps[0].get_partial_shape()[1].get_length())
    network.load_state_dict(matched_state(network, heatmaps, "Lite-HRNet"))
    return network.eval(), (size[2].get_length(), size[3].get_length())


def simcc_of(network: HeatmapNetwork, config: PoseConfig) -> SimCC:
    """A SimCC network on the same features, its classifiers marginals of the heatmaps."""
    model = SimCC(config)
    model.backbone.load_state_dict(network.backbone.state_dict())
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
    """Write OUT, weights of a SimCC model initialised from the network of IR."""
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
