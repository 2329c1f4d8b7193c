"""Modules prepared for inference on a torch device: batch norms folded, weights in the lower precision."""

import copy
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# The arithmetic of these is most of a network's; the others keep float32 parameters, as with autocast.
_PRODUCTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_LOWER = {"float16": torch.float16, "bfloat16": torch.bfloat16}

Prepared = Callable[[Tensor], tuple[Tensor, ...]]


def prepare(module: nn.Module, device: torch.device, precision: str, *, compiled: bool = False) -> Prepared:
    """The module as a function on the device, with float32 outputs.

    precision: "float32", "float16" or "bfloat16", by autocast; the weights of convolutions and linear layers are stored
    in it. The module itself is not changed. compiled: by torch.compile, which chooses kernels by their time: for
    measurements.
    """
    ready = fold_norms(copy.deepcopy(module).eval()).requires_grad_(False)
    ready.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    lower = _LOWER.get(precision)
    if lower is not None:
        for layer in ready.modules():
            if isinstance(layer, _PRODUCTS):
                layer.to(lower)

    called = torch.compile(ready, mode="max-autotune-no-cudagraphs") if compiled else ready

    def run(pixels: Tensor) -> tuple[Tensor, ...]:
        # Kernels are not chosen by their time: another one may be chosen in another run, with other rounding errors.
        kernels = cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with kernels, torch.autocast(device.type, lower, enabled=lower is not None, cache_enabled=False):
            outputs = called(pixels)
        return tuple(output.float() for output in (outputs if isinstance(outputs, tuple) else (outputs,)))

    return run


def fold_norms(module: nn.Module) -> nn.Module:
    """The module with each batch norm that directly follows a convolution folded into it, in place.

    Found are neighbours in an nn.Sequential, and pairs convN, bnN of a module, as in torchvision's ResNets; not in the
    children that a module's called_singly names, which it does not call as a sequence. A module in evaluation mode
    gives the same outputs up to rounding errors.
    """
    left = {id(getattr(owner, name)) for owner in module.modules() for name in getattr(owner, "called_singly", ())}
    # A convolution that is used with several norms cannot be folded.
    uses = Counter(id(child) for _, child in module.named_modules(remove_duplicate=False))
    for parent in list(module.modules()):
        for before, after in _neighbours(parent) if id(parent) not in left else ():
            convolution, norm = parent.get_submodule(before), parent.get_submodule(after)
            if isinstance(norm, nn.BatchNorm2d) and uses[id(convolution)] == uses[id(norm)] == 1:
                if isinstance(convolution, nn.Conv2d):
                    setattr(parent, before, fuse_conv_bn_eval(convolution, norm))
                elif isinstance(convolution, nn.ConvTranspose2d):
                    setattr(parent, before, fuse_conv_bn_eval(convolution, norm, transpose=True))
                else:
                    continue
                setattr(parent, after, nn.Identity())
    return module


def _neighbours(parent: nn.Module) -> list[tuple[str, str]]:
    """Names of children whose second one takes the output of the first."""
    names = [name for name, _ in parent.named_children()]
    if isinstance(parent, nn.Sequential) and type(parent).forward is nn.Sequential.forward:
        return list(pairwise(names))
    pairs = ((name, f"bn{name.removeprefix('conv')}") for name in names if name.startswith("conv"))
    return [pair for pair in pairs if pair[1] in names]
