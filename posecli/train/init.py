"""Initial weights of a model: random, of a backbone, or of another pose model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from posecli.backbones import BACKBONES
from posecli.errors import DataError, MachineError, UsageError
from posecli.pose.config import PoseConfig
from posecli.pose.loading import load_network
from posecli.pose.network import SimCC, initialise_head, resample_classifiers
from posecli.weights.files import EMBEDDED, bounded, find_weights, is_known
from posecli.weights.graphs import is_graph
from posecli.weights.header import shown

# Layers of the heads whose size is the number of keypoints.
_MAPS = ("final.", "head.final.", "head.coarse.", "head.fine.")


@dataclass(frozen=True)
class Init:
    """Initial tensors. config: that of their pose model, None for a torchvision backbone."""

    tensors: Mapping[str, Tensor]
    config: PoseConfig | None = None


def read_init(given: str, backbone: str) -> Init:
    """Read --init: posecli's weights, a torchvision state of the backbone, or "imagenet" for torchvision's own.

    Raises UsageError for an unknown name, DataError for a file of other content, MachineError where torchvision's
    weights are neither in torch's cache nor can be downloaded.
    """
    path = find_weights(given) if is_known(given) else Path(given)
    if given in ("imagenet", backbone):
        return Init(_official(backbone))
    if not path.is_file():
        names = ", ".join(("imagenet", backbone, *EMBEDDED))
        raise UsageError(f"--init {given}: no such file, and no name that is known here ({names})")
    if path.suffix.lower() == ".safetensors" or is_graph(path):  # a graph is refused there
        network, config = load_network(path)
        return Init(network.state_dict(), config)
    imported = f"a pose model's checkpoint has to be imported first (posecli weights import {path.name})"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an invalid pickle can raise any exception
        raise DataError(f"--init {path}: not a torch state of a backbone; {imported}") from error
    if isinstance(state, Mapping) and any(str(name).startswith(("backbone.", "head.", "state_dict")) for name in state):
        raise DataError(f"--init {path}: not a backbone's state alone; {imported}")
    if not isinstance(state, Mapping) or not state:
        raise DataError(f"--init {path}: not a torch state of a backbone, but a {type(state).__name__}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise DataError(
                f"--init {path}: not a torch state of a backbone: {shown(name)} in it is a {type(tensor).__name__}"
            )
    return Init(state)


def _official(backbone: str) -> Mapping[str, Tensor]:
    import torchvision

    if backbone not in BACKBONES:
        raise UsageError(f"backbone {backbone!r}: choose from {', '.join(BACKBONES)}")
    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    try:
        tensors: Mapping[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        file = weights.url.rsplit("/", 1)[-1]
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise MachineError(f"{weights.url} cannot be fetched ({error}): put {file} into {cache}") from error
    return tensors


def build_model(
    config: PoseConfig, init: Init | None = None, *, marginal: bool = True, seed: int = 0
) -> tuple[SimCC, list[str]]:
    """A new model, and the parts of it that did not come from init, as sentences for the user.

    From a pose model all tensors that fit are used: the classifiers are resampled to another input size or split ratio;
    with other keypoints only the layer of keypoint maps is initialised randomly. Raises DataError where the backbones
    differ.
    """
    torch.manual_seed(seed)
    model = SimCC(config)
    initialise_head(model, config, marginal)
    if init is None:
        return model, ["everything starts at random"]
    if init.config is None:
        _load_backbone(model, {name.removeprefix("features."): t for name, t in init.tensors.items()}, config)
        return model, ["the head starts anew"]
    old = init.config
    state = dict(init.tensors)
    _load_backbone(
        model, {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}, config
    )
    if _head(old) != _head(config):
        there = old.head if old.head != config.head else f"{list(old.deconv_channels)} deconvolutions"
        return model, [f"the head starts anew: {there} there, other ones here"]
    state = resample_classifiers(state, old, config)
    notes = []
    for head, called in (("person_score", "person score"), ("box_head", "box head")):
        if getattr(old, head) and not getattr(config, head):
            state = {name: tensor for name, tensor in state.items() if not name.startswith(f"{head}.")}
            notes.append(f"the {called} is left out")
        elif getattr(config, head) and not getattr(old, head):
            state |= {name: tensor for name, tensor in model.state_dict().items() if name.startswith(f"{head}.")}
            notes.append(f"the {called} starts anew")
    if (old.input_size, old.split_ratio) != (config.input_size, config.split_ratio):
        notes.append("the classifiers are resampled to this input size and split ratio")
    if old.keypoints.names != config.keypoints.names:
        notes.append(f"the maps of {len(config.keypoints)} keypoints start anew ({len(old.keypoints)} there)")
        state |= {name: tensor for name, tensor in model.state_dict().items() if name.startswith(_MAPS)}
    model.load_state_dict(state)
    return model, notes


def _head(config: PoseConfig) -> tuple[object, ...]:
    return config.head, config.attention, config.deconv_channels, config.deconv_kernel, config.laterals


def _load_backbone(model: SimCC, found: Mapping[str, Tensor], config: PoseConfig) -> None:
    own = model.backbone.state_dict()
    missing = [name for name in own if name not in found or not _alike(found[name], own[name])]
    if missing:
        raise DataError(f"the backbone's weights lack {len(missing)} tensors of {config.backbone}, first {missing[0]}")
    broken = next((name for name in own if not bounded(found[name])), None)
    if broken is not None:
        raise DataError(
            f"the backbone's weights are damaged: {broken} holds values that are not finite, or beyond all sense"
        )
    model.backbone.load_state_dict({name: found[name] for name in own})


def _alike(found: Tensor, own: Tensor) -> bool:
    """Whether one tensor can replace the other: equal shape, both floating-point or both integer."""
    real = found.is_floating_point() == own.is_floating_point() and not found.is_complex()
    return found.shape == own.shape and real and not found.is_sparse and not found.is_quantized
