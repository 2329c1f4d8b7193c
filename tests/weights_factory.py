"""Small models' weights files, complete and with changed headers."""

import json
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posecli.detect.person import build_fcos
from posecli.detect.person_config import PersonConfig
from posecli.errors import PosecliError
from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC
from posecli.weights.files import HEADER_KEY, save_weights

POSE = PoseConfig(backbone="resnet18", deconv_channels=(), input_size=(64, 32), sigma=(1.5, 1.5))


PERSON = PersonConfig(channels=32, convolutions=1, input_size=(192, 192))


@cache
def model_file(kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of a small model."""
    torch.manual_seed(1)
    if kind == "pose":
        return SimCC(POSE).state_dict(), {"kind": "pose", "config": POSE.to_json()}
    return build_fcos(PERSON).state_dict(), {"kind": "detector", "config": vars(PERSON)}


def raw_file(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def with_document(path: Path, document: Any) -> Path:
    """A safetensors file without tensors under posecli's key."""
    text = document if isinstance(document, str) else json.dumps(document)
    return raw_file(path, json.dumps({"__metadata__": {HEADER_KEY: text}}).encode())


def with_config(path: Path, kind: str = "pose", **changes: Any) -> Path:
    """A whole file, but for some values of its configuration; None leaves a key out."""
    tensors, header = model_file(kind)
    config = {key: value for key, value in {**header["config"], **changes}.items() if value is not ...}
    save_weights(path, tensors, {**header, "config": config})
    return path


def one_line(error: PosecliError) -> str:
    text = str(error)
    assert len(text.splitlines()) == 1 and len(text) < 600, text
    assert text.isprintable(), text
    return text


def png(pixels: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", pixels)[1].tobytes()
