"""Networks of MMPose with random weights and what they answer, as the fixtures of tests/test_foreign.py.

Run in an environment of its own, outside of the repository:

    python -m venv mmpose-venv
    mmpose-venv/bin/pip install torch torchvision
    mmpose-venv/bin/pip install --no-deps mmpose==1.3.2 mmcv-lite==2.2.0 mmengine==0.10.7 addict yapf termcolor \
        json_tricks munkres six pyyaml platformdirs rich scipy opencv-python matplotlib
    mmpose-venv/bin/python recipes/mmpose_fixtures.py tests/fixtures/mmpose.npz

MMPose's evaluation (xtcocotools), its operators in C++ (mmcv._ext) and mmdet are not needed to build these networks;
empty modules stand for them. Weights are not stored: each is drawn by numpy's RandomState, which is the same
everywhere, in the order of the state dict (`drawn`, which the test calls too).
"""

import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

WIDEN, DEEPEN = 0.125, 0.167


def cspnext() -> dict[str, Any]:
    return {
        "type": "CSPNeXt", "arch": "P5", "expand_ratio": 0.5, "deepen_factor": DEEPEN, "widen_factor": WIDEN,
        "channel_attention": True, "norm_cfg": {"type": "BN"}, "act_cfg": {"type": "SiLU"}, "init_cfg": None,
    }  # fmt: skip


def gau() -> dict[str, Any]:
    return {
        "hidden_dims": 256, "s": 128, "expansion_factor": 2, "dropout_rate": 0.0, "drop_path": 0.0, "act_fn": "SiLU",
        "use_rel_bias": False, "pos_enc": False,
    }  # fmt: skip


def head(kind: str, channels: int, keypoints: int, size: tuple[int, int], **more: Any) -> dict[str, Any]:
    width, height = size
    codec = {"type": "SimCCLabel", "input_size": size, "sigma": (4.9, 5.66), "simcc_split_ratio": 2.0}
    return {
        "type": kind, "in_channels": channels, "out_channels": keypoints, "input_size": size,
        "in_featuremap_size": (width // 32, height // 32), "simcc_split_ratio": 2.0,
        "loss": {"type": "KLDiscretLoss", "use_target_weight": True}, "decoder": codec, **more,
    }  # fmt: skip


def rtmpose(keypoints: int, size: tuple[int, int] = (192, 256)) -> dict[str, Any]:
    more = {"final_layer_kernel_size": 7, "gau_cfg": gau()}
    neck = None
    backbone = {**cspnext(), "out_indices": (4,)}
    return {"backbone": backbone, "neck": neck, "head": head("RTMCCHead", 128, keypoints, size, **more)}


def rtmw(keypoints: int, size: tuple[int, int] = (192, 256)) -> dict[str, Any]:
    neck = {
        "type": "CSPNeXtPAFPN", "in_channels": [32, 64, 128], "out_channels": None, "out_indices": (1, 2),
        "num_csp_blocks": 2, "expand_ratio": 0.5, "norm_cfg": {"type": "BN"},
        "act_cfg": {"type": "SiLU", "inplace": True},
    }  # fmt: skip
    more = {"final_layer_kernel_size": 7, "gau_cfg": gau()}
    return {"backbone": cspnext(), "neck": neck, "head": head("RTMWHead", 128, keypoints, size, **more)}


def simcc(backbone: dict[str, Any], channels: int, deconv: tuple[int, ...] | None) -> dict[str, Any]:
    more: dict[str, Any] = {"deconv_out_channels": deconv, "deconv_kernel_sizes": (4,) * len(deconv or ())}
    more |= {"final_layer": {"kernel_size": 1}} if deconv is None else {}
    return {"backbone": backbone, "neck": None, "head": head("SimCCHead", channels, 17, (192, 256), **more)}


MODELS = {
    "rtmpose-17": rtmpose(17),
    "rtmpose-26": rtmpose(26),
    "rtmpose-133-384x288": rtmpose(133, (288, 384)),
    "rtmw-133": rtmw(133),
    "simcc-resnet18": simcc({"type": "ResNet", "depth": 18}, 512, (32, 32)),
    "simcc-resnet50": simcc({"type": "ResNet", "depth": 50}, 2048, (16, 16, 16)),
    "simcc-mobilenetv2": simcc({"type": "MobileNetV2", "widen_factor": 1.0, "out_indices": (7,)}, 1280, None),
}


def drawn(name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
    """A tensor of random weights that keep the signal's size: float32, counters of norms int64."""
    if name.endswith("num_batches_tracked"):
        return np.array(1, np.int64)
    values = random.standard_normal(shape)
    if name.endswith("running_var"):
        values = 1 + 0.3 * np.tanh(values)
    elif len(shape) > 1:
        values *= (1.5 / np.prod(shape[1:])) ** 0.5
    elif name.endswith(("weight", ".g", ".scale")):
        values = 1 + 0.2 * values
    else:
        values *= 0.1
    return values.astype(np.float32)


def import_mmpose() -> Any:
    """MMPose's registry of models, without the parts that need more packages."""
    for name in (
        *(f"xtcocotools{part}" for part in ("", ".coco", ".cocoeval", ".mask")),
        *(f"mmcv.ops{part}" for part in ("", ".multi_scale_deform_attn")),
        *(f"mmdet{p}" for p in ("", ".utils", ".models", ".models.losses", ".registry", ".structures")),
        "mmdet.structures.bbox",
    ):
        module = types.ModuleType(name)
        vars(module).update(__path__=[], __file__="none", __spec__=importlib.machinery.ModuleSpec(name, None))
        vars(module)["__getattr__"] = lambda _: object
        sys.modules[name] = module
    from mmpose import models  # noqa: F401
    from mmpose.registry import MODELS as REGISTRY

    return REGISTRY


def main(target: str) -> None:
    registry = import_mmpose()
    arrays: dict[str, Any] = {}
    for seed, (name, config) in enumerate(MODELS.items()):
        width, height = config["head"]["input_size"]
        model = registry.build({"type": "TopdownPoseEstimator", "test_cfg": {"flip_test": False}, **config}).eval()
        random = np.random.RandomState(seed)
        state = {key: drawn(key, tuple(value.shape), random) for key, value in model.state_dict().items()}
        model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        crops = random.standard_normal((1, 3, height, width)).astype(np.float32)
        with torch.no_grad():
            features = model.extract_feat(torch.from_numpy(crops))
            x, y = model.head.forward(features)
        arrays[f"{name}.x"], arrays[f"{name}.y"] = x.numpy()[:, ::4], y.numpy()[:, ::4]
        shapes = [[key, list(value.shape)] for key, value in model.state_dict().items()]
        facts = {"seed": seed, "size": [height, width], "shapes": shapes, "keypoints": config["head"]["out_channels"]}
        arrays[f"{name}.facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        print(name, len(shapes), "tensors", "largest logit", float(x.abs().max()), float(y.abs().max()), flush=True)
    np.savez_compressed(Path(target), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
