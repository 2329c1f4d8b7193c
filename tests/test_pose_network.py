"""The network's size, its classifiers at other sizes, weights files, and the estimator."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posecli.backbones import BACKBONES, BackboneSpec
from posecli.errors import DataError, MachineError, UsageError
from posecli.geometry import crop_matrices
from posecli.keypoints import COCO17, find_flip_pairs, from_category
from posecli.pose.config import PoseConfig
from posecli.pose.estimator import decode_logits, load_estimator, person_scores
from posecli.pose.network import SimCC, initialise_head, resample_classifiers
from posecli.runtime.device import resolve_device
from posecli.types import Detections, Frame
from posecli.weights.files import find_weights, load_weights, save_weights
from tests.media_factory import picture


@pytest.mark.parametrize(
    ("config", "parameters", "bins"),
    [
        (PoseConfig(backbone="resnet50", deconv_channels=(256, 256, 256)), 36_753_105, (384, 512)),
        (
            PoseConfig(backbone="resnet50", deconv_channels=(1024, 512), split_ratio=4, sigma=(20, 20)),
            66_840_913,
            (768, 1024),
        ),
        (PoseConfig(deconv_channels=()), 2_289_553, (384, 512)),
        (PoseConfig(deconv_channels=(256,)), 7_644_561, (384, 512)),
    ],
)
def test_published_parameter_counts(config: PoseConfig, parameters: int, bins: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = SimCC(config)
    assert sum(p.numel() for p in network.parameters()) == parameters
    if parameters == 36_753_105:
        assert len(network.state_dict()) == 342  # MMPose's simcc_res50
    assert config.bins == bins


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_every_backbone_gives_the_bins_it_promises(backbone: str, kernel: int) -> None:
    config = PoseConfig(
        backbone=backbone, deconv_channels=(4, 4), deconv_kernel=kernel, input_size=(64, 32), split_ratio=1.5
    )
    with torch.device("meta"):
        x, y = SimCC(config)(torch.zeros(2, 3, 64, 32))
    assert x.shape == (2, 17, 48) and y.shape == (2, 17, 96)


def test_marginal_start_reads_a_blob_on_the_map_where_it_is() -> None:
    config = PoseConfig(input_size=(128, 96))
    network = SimCC(config)
    initialise_head(network, config)
    height, width = config.map_size
    blob = torch.zeros(1, 1, height, width)
    blob[0, 0, 5, 3] = 100
    flat = blob.flatten(2)
    x, y = network.fc_x(flat).argmax(-1).item(), network.fc_y(flat).argmax(-1).item()
    assert abs(x / config.bins[0] - 3.5 / width) < 0.02
    assert abs(y / config.bins[1] - 5.5 / height) < 0.02


def test_resampled_classifiers_still_read_the_same_place() -> None:
    small = PoseConfig(input_size=(128, 96))
    large = replace(small, input_size=(256, 192))
    network = SimCC(small)
    initialise_head(network, small)
    state = resample_classifiers(network.state_dict(), small, large)
    bigger = SimCC(large)
    bigger.load_state_dict(state)
    height, width = large.map_size
    blob = torch.zeros(1, 1, height, width)
    blob[0, 0, 10:12, 6:8] = 100
    x = bigger.fc_x(blob.flatten(2)).argmax(-1).item()
    assert abs(x / large.bins[0] - 7 / width) < 0.03


def test_configuration_survives_its_json() -> None:
    config = PoseConfig(backbone="resnet18", deconv_channels=(), split_ratio=4, std_scale=1.3, temperature=10)
    assert PoseConfig.from_json(config.to_json()) == config
    with pytest.raises(DataError, match="config has no input_size"):
        PoseConfig.from_json({"backbone": "resnet18"})
    for wrong in ({"input_size": (100, 64)}, {"sigma": (0, 1)}, {"split_ratio": 0.3}, {"deconv_kernel": 5}):
        with pytest.raises(DataError):
            PoseConfig(**wrong)


def test_weights_are_written_the_same_and_read_strictly(tmp_path: Path, tiny_weights: Path) -> None:
    tensors, header = load_weights(tiny_weights)
    again = tmp_path / "again.safetensors"
    save_weights(again, tensors, {k: v for k, v in header.items() if k != "format"})
    assert again.read_bytes() == tiny_weights.read_bytes()
    del tensors["fc_x.bias"]
    save_weights(again, tensors, {"kind": "pose", "config": header["config"]})
    with pytest.raises(DataError, match="do not fit"):
        load_estimator(str(again), device="cpu", runtime="torch")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"PK\3\4", "pickle"),
    ],
)
def test_files_that_are_no_weights_say_what_they_are(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_weights(path)


def test_missing_weights_name_the_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSECLI_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(MachineError, match=str(tmp_path)):
        find_weights("no-such-model")
    with pytest.raises(MachineError, match="no such weights file"):
        find_weights("nowhere/x.safetensors")


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        resolve_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match="no usable NVIDIA GPU"):
            resolve_device("cuda:0")


def test_estimator_results_do_not_depend_on_the_batch(tiny_weights: Path) -> None:
    frames = [Frame(picture(90, 70, seed)) for seed in range(3)]
    people = [
        Detections(np.array([[5, 5, 40, 60], [30, 2, 80, 69]], np.float32), np.array([0.9, 0.5], np.float32)),
        Detections.empty(),
        Detections(np.array([[-10, 0, 30, 90]], np.float32), np.array([1.0], np.float32)),
    ]
    for runtime in ("torch", "openvino"):
        estimator = load_estimator(str(tiny_weights), device="cpu", runtime=runtime, flip=True)
        together = estimator(frames, people)
        assert np.ptp(together[0].keypoints, axis=(0, 1)).min() > 5  # the network sees something
        assert [len(poses) for poses in together] == [2, 0, 1]
        for frame, found, poses in zip(frames, people, together, strict=True):
            alone = estimator([frame], [found])[0]
            np.testing.assert_array_equal(alone.keypoints, poses.keypoints)
            np.testing.assert_array_equal(alone.scores, poses.scores)


def test_runtimes_agree(tiny_weights: Path) -> None:
    frame = Frame(picture(90, 70))
    people = Detections(np.array([[5, 5, 40, 60]], np.float32), np.ones(1, np.float32))
    first, second = (
        load_estimator(str(tiny_weights), device="cpu", runtime=r)([frame], [people])[0] for r in ("torch", "openvino")
    )
    np.testing.assert_allclose(first.keypoints, second.keypoints, atol=0.05)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-3)


def test_person_score_counts_keypoints_above_the_floor() -> None:
    scores = np.array([[0.9, 0.1, 0.5], [0.1, 0.2, 0.0]], np.float32)
    np.testing.assert_allclose(person_scores(np.array([0.5, 1.0], np.float32), scores), [0.35, 0.0])


def test_without_oks_sigmas_the_parabola_reads(tmp_path: Path, tiny_weights: Path) -> None:
    tensors, header = load_weights(tiny_weights)
    header["config"]["keypoints"]["sigmas"] = None
    own = tmp_path / "own.safetensors"
    save_weights(own, tensors, header)
    assert load_estimator(str(tiny_weights), device="cpu").refinement == "oks"
    assert load_estimator(str(own), device="cpu").refinement == "parabola"
    assert load_estimator(str(own), device="cpu", decoder="dark").refinement == "dark"
    with pytest.raises(UsageError, match="no OKS sigmas"):
        load_estimator(str(own), device="cpu", decoder="oks")


def test_oks_decoding_does_not_depend_on_the_size_of_the_picture() -> None:
    config = PoseConfig()
    random = np.random.default_rng(5)
    logits = tuple(random.normal(size=(1, 17, bins)).astype(np.float32) * 3 for bins in config.bins)
    box = np.array([[10, 20, 110, 260]], np.float32)
    places = [decode_logits(logits, config, box * s, crop_matrices(box * s, config.input_size))[0] for s in (1, 4)]
    np.testing.assert_allclose(places[0], places[1], atol=1e-3)


def test_keypoint_sets_from_categories() -> None:
    coco = {
        "name": "person",
        "keypoints": list(COCO17.names),
        "skeleton": [[a + 1, b + 1] for a, b in COCO17.skeleton],
    }
    assert from_category(coco) is COCO17
    assert find_flip_pairs(COCO17.names) == COCO17.flip_pairs
    mouse = from_category({"name": "mouse", "keypoints": ["snout", "left_paw", "right_paw", "tail"]})
    assert mouse.flip_indices == (0, 2, 1, 3) and mouse.sigmas is None
    with pytest.raises(DataError):
        from_category({"name": "x", "keypoints": []})


# ---- laterals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", sorted(set(BACKBONES) - {"lite_hrnet"}))
@pytest.mark.parametrize("stages", [1, 3])
def test_laterals_fit_every_backbone(backbone: str, stages: int) -> None:
    config = PoseConfig(backbone=backbone, deconv_channels=(8,) * stages, laterals=True, input_size=(64, 32))
    with torch.device("meta"):
        network = SimCC(config)
        plain = SimCC(replace(config, laterals=False))
        x, y = network(torch.zeros(2, 3, 64, 32))
    assert x.shape == (2, 17, 64) and y.shape == (2, 17, 128)
    assert len(network.laterals) == stages
    extra = set(network.state_dict()) - set(plain.state_dict())
    assert extra == {f"laterals.{i}.weight" for i in range(stages)}


def lateral_network(seed: int = 0) -> tuple[SimCC, PoseConfig]:
    config = PoseConfig(deconv_channels=(8, 8), laterals=True, input_size=(64, 32), sigma=(1.5, 1.5))
    torch.manual_seed(seed)
    network = SimCC(config)
    initialise_head(network, config)
    return network.eval(), config


def test_finer_features_reach_the_output_only_with_laterals() -> None:
    network, _ = lateral_network()
    crops = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        before = network(crops)[0]
        for lateral in network.laterals:
            lateral.weight.zero_()
        without = network(crops)[0]
        network.levels = []  # the plain way through the same weights
        plain = network(crops)[0]
    assert not torch.allclose(before, without)
    torch.testing.assert_close(without, plain)


def test_laterals_are_in_the_header_and_old_headers_have_none() -> None:
    config = PoseConfig(deconv_channels=(8,), laterals=True)
    assert PoseConfig.from_json(config.to_json()) == config
    old = replace(config, laterals=False).to_json()
    del old["laterals"]
    assert PoseConfig.from_json(old).laterals is False


def test_weights_with_laterals_give_the_same_in_both_runtimes(tmp_path: Path) -> None:
    network, config = lateral_network()
    for layer in (network.fc_x, network.fc_y):
        layer.weight.data.mul_(20)
    path = tmp_path / "lateral.safetensors"
    save_weights(path, network.state_dict(), {"kind": "pose", "config": config.to_json()})
    frame = Frame(picture(90, 70))
    people = Detections(np.array([[5, 5, 40, 60], [20, 0, 60, 69]], np.float32), np.ones(2, np.float32))
    first, second = (
        load_estimator(str(path), device="cpu", runtime=r)([frame], [people])[0] for r in ("torch", "openvino")
    )
    np.testing.assert_allclose(first.keypoints, second.keypoints, atol=0.05)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-3)


def test_the_head_with_laterals_starts_as_marginals_and_is_resampled() -> None:
    network, config = lateral_network()
    plain = SimCC(replace(config, laterals=False))
    initialise_head(plain, config)
    assert torch.equal(network.fc_x.weight, plain.fc_x.weight)
    for lateral in network.laterals:
        assert float(lateral.weight.detach().std()) == pytest.approx(lateral.in_channels**-0.5, rel=0.2)
    larger = replace(config, input_size=(128, 64))
    bigger = SimCC(larger)
    bigger.load_state_dict(resample_classifiers(network.state_dict(), config, larger))
    x, y = bigger.eval()(torch.zeros(1, 3, 128, 64))
    assert x.shape[-1] == 128 and y.shape[-1] == 256
    assert torch.equal(bigger.laterals[0].weight, network.laterals[0].weight)


def test_more_laterals_than_levels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    build = BACKBONES["mobilenet_v2"].build
    monkeypatch.setitem(BACKBONES, "bare", BackboneSpec(lambda: build()._replace(levels=())))
    with pytest.raises(DataError, match="offers 0 levels"):
        SimCC(PoseConfig(backbone="bare", deconv_channels=(8,), laterals=True))
