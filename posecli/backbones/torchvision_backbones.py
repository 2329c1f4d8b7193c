"""torchvision's classifiers without pooling and classifier."""

import torchvision
from torch import Tensor, nn

from posecli.backbones.backbone import Backbone


def resnet(name: str) -> Backbone:
    """A ResNet: features at 1/32."""
    model = torchvision.models.get_model(name, weights=None)
    channels = model.fc.in_features
    model.avgpool = model.fc = nn.Identity()
    levels = (("layer3", channels // 2), ("layer2", channels // 4), ("layer1", channels // 8))
    return Backbone(_ResNetFeatures(model), channels, levels)


def features(name: str, levels: tuple[tuple[str, int], ...] = ()) -> Backbone:
    """The "features" of a torchvision model, at 1/32; levels: see Backbone."""
    module = torchvision.models.get_model(name, weights=None).features
    return Backbone(module, module[-1].out_channels, levels)


class _ResNetFeatures(nn.Module):
    """torchvision's ResNet without its classifier, under torchvision's own parameter names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, C, H/32, W/32)."""
        for child in self.children():
            x = child(x)
        return x
