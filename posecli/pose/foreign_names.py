"""Names that other projects give to the tensors of SimCC models, as those of posecli's network.

MMPose: its heads SimCCHead, RTMCCHead and RTMWHead with ResNet, MobileNetV2 and CSPNeXt; SimCC's own repository; and
the project that posecli began as, whose backbone is numbered.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from posecli.errors import DataError
from posecli.weights.header import shown

# What stands in checkpoints beside the network: normalisation, losses, the teacher of a distillation.
_IGNORED = re.compile(r"(data_preprocessor|teacher|loss|head\.loss_module|keypoint_head\.loss)\b|backbone\.fc\.")
_HEADS = re.compile(r"(head|keypoint_head)\.((deconv_head|simplebaseline_head)\.)?")
# Each pattern is applied once, in this order.
_SIMCC = (
    (r"^head\.mlp_head_([xy])\.", r"fc_\1."),
    (r"^head\.fc_([xy])\.", r"fc_\1."),
    (r"^head\.deconv_layers\.", "deconv."),
    (r"^head\.final_layer\.", "final."),
)
_ATTENTION = (
    (r"^head\.gau\.", "head.attention."),
    (r"^(head\.attention)\.ln\.g$", r"\1.norm.gain"),
    (r"^(head\.attention)\.o\.", r"\1.out."),
    (r"^(head\.attention)\.res_scale\.scale$", r"\1.scale"),
    (r"^head\.cls_([xy])\.", r"head.fc_\1."),
)
_RTMCC = (
    (r"^head\.final_layer\.", "head.final."),
    (r"^head\.mlp\.0\.g$", "head.norm.gain"),
    (r"^head\.mlp\.1\.", "head.embed."),
)
_RTMW = (
    (r"^head\.conv_dec\.", "head.shuffled."),
    (r"^head\.final_layer2\.", "head.fine."),
    (r"^head\.final_layer\.", "head.coarse."),
    (r"^head\.mlp2\.0\.g$", "head.fine_norm.gain"),
    (r"^head\.mlp2\.1\.", "head.fine_embed."),
    (r"^head\.mlp\.0\.g$", "head.coarse_norm.gain"),
    (r"^head\.mlp\.1\.", "head.coarse_embed."),
    # The neck's layers are numbered from the coarsest on the way to finer maps, here from the finest.
    (r"^neck\.reduce_layers\.(\d)\.", lambda m: f"head.neck.reduce.{1 - int(m[1])}."),
    (r"^neck\.top_down_blocks\.(\d)\.", lambda m: f"head.neck.up.{1 - int(m[1])}."),
    (r"^neck\.downsamples\.", "head.neck.down."),
    (r"^neck\.bottom_up_blocks\.", "head.neck.back."),
)
# CSPNeXt's parts, also in RTMW's neck, and convolutions with their norms.
_CSP = (
    (r"(^backbone\.stage4\.1)\.conv1\.", r"\1.before."),
    (r"(^backbone\.stage4\.1)\.conv2\.", r"\1.after."),
    (r"\.(main|short|final)_conv\.", r".\1."),
    (r"\.depthwise_conv\.", ".0."),
    (r"\.pointwise_conv\.", ".1."),
    (r"\.conv\.(weight|bias)$", r".0.\1"),
    (r"\.bn\.(\w+)$", r".1.\1"),
)
# Number of torchvision's layer that a stage of MMPose's MobileNetV2 begins with.
_MOBILE = {"1": 1, "2": 2, "3": 4, "4": 7, "5": 11, "6": 14, "7": 17}
_NUMBERED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


def current_names(names: Iterable[str]) -> dict[str, str]:
    """posecli's name → the file's, of all tensors of the network. Others' names are kept as they are.

    Raises DataError where two tensors would have one name.
    """
    given = {_stripped(name): name for name in names}
    given = {name: own for name, own in given.items() if not _IGNORED.match(name)}
    plain = {_HEADS.sub("head.", name, count=1) if _HEADS.match(name) else name: own for name, own in given.items()}
    plain = _prefixed(plain)
    rules: tuple[Rule, ...] = _SIMCC
    if "head.mlp2.0.g" in plain:
        rules = (*_RTMW, *_ATTENTION, *_CSP)
    elif "head.mlp.0.g" in plain:
        rules = (*_RTMCC, *_ATTENTION, *_CSP)
    elif "backbone.stem.0.conv.weight" in plain:
        rules = (*_SIMCC, *_CSP)
    mobile = "backbone.conv1.conv.weight" in plain
    result: dict[str, str] = {}
    for name, own in plain.items():
        current = _renamed(_mobile(name) if mobile else name, rules)
        if current in result:
            raise DataError(f"its tensors {shown(result[current])} and {shown(own)} have the same place")
        result[current] = own
    return result


def _stripped(name: str) -> str:
    return name.removeprefix("module.").removeprefix("student.").removeprefix("model.")


def _prefixed(names: Mapping[str, str]) -> dict[str, str]:
    """SimCC's own repository names its layers without "backbone." and "head."; posecli's ancestor numbers them."""
    result = {}
    for name, own in names.items():
        first, _, rest = name.partition(".")
        if first in ("deconv_layers", "final_layer", "mlp_head_x", "mlp_head_y"):
            name = f"head.{name}"
        elif first in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"):
            name = f"backbone.{name}"
        elif first == "backbone" and "backbone.4.0.conv1.weight" in names:
            number, _, rest = rest.partition(".")
            name = f"backbone.{_NUMBERED.get(number, number)}.{rest}"
        result[name] = own
    return result


def _mobile(name: str) -> str:
    """MMPose's MobileNetV2 as torchvision's "features"."""
    if match := re.match(r"^backbone\.(conv[12])\.(conv|bn)\.(.*)", name):
        return f"backbone.{'0' if match[1] == 'conv1' else '18'}.{0 if match[2] == 'conv' else 1}.{match[3]}"
    match = re.match(r"^backbone\.layer([1-7])\.(\d+)\.conv\.([012])\.(conv|bn)\.(.*)", name)
    if match is None:
        return name
    layer, part, norm = _MOBILE[match[1]] + int(match[2]), int(match[3]), match[4] == "bn"
    # The last convolution has no activation, and stands with its norm beside the pairs before it.
    last = part == (1 if match[1] == "1" else 2)
    inner = str(part + norm) if last else f"{part}.{int(norm)}"
    return f"backbone.{layer}.conv.{inner}.{match[5]}"


def _renamed(name: str, rules: Iterable[Rule]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
