"""`train --init NAME` fine-tunes an imported model: the head with attention is taken along."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from posecli.keypoints import KEYPOINT_SETS
from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC
from posecli.train.init import build_model, read_init
from posecli.weights.files import save_weights
from tests.test_pose_heads import SMALL


@pytest.mark.parametrize("head", ["rtmcc", "rtmw"])
def test_a_model_by_its_name_gives_all_tensors_and_gradients_reach_them(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSECLI_WEIGHTS_DIR", str(tmp_path))
    config = replace(SMALL, head=head)
    network = SimCC(config)
    header = {"kind": "pose", "config": config.to_json()}
    save_weights(tmp_path / "mine.safetensors", network.state_dict(), header)
    init = read_init("mine", "mobilenet_v2")
    assert init.config == config
    model, notes = build_model(config, init)
    assert not notes
    for name, tensor in network.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    x, y = model(torch.rand(2, 3, 96, 64))
    (x.square().mean() + y.square().mean()).backward()
    assert all(
        p.grad is not None and p.grad.abs().max() > 0 for p in model.get_submodule("head.attention").parameters()
    )


@pytest.mark.parametrize("head", ["rtmcc", "rtmw"])
def test_other_keypoints_and_sizes_start_only_the_maps_anew(head: str, tmp_path: Path) -> None:
    old = replace(SMALL, head=head)
    network = SimCC(old)
    path = tmp_path / "old.safetensors"
    save_weights(path, network.state_dict(), {"kind": "pose", "config": old.to_json()})
    new = replace(old, keypoints=KEYPOINT_SETS["hand21"], input_size=(128, 128), person_score=True)
    model, notes = build_model(new, read_init(str(path), "cspnext"))
    assert [x.shape[1:] for x in model.eval()(torch.rand(1, 3, 128, 128))[:2]] == [(21, 256), (21, 256)]
    assert len(notes) == 3 and "the maps of 21 keypoints start anew (17 there)" in notes
    kept = model.get_submodule("head.attention").state_dict()
    for name, tensor in network.get_submodule("head.attention").state_dict().items():
        assert torch.equal(kept[name], tensor), name


def test_another_head_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_weights(path, SimCC(SMALL).state_dict(), {"kind": "pose", "config": SMALL.to_json()})
    new: PoseConfig = replace(SMALL, head="simcc", deconv_channels=(8,))
    _, notes = build_model(new, read_init(str(path), "cspnext"))
    assert notes == ["the head starts anew: rtmcc there, other ones here"]
