"""Backbones of pose models, by name."""

from functools import partial

from posecli.backbones.backbone import Backbone, BackboneSpec
from posecli.backbones.cspnext import cspnext_features
from posecli.backbones.lite_hrnet import lite_hrnet
from posecli.backbones.torchvision_backbones import features, resnet
from posecli.errors import DataError

__all__ = ["BACKBONES", "Backbone", "BackboneSpec", "find_backbone"]

# One line adds a backbone: a function that gives a Backbone, its stride where it is not 32, and another function where
# it has several sizes.
BACKBONES: dict[str, BackboneSpec] = {
    "resnet18": BackboneSpec(partial(resnet, "resnet18")),
    "resnet34": BackboneSpec(partial(resnet, "resnet34")),
    "resnet50": BackboneSpec(partial(resnet, "resnet50")),
    "resnet101": BackboneSpec(partial(resnet, "resnet101")),
    "resnet152": BackboneSpec(partial(resnet, "resnet152")),
    "mobilenet_v2": BackboneSpec(partial(features, "mobilenet_v2", (("13", 96), ("6", 32), ("3", 24)))),
    "mobilenet_v3_large": BackboneSpec(partial(features, "mobilenet_v3_large", (("12", 112), ("6", 40), ("3", 24)))),
    "cspnext": BackboneSpec(cspnext_features, sized=cspnext_features),
    "lite_hrnet": BackboneSpec(lite_hrnet, stride=4),
    "efficientnet_b0": BackboneSpec(partial(features, "efficientnet_b0", (("5", 112), ("3", 40), ("2", 24)))),
}


def find_backbone(name: str) -> BackboneSpec:
    """The backbone of this name. Raises DataError where there is none."""
    if name not in BACKBONES:
        raise DataError(f"backbone {name!r}: choose from {', '.join(BACKBONES)}")
    return BACKBONES[name]
