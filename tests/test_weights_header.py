"""Values of a weights file's header, and tensors that do not fit it: one line each."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from posecli.detect import load_detector
from posecli.errors import DataError
from posecli.pose.config import PoseConfig
from posecli.pose.loading import load_network
from posecli.pose.network import SimCC
from posecli.weights.files import load_weights, save_weights
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture
from tests.weights_factory import PERSON, POSE, model_file, one_line, png, with_config

WRONG_POSE: dict[str, dict[str, Any]] = {
    "missing": {"sigma": ...},
    "null": {"temperature": None},
    "unknown": {"depth": 3},
    "unknown, hostile": {"a\n\x1b[31m": 3},
    "bool for a number": {"split_ratio": True},
    "number for a bool": {"laterals": 1},
    "text for a number": {"std_scale": "1.0"},
    "NaN": {"temperature": math.nan},
    "infinite": {"std_scale": math.inf},
    "a number of 400 digits": {"split_ratio": 10**400},
    "huge": {"input_size": [10**9, 10**9]},
    "huge, a multiple of 32": {"input_size": [32 * 10**7, 32 * 10**7]},
    "large classifiers": {"input_size": [4096, 4096]},
    "negative": {"input_size": [-64, 32]},
    "one side": {"input_size": [64]},
    "a fraction": {"input_size": [64.5, 32]},
    "zero": {"sigma": [0, 1]},
    "backbone a list": {"backbone": ["resnet18"]},
    "backbone unknown": {"backbone": "../../x"},
    "many convolutions": {"deconv_channels": [1] * 1000},
    "wide convolutions": {"deconv_channels": [10**8]},
    "other convolutions": {"deconv_channels": [8, 8]},
    "nested": {"deconv_channels": [[8]]},
    "keypoints a list": {"keypoints": [1]},
    "keypoints null": {"keypoints": None},
    "preprocessing empty": {"preprocessing": {}},
    "box head without person score": {"box_head": True},
}


@pytest.mark.parametrize("wrong", WRONG_POSE.values(), ids=WRONG_POSE)
def test_a_wrong_pose_configuration_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = with_config(tmp_path / "x.safetensors", **wrong)
    with pytest.raises(DataError) as caught:
        load_network(path)
    assert str(path) in one_line(caught.value)


@pytest.mark.parametrize(
    "keypoints",
    [
        {"names": []},
        {"names": ["nose"] * 17},
        {"names": [1] * 17},
        {"names": "nose"},
        {"skeleton": [[0, 17]]},
        {"skeleton": [[0, -1]]},
        {"skeleton": [[1]]},
        {"skeleton": [["a", "b"]]},
        {"flip_pairs": [[1, 2], [2, 3]]},
        {"flip_pairs": [[1, 1], [1, 2]]},
        {"sigmas": [0.1]},
        {"sigmas": [0] * 17},
        {"sigmas": [math.nan] * 17},
        {"name": 5},
        {"colour": "red"},
    ],
)
def test_wrong_keypoints_are_one_line(tmp_path: Path, keypoints: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        load_network(with_config(tmp_path / "x.safetensors", keypoints={**POSE.to_json()["keypoints"], **keypoints}))
    one_line(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"std": [0, 1, 1]}, {"channels": "GBR"}, {"mean": [1]}, {"padding": -1}, {"more": 1}]
)
def test_wrong_preprocessing_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    values = {**POSE.to_json()["preprocessing"], **wrong}
    with pytest.raises(DataError) as caught:
        load_network(with_config(tmp_path / "x.safetensors", preprocessing=values))
    one_line(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_size": [10**9, 10**9]},
        {"input_size": 416},
        {"input_size": [0, 0]},
        {"input_size": [True, True]},
        {"channels": 10**9},
        {"channels": 33},
        {"channels": "32"},
        {"convolutions": 10**6},
        {"convolutions": -1},
        {"convolutions": 2},
        {"threshold": math.nan},
        {"threshold": 7},
        {"proposal": None},
        {"nms_iou": []},
        {"mean": [1, 2]},
        {"std": [0, 0, 0]},
        {"classes": 80},
    ],
)
def test_a_wrong_detector_configuration_is_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = with_config(tmp_path / "x.safetensors", "detector", **wrong)
    with pytest.raises(DataError) as caught:
        load_detector("person", weights=path, device="cpu", runtime="torch")
    assert str(path) in one_line(caught.value)


def test_names_of_older_files_are_read_as_today_s(tmp_path: Path) -> None:
    config = PoseConfig(
        backbone="resnet18", deconv_channels=(), input_size=(64, 32), sigma=(1, 1), person_score=True, box_head=True
    )
    torch.manual_seed(1)
    tensors = SimCC(config).state_dict()
    old = {"backbone.": "trunk.", "person_score.": "presence.", "box_head.": "extent."}
    names = {
        name: next((o + name.removeprefix(n) for n, o in old.items() if name.startswith(n)), name) for name in tensors
    }
    values = config.to_json()
    values["presence"], values["extent"] = values.pop("person_score"), values.pop("box_head")
    path = tmp_path / "old.safetensors"
    save_weights(path, {names[name]: tensor for name, tensor in tensors.items()}, {"kind": "pose", "config": values})
    network, found = load_network(path)
    assert found == config and sum(old != new for old, new in names.items()) > 60
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())
    save_weights(path, tensors, {"kind": "pose", "config": {**values, "box_head": True}})
    with pytest.raises(DataError, match="unknown key 'extent'"):
        load_network(path)


def test_older_headers_without_later_keys_are_read(tmp_path: Path) -> None:
    _, config = load_network(with_config(tmp_path / "x.safetensors", laterals=..., person_score=..., box_head=...))
    assert config == POSE
    detector = with_config(tmp_path / "y.safetensors", "detector", proposal=...)
    assert load_detector("person", weights=detector, device="cpu", runtime="torch").threshold == PERSON.threshold


def _change(tensors: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    name = "final.weight" if "final.weight" in tensors else "head.scores.0.weight"
    tensor = tensors[name]
    changes: dict[str, dict[str, torch.Tensor]] = {
        "shape": {name: tensor.flatten()},
        "integers": {name: tensor.to(torch.int8)},
        "booleans": {name: tensor > 0},
        "complex": {name: tensor.to(torch.complex64)},
        "nan": {name: tensor * math.nan},
        "huge": {name: tensor.abs() * 1e30 + 1e30},
        "extra": {"x\ny": torch.zeros(1)},
    }
    if kind == "missing":
        return {key: value for key, value in tensors.items() if key != name}
    return {**tensors, **changes.get(kind, {})}


@pytest.mark.parametrize("change", ["shape", "integers", "booleans", "complex", "nan", "huge", "extra", "missing"])
@pytest.mark.parametrize("kind", ["pose", "detector"])
def test_tensors_that_do_not_fit_are_one_line(tmp_path: Path, kind: str, change: str) -> None:
    tensors, header = model_file(kind)
    path = tmp_path / "x.safetensors"
    save_weights(path, _change(tensors, change), header)
    with pytest.raises(DataError) as caught:
        if kind == "pose":
            load_network(path)
        else:
            load_detector("person", weights=path, device="cpu", runtime="torch")
    assert str(path) in one_line(caught.value)


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    tensors, header = model_file("pose")
    save_weights(
        tmp_path / "h.safetensors", {n: t.half() if t.is_floating_point() else t for n, t in tensors.items()}, header
    )
    network, _ = load_network(tmp_path / "h.safetensors")
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_weights_that_answer_without_numbers_give_no_poses(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], tiny_weights: Path
) -> None:
    tensors, header = load_weights(tiny_weights)
    loud = {name: tensor * 1e12 if name.startswith("deconv.0") else tensor for name, tensor in tensors.items()}
    loud |= {name: loud[name] * 1e12 for name in ("final.weight", "fc_x.weight")}
    loud |= {name: tensor * 0 + 1e-12 for name, tensor in loud.items() if name == "deconv.1.running_var"}
    save_weights(tmp_path / "loud.safetensors", loud, header)
    (tmp_path / "a.png").write_bytes(png(picture(32, 64)))
    run = ("run", tmp_path / "a.png", "-o", tmp_path / "out", "--weights", tmp_path / "loud.safetensors", *QUICK)
    result = posecli(capfd, *run)
    assert result.code == 1 and "its weights are damaged" in result.err and "unexpected" not in result.err
