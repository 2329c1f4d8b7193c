"""`train --init NAME` fine-tunes an imported model: the head with attention is taken along. `eval`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.kites import write_part
from posecli.annotations.coco_keypoints import read_annotations
from posecli.keypoints import KEYPOINT_SETS
from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC
from posecli.train.init import build_model, read_init
from posecli.weights.files import load_weights, save_weights
from tests.entry_points import posecli
from tests.media_factory import write_photo
from tests.test_foreign import checkpoint
from tests.test_foreign import model as foreign
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


def test_the_command_line_trains_and_evaluates_an_imported_model(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MMPose's checkpoint, imported, fine-tuned on four keypoints, and evaluated."""
    monkeypatch.setenv("POSECLI_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    source = checkpoint(tmp_path / "x.pth", foreign("rtmpose-17").state)
    assert posecli(capfd, "weights", "import", source, "--name", "mine").code == 0
    write_part(tmp_path / "kites", "train", 8, seed=0)
    write_part(tmp_path / "kites", "val", 4, seed=1)
    data = ("--ann", "kites/train.json", "--images", "kites/train", "--device", "cpu")
    validation = ("--val-ann", "kites/val.json", "--val-images", "kites/val")
    size = ("--stages", "64x64:16", "--batch-size", "8", "--workers", "0")
    trained = posecli(capfd, "train", "--name", "k", *data, *validation, *size, "--init", "mine")
    assert trained.code == 0, trained.err
    assert "the maps of 4 keypoints start anew (17 there)" in trained.err
    config = PoseConfig.from_json(load_weights(Path("runs/k/last.safetensors"))[1]["config"])
    assert (config.backbone, config.head, config.temperature, len(config.keypoints)) == ("cspnext", "rtmcc", 10, 4)
    measured = ("eval", "--ann", "kites/val.json", "--images", "kites/val", "--out", "eval")
    on_cpu = ("--device", "cpu", "--runtime", "torch")
    assert posecli(capfd, *measured, "--weights", "runs/k/last.safetensors", *on_cpu).code == 0
    assert json.loads(Path("eval/metrics.json").read_text())["input_size"] == [64, 64]
    told = {
        (
            *measured,
            "--weights",
            "mine",
            *on_cpu,
        ): 'other keypoints (17 of "coco17") than the annotations have (4 of "kite")',
        ("train", "--name", "l", *data, *size, "--init", source): "posecli weights import x.pth",
        ("train", "--name", "l", *data, *size, "--init", "mine", "--backbone", "resnet18"): "--init has cspnext",
    }
    for command, message in told.items():
        result = posecli(capfd, *command)
        assert result.code and result.err.splitlines()[-1].startswith("posecli: ") and message in result.err
        assert "\x1b" not in result.err


def test_whole_bodies_are_evaluated_on_cocos_own_file_of_them(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Feet, face and hands stand beside COCO's 17 keypoints there; a person may lack one of the lists."""
    random = np.random.default_rng(0)
    parts = {"keypoints": 17, "foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}
    people, results, images = [], [], []
    for i in range(3):
        write_photo(tmp_path / f"{i}.png", random.integers(0, 255, (96, 64, 3), np.uint8))
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 96})
        lists = {k: np.column_stack([random.uniform(8, 56, (n, 2)), np.full(n, 2.0)]) for k, n in parts.items()}
        joined = np.concatenate(list(lists.values()))
        person = {"id": i, "image_id": i, "category_id": 1, "bbox": [4, 4, 56, 88], "iscrowd": 0, "area": 4000}
        person |= {key: values.ravel().tolist() for key, values in lists.items()} | {"num_keypoints": 17}
        people.append(person)
        results.append({"image_id": i, "category_id": 1, "score": 1.0, "keypoints": joined.ravel().tolist()})
    del people[0]["face_kpts"]
    category = {"id": 1, "name": "person", "keypoints": list(KEYPOINT_SETS["coco17"].names)}
    file = tmp_path / "coco_wholebody_val_v1.0.json"
    file.write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    truth = read_annotations(file)
    assert truth.keypoint_set == KEYPOINT_SETS["coco_wholebody"]
    assert [person["num_keypoints"] for person in truth.people] == [133 - 68, 133, 133]
    assert truth.people[1]["keypoints"] == results[1]["keypoints"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    data = ("eval", "--ann", file, "--images", tmp_path)
    scored = posecli(capfd, *data, "--results", tmp_path / "results.json", "--out", tmp_path / "a")
    assert scored.code == 0, scored.err
    assert json.loads((tmp_path / "a" / "metrics.json").read_text())["AP"] == 1
    assert posecli(capfd, "weights", "import", checkpoint(tmp_path / "x.pth", foreign("rtmw-133").state),
                   "--out", tmp_path / "w.safetensors").code == 0  # fmt: skip
    on_cpu = ("--device", "cpu", "--runtime", "torch", "--out", tmp_path / "b")
    measured = posecli(capfd, *data, "--weights", tmp_path / "w.safetensors", *on_cpu)
    assert measured.code == 0, measured.err
    assert len(json.loads((tmp_path / "b" / "coco_results.json").read_text())[0]["keypoints"]) == 3 * 133
    file.write_text(
        json.dumps({"images": images, "annotations": [people[1] | {"face_kpts": [1, 2]}], "categories": [category]})
    )
    broken = posecli(capfd, *data, "--results", tmp_path / "results.json", "--out", tmp_path / "c")
    assert broken.code == 1 and "keypoint values, not 399" in broken.err
