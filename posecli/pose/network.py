"""The SimCC network: a backbone, a head that makes one map for each keypoint, two classifiers.

Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV 2022.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from posecli.backbones import find_backbone
from posecli.backbones.lite_hrnet import LiteHRNet
from posecli.backbones.lite_hrnet_inference import InferenceLiteHRNet
from posecli.errors import DataError
from posecli.pose.config import PoseConfig
from posecli.pose.heads import find_head
from posecli.runtime.normalise import normalise

# kernel → (padding, output padding) that double the size exactly.
_DECONV_PADDING = {4: (1, 0), 3: (1, 1), 2: (0, 0)}


class BoxHead(nn.Module):
    """Regression of the person's box from the backbone's features, like the second stage of Girshick, "Fast R-CNN",
    ICCV 2015, section 2.

    forward: features (N, C, h, w) of any size → left, top, right, bottom (N, 4) relative to the crop's size, 0 at its
    left and upper edge and 1 at the others; sides outside of the crop are below 0 or above 1.
    """

    GRID = (8, 6)
    # Initial output: the central four fifths of the crop, which is the proposal's box if it has the crop's shape.
    START = (0.1, 0.1, 0.9, 0.9)

    def __init__(self, channels: int, squeezed: int = 24, hidden: int = 64) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.dropout = nn.Dropout(0.2)
        self.hidden = nn.Linear(squeezed * self.GRID[0] * self.GRID[1], hidden)
        self.sides = nn.Linear(hidden, 4)
        nn.init.zeros_(self.sides.weight)
        self.sides.bias.data.copy_(torch.tensor(self.START))

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) → sides (N, 4)."""
        cells = functional.relu(self.squeeze(self._grid(features)))
        return cast(Tensor, self.sides(functional.relu(self.hidden(self.dropout(cells.flatten(1))))))

    def _grid(self, features: Tensor) -> Tensor:
        """Features (N, C, h, w) → (N, C, *GRID), by adaptive average pooling."""
        height, width = map(int, features.shape[2:])  # tensors while the network is traced
        if self.GRID[0] % height or self.GRID[1] % width:
            return functional.adaptive_avg_pool2d(features, self.GRID)
        # The same values: pooling to a multiple of the size repeats them, for which runtimes have faster operations.
        repeats = (self.GRID[0] // height, self.GRID[1] // width)
        return features if repeats == (1, 1) else functional.interpolate(features, scale_factor=repeats)


class SimCC(nn.Module):
    """Crops to one distribution per axis and keypoint.

    forward: normalised crops (N, 3, H, W) → logits over x (N, K, W·k) and over y (N, K, H·k); with config.person_score
    also log-odds of a person (N,); with config.box_head also the sides of the person's box (N, 4).
    """

    def __init__(self, config: PoseConfig) -> None:
        super().__init__()
        self.backbone, channels, levels, coarse = find_backbone(config.backbone).make(config.widths, config.blocks)
        spec = find_head(config.head)
        wanted = len(config.deconv_channels) if config.laterals else spec.levels
        if len(levels) < wanted:
            raise DataError(f"backbone {config.backbone}: it offers {len(levels)} levels for laterals, not {wanted}")
        self.levels = [name for name, _ in levels[:wanted]]
        self.person_score = nn.Linear(coarse or channels, 1) if config.person_score else None
        self.box_head = BoxHead(coarse or channels) if config.box_head else None
        # SimCC's own head is made of the layers below, under the names that its files have.
        self.head = None
        if spec.build is not None:
            if config.map_size != (config.input_size[0] // 32, config.input_size[1] // 32):
                raise DataError(f"head {config.head}: it needs features at 1/32, backbone {config.backbone} has others")
            self.head = spec.build(config, channels, [width for _, width in levels])
            return
        layers: list[nn.Module] = []
        padding, output_padding = _DECONV_PADDING[config.deconv_kernel]
        for out in config.deconv_channels:
            layers += [
                nn.ConvTranspose2d(channels, out, config.deconv_kernel, 2, padding, output_padding, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
            channels = out
        self.deconv = nn.Sequential(*layers)
        widths = zip(levels, config.deconv_channels, strict=False)
        if config.laterals:
            self.called_singly = ("deconv",)
            self.laterals = nn.ModuleList(nn.Conv2d(width, out, 1, bias=False) for (_, width), out in widths)
        self.final = nn.Conv2d(channels, len(config.keypoints), 1)
        cells = config.map_size[0] * config.map_size[1]
        self.fc_x = nn.Linear(cells, config.bins[0])
        self.fc_y = nn.Linear(cells, config.bins[1])

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Normalised crops (N, 3, H, W) → x logits (N, K, W·k), y logits (N, K, H·k).

        With config.person_score also (N,): log-odds to be added to those of the detector's box score. With
        config.box_head also sides (N, 4), see BoxHead.
        """
        features, coarse = self._features(crops)
        if self.head is not None:
            return *self.head(features), *self._heads(coarse)
        maps = self.final(self._enlarged(features)).flatten(2)  # (N, K, h·w), row-major
        return self.fc_x(maps), self.fc_y(maps), *self._heads(coarse)

    def heads(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Normalised crops (N, 3, H, W) → outputs of person score and box head only; the backbone gets no gradients."""
        with torch.no_grad():
            coarse = self._features(crops)[1]
        return self._heads(coarse)

    def _heads(self, coarse: Tensor) -> tuple[Tensor, ...]:
        if self.person_score is None:
            return ()
        log_odds = self.person_score(coarse.mean(dim=(2, 3)))[:, 0]
        return (log_odds,) if self.box_head is None else (log_odds, self.box_head(coarse))

    def _features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The finer features for the laterals followed by the backbone's output; and its coarsest output."""
        if not self.levels:
            found = self.backbone(x)
            return ([found[0]], found[1]) if isinstance(found, tuple) else ([found], found)
        kept: dict[str, Tensor] = {}
        for name, child in self.backbone.named_children():
            x = kept[name] = child(x)
        return [*(kept[name] for name in self.levels), x], x

    def _enlarged(self, features: list[Tensor]) -> Tensor:
        """Transposed convolutions on the backbone's output, each with the backbone's finer features added."""
        x = features[-1]
        if not self.levels:
            return cast(Tensor, self.deconv(x))
        for number, lateral in enumerate(self.laterals):
            convolution, norm, activation = (self.deconv[3 * number + part] for part in range(3))
            x = activation(norm(convolution(x) + lateral(features[number])))
        return x


def initialise_head(model: SimCC, config: PoseConfig, marginal: bool = True) -> None:
    """Initialise the head.

    With marginal, each classifier starts as the marginal of a heatmap: row b of fc_x is a Gaussian over the map's
    columns around the column whose centre projects to bin b, fc_y the same over rows, which gives the backbone a
    spatial signal from the first step. Else the weights are N(0, 0.01). Other heads are left as they were built.
    """
    if model.person_score is not None:
        nn.init.zeros_(model.person_score.weight)
        nn.init.zeros_(model.person_score.bias)
    if model.head is not None:  # keeps its own initialisation
        return
    for module in (*model.deconv.modules(), *getattr(model, "laterals", ()), model.final):
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=(2 / module.in_channels / 4) ** 0.5 if marginal else 0.001)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=(1 / module.in_channels) ** 0.5 if marginal else 0.001)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    height, width = config.map_size
    for layer, cells, axis in ((model.fc_x, width, 1), (model.fc_y, height, 0)):
        nn.init.zeros_(layer.bias)
        if marginal:
            profile = marginal_profile(layer.out_features, cells)
            grid = profile[:, None, :] if axis == 1 else profile[:, :, None]
            rows = height if axis == 1 else width
            weight = grid.expand(-1, height, width).reshape(layer.out_features, -1) / rows**0.5
            layer.weight.data.copy_(weight)
        else:
            nn.init.normal_(layer.weight, std=0.01)


def marginal_profile(bins: int, cells: int, width: float = 0.6) -> Tensor:
    """(bins, cells): a Gaussian of the given width in cells around each bin's cell, its mean subtracted."""
    centre = (torch.arange(bins) + 0.5) * cells / bins - 0.5
    profile = torch.exp(-((torch.arange(cells)[None] - centre[:, None]) ** 2) / (2 * width**2))
    return profile - profile.mean(dim=1, keepdim=True)


def resample_classifiers(state: dict[str, Tensor], old: PoseConfig, new: PoseConfig) -> dict[str, Tensor]:
    """The state of a model at another input size or split ratio.

    Only the layers that read whole maps or give bins depend on them: their rows (bins) and columns (map cells) are
    interpolated linearly, so that each bin keeps its relative position in the crop. Weights are scaled so that the
    level of the logits stays.
    """
    result = dict(state)
    for axis, name in enumerate(("fc_x", "fc_y")):
        if old.head == "simcc":
            weight = _resampled_columns(state[f"{name}.weight"], old.map_size, new.map_size)
            result[f"{name}.weight"] = _resampled_rows(weight, new.bins[axis])
            result[f"{name}.bias"] = _resampled_rows(state[f"{name}.bias"], new.bins[axis])
        else:
            result[f"head.{name}.weight"] = _resampled_rows(state[f"head.{name}.weight"], new.bins[axis])
    for name, finer in (("embed", 1), ("coarse_embed", 1), ("fine_embed", 2)):
        if (key := f"head.{name}.weight") in state:
            sizes = [(height * finer, width * finer) for height, width in (old.map_size, new.map_size)]
            result[key] = _resampled_columns(state[key], sizes[0], sizes[1])
    return result


def _resampled_columns(weight: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """(rows, cells of the old map) → (rows, cells of the new one)."""
    maps = weight.float().reshape(1, -1, *old)
    maps = functional.interpolate(maps, size=new, mode="bilinear", align_corners=False)
    ratio = old[0] * old[1] / (new[0] * new[1])
    return (maps.reshape(weight.shape[0], -1) * ratio).to(weight.dtype)


def _resampled_rows(weight: Tensor, rows: int) -> Tensor:
    """(rows, ...) → another number of rows."""
    lines = weight.float().reshape(1, weight.shape[0], -1).transpose(1, 2)
    lines = functional.interpolate(lines, size=rows, mode="linear", align_corners=False)
    return lines.transpose(1, 2).reshape(rows, *weight.shape[1:]).to(weight.dtype)


def for_inference(network: SimCC) -> SimCC:
    """A copy with a faster form of its backbone, where there is one: the same outputs up to rounding errors."""
    if not isinstance(network.backbone, LiteHRNet):
        return network
    result = copy.deepcopy(network)
    result.backbone = InferenceLiteHRNet(network.backbone)
    return result


class PixelNetwork(nn.Module):
    """The network with normalisation inside: uint8 crops (N, H, W, 3) RGB → the outputs of SimCC."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: SimCC, config: PoseConfig) -> None:
        super().__init__()
        self.network = network
        preprocessing = config.preprocessing
        self.reverse_channels = preprocessing.channels == "BGR"
        width = config.input_size[1]
        self.register_buffer("mean", torch.tensor(preprocessing.mean).repeat(width))
        self.register_buffer("std", torch.tensor(preprocessing.std).repeat(width))

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Crops (N, H, W, 3) uint8 → logits (N, K, W·k), (N, K, H·k); perhaps log-odds (N,) and sides (N, 4)."""
        pixels = crops.flip(3) if self.reverse_channels else crops
        outputs: tuple[Tensor, ...] = self.network(normalise(pixels, self.mean, self.std))
        return outputs
