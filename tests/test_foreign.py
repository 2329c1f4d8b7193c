"""Foreign checkpoints imported: the same answers as MMPose's own networks, whatever the file looks like.

fixtures/mmpose.npz is made with MMPose 1.3.2 by recipes/mmpose_fixtures.py: names and shapes of the tensors, a seed for
their values, and the logits for a crop of noise (every fourth keypoint).
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from posecli.keypoints import KEYPOINT_SETS
from posecli.pose.loading import load_network
from posecli.pose.runner import load_runner
from posecli.weights.files import load_weights
from recipes.mmpose_fixtures import drawn
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture

FIXTURES = Path(__file__).parent / "fixtures" / "mmpose.npz"
NAMES = sorted({name.rpartition(".")[0] for name in np.load(FIXTURES).files})
HEADS = {"rtmpose": "rtmcc", "rtmw": "rtmw", "simcc": "simcc"}


class Model(NamedTuple):
    state: dict[str, torch.Tensor]
    crops: torch.Tensor
    logits: tuple[np.ndarray, np.ndarray]
    facts: dict[str, Any]


@cache
def model(name: str) -> Model:
    """A network of MMPose's with its input and output."""
    arrays = np.load(FIXTURES)
    facts = json.loads(arrays[f"{name}.facts"].tobytes())
    random = np.random.RandomState(facts["seed"])
    state = {key: torch.from_numpy(drawn(key, tuple(shape), random)) for key, shape in facts["shapes"]}
    crops = torch.from_numpy(random.standard_normal((1, 3, *facts["size"])).astype(np.float32))
    return Model(state, crops, (arrays[f"{name}.x"], arrays[f"{name}.y"]), facts)


def checkpoint(path: Path, state: dict[str, torch.Tensor], **beside: Any) -> Path:
    """As mmengine's published ones: torch's older format, a meta with numpy's objects."""
    meta = {"epoch": 420, "seed": np.int64(1), "cfg": "model = dict()", **beside}
    torch.save({"meta": meta, "state_dict": state}, path, _use_new_zipfile_serialization=False)
    return path


def imported(capfd: pytest.CaptureFixture[str], source: Path, *options: object) -> Path:
    """The weights that `posecli weights import` writes."""
    target = source.with_suffix(".posecli.safetensors")
    result = posecli(capfd, "weights", "import", source, "--out", target, *options)
    assert result.code == 0, result.err
    return target


def answer(path: Path, crops: torch.Tensor) -> list[np.ndarray]:
    network, _ = load_network(path)
    with torch.no_grad():
        return [logits.numpy() for logits in network(crops)]


def assert_same(found: list[np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.abs(ours[:, ::4] - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("name", NAMES)
def test_the_answers_are_those_of_mmpose(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state, crops, logits, facts = model(name)
    path = imported(capfd, checkpoint(tmp_path / "model.pth", state))
    assert_same(answer(path, crops), logits)
    _, config = load_network(path)
    assert config.head == HEADS[name.split("-")[0]]
    assert list(config.input_size) == facts["size"] and config.split_ratio == 2
    expected = {17: "coco17", 26: "halpe26", 133: "coco_wholebody"}[facts["keypoints"]]
    assert config.keypoints == KEYPOINT_SETS[expected]
    assert config.temperature == (10 if config.head == "rtmcc" else 1)


@pytest.mark.parametrize("name", ["rtmpose-17", "rtmw-133"])
def test_openvino_agrees_with_torch(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path / "cache"))
    network, config = load_network(imported(capfd, checkpoint(tmp_path / "model.pth", model(name).state)))
    crops = np.stack([picture(config.input_size[1], config.input_size[0], seed) for seed in range(2)])
    found = [
        load_runner(lambda: network, config, device="cpu", runtime=name)(crops).logits for name in ("torch", "openvino")
    ]
    for torchs, openvinos in zip(*found, strict=True):
        assert np.abs(torchs - openvinos).max() < 1e-3 * np.abs(torchs).max()


def test_there_is_a_fixture_of_each_kind_and_they_are_small() -> None:
    kinds = ("rtmpose-17", "rtmpose-26", "rtmpose-133", "rtmw", "simcc-resnet", "simcc-mobilenetv2")
    assert all(any(name.startswith(kind) for name in NAMES) for kind in kinds)
    assert FIXTURES.stat().st_size < 2_000_000


def test_the_head_may_have_any_of_its_three_names(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state, crops, logits, _ = model("simcc-resnet18")
    for old, new in (
        ("head.deconv_head.", "head.simplebaseline_head."),
        ("head.deconv_head.", "head."),
        ("head.", "keypoint_head."),
    ):
        renamed = {name.replace(old, new, 1) if name.startswith(old) else name: t for name, t in state.items()}
        assert renamed.keys() != state.keys()
        path = imported(capfd, checkpoint(tmp_path / f"{new}pth", renamed))
        assert_same(answer(path, crops), logits)


def test_a_training_checkpoint_is_imported_without_what_stands_beside_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state, crops, logits, _ = model("rtmpose-17")
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    whole = {
        "meta": {"experiment_name": "mine", "epoch": 7},
        "state_dict": {"data_preprocessor.mean": torch.zeros(3), **{f"module.{n}": t for n, t in state.items()}},
        "optimizer": optimizer.state_dict(),
        "message_hub": {"log_scalars": {"loss": np.arange(9)}, "random": np.random.RandomState(1)},
        "param_schedulers": [{"last_step": 3}],
        "ema_state_dict": {f"module.{name}": tensor + 1 for name, tensor in state.items()},
    }
    torch.save(whole, tmp_path / "epoch_7.pth")
    path = imported(capfd, tmp_path / "epoch_7.pth", "--licence", "Apache-2.0", "--source", "https://example.org/x")
    assert_same(answer(path, crops), logits)
    _, header = load_weights(path)
    assert header["licence"] == "Apache-2.0" and header["source"] == "https://example.org/x"
    assert header["imported"]["epoch"] == 7 and len(header["imported"]["sha256"]) == 64


def test_a_plain_state_dict_and_safetensors_are_imported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state, crops, logits, _ = model("rtmpose-26")
    torch.save(state, tmp_path / "plain.pth")
    save_file(state, tmp_path / "foreign.safetensors")
    for source in (tmp_path / "plain.pth", tmp_path / "foreign.safetensors"):
        path = imported(capfd, source)
        assert_same(answer(path, crops), logits)
        assert load_weights(path)[1]["licence"] == "not given"


def test_simccs_own_repository_and_the_original_project(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state, crops, logits, _ = model("simcc-resnet18")
    bare = {
        n.replace("backbone.", "", 1).replace("head.deconv_head.", "").replace("head.", ""): t for n, t in state.items()
    }
    assert "mlp_head_x.weight" in bare and "conv1.weight" in bare
    torch.save({"epoch": 3, "state_dict": bare, "optimizer": {}}, tmp_path / "simcc.pth")
    assert_same(answer(imported(capfd, tmp_path / "simcc.pth"), crops), logits)
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    original = {}
    for name, tensor in bare.items():
        first, _, rest = name.partition(".")
        name = f"backbone.{numbers[first]}.{rest}" if first in numbers else name
        original[name.replace("mlp_head_x", "head.fc_x").replace("mlp_head_y", "head.fc_y")] = tensor
    torch.save(original, tmp_path / "original.pth")
    path = imported(capfd, tmp_path / "original.pth")
    assert_same(answer(path, crops), logits)
    config = load_network(path)[1]
    assert config.sigma == (20, 20) and config.preprocessing.std == (255, 255, 255)


def test_the_meta_and_the_options_say_what_the_tensors_cannot(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = model("rtmpose-17").state
    animal = KEYPOINT_SETS["ap10k"]
    data = {"dataset_name": "ap10k", "keypoint_id2name": dict(enumerate(animal.names)), "sigmas": np.ones(17)}
    path = imported(capfd, checkpoint(tmp_path / "a.pth", state, dataset_meta=data))
    assert load_network(path)[1].keypoints == animal
    path = imported(capfd, checkpoint(tmp_path / "rtmpose-m_ap10k.pth", state))
    assert load_network(path)[1].keypoints == animal
    text = "codec = dict(type='SimCCLabel', input_size=(192, 256), sigma=(3.0, 4.0), simcc_split_ratio=2.0)"
    path = imported(capfd, checkpoint(tmp_path / "b.pth", state, cfg=text), "--keypoints", "ap10k")
    config = load_network(path)[1]
    assert config.keypoints == animal and config.sigma == pytest.approx((3 / 10**0.5, 4 / 10**0.5))
    path = imported(capfd, checkpoint(tmp_path / "c.pth", state), "--sigma", 5, "--temperature", 2)
    assert load_network(path)[1].sigma == (5, 5) and load_network(path)[1].temperature == 2


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        (lambda state: state.pop("head.cls_x.weight"), (), "is missing"),
        (lambda state: state.update({"head.gau.w": torch.ones(33)}), (), "also holds 1 tensors"),
        (lambda state: state.update({"backbone.stem.0.conv.weight": torch.ones(4, 3, 3, 3)[:3]}), (), "is 3×3×3×3"),
        (lambda state: state.update({"head.mlp.0.g": torch.tensor([np.nan])}), (), "not finite"),
        (lambda state: state.clear(), (), "not a model's tensors"),
        (lambda state: None, ("--keypoints", "halpe26"), "17 keypoints, the set halpe26 26"),
        (lambda state: None, ("--keypoints", "dogs"), "choose from coco17"),
        (lambda state: None, ("--input-size", "256x256"), "do not give 384 and 512 bins"),
        (lambda state: None, ("--split-ratio", "3"), "do not give 384"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line_and_writes_nothing(
    change: Any, options: tuple[str, ...], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = dict(model("rtmpose-17").state)
    change(state)
    source = checkpoint(tmp_path / "x.pth", state)
    result = posecli(capfd, "weights", "import", source, "--out", tmp_path / "y.safetensors", *options)
    assert result.code and result.err.count("\n") == 1 and told in result.err
    assert list(tmp_path.iterdir()) == [source]


def test_imported_weights_run_by_their_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    monkeypatch.setenv("POSECLI_WEIGHTS_DIR", str(tmp_path / "weights"))
    source = checkpoint(tmp_path / "x.pth", model("rtmpose-26").state)
    assert posecli(capfd, "weights", "import", source, "--name", "mine").code == 0
    again = posecli(capfd, "weights", "import", source, "--name", "mine")
    assert again.code and "there already" in again.err
    assert "embedded" in posecli(capfd, "weights", "import", source, "--name", "pose").err
    cv2.imwrite(str(tmp_path / "a.png"), picture(120, 90, 1))
    result = posecli(capfd, "run", tmp_path / "a.png", "--out", tmp_path / "out", "--weights", "mine", *QUICK)
    assert result.code == 0, result.err
    document = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert document["categories"][0]["keypoints"] == list(KEYPOINT_SETS["halpe26"].names)
    assert len(document["annotations"][0]["keypoints"]) == 3 * 26
