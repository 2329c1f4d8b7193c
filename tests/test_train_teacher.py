"""Distillation: a model that learns another one's distributions."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.errors import DataError
from posecli.keypoints import COCO17, KeypointSet
from posecli.pose.config import PoseConfig
from posecli.pose.loading import load_network
from posecli.pose.network import SimCC, initialise_head
from posecli.train.augment import NONE
from posecli.train.batches import batches, normalise
from posecli.train.data import Source, read_people
from posecli.train.loop import train
from posecli.train.loss import distillation_sum, matching_bins, resample_bins
from posecli.train.packing import Crops, pack_crops
from posecli.train.recipe import Recipe, Stage
from posecli.train.teacher import Teacher, load_teacher
from posecli.weights.files import save_weights
from tests.entry_points import posecli
from tests.test_train_negatives import data as people_folder

data = people_folder


@pytest.fixture(scope="module")
def crops(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Crops:
    people = read_people([Source(data / "people.json", data)])
    return pack_crops(people, tmp_path_factory.mktemp("crops"), height=96)


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network with sharp outputs, of twice the student's size."""
    config = PoseConfig(deconv_channels=(), input_size=(128, 64), sigma=(3, 3), temperature=3.0)
    torch.manual_seed(5)
    network = SimCC(config)
    initialise_head(network, config)
    with torch.no_grad():
        network.fc_x.bias[40], network.fc_y.bias[90] = 3.0, 3.0
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_weights(path, network.state_dict(), {"kind": "pose", "config": config.to_json()})
    return path


def recipe(samples: int, **changes: object) -> Recipe:
    made = Recipe(
        model=PoseConfig(deconv_channels=(), input_size=(64, 32), split_ratio=4, sigma=(3, 3)),
        stages=(Stage((64, 32), samples, 8, freeze=19),),
        warmup_samples=16,
        learning_rate=2e-3,
        precision="fp32",
        augmentation=NONE,
        weak_augmentation=NONE,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_divergence_against_a_slow_version(seed: int) -> None:
    random = np.random.default_rng(seed)
    own = [random.normal(0, 2, (3, 2, bins)) for bins in (6, 8)]
    other = [random.normal(0, 2, (3, 2, bins)) for bins in (6, 8)]
    counted = np.array([1.0, 0.0, 1.0])
    expected = 0.0
    for p_logits, q_logits in zip(own, other, strict=True):
        for n in range(3):
            for k in range(2):
                p, q = (np.exp(t * v[n, k]) for t, v in ((1.5, p_logits), (0.5, q_logits)))
                p, q = p / p.sum(), q / q.sum()
                expected += counted[n] * float((q * np.log(q / p)).sum()) / 2
    as_tensors = [tuple(torch.tensor(v, dtype=torch.float32) for v in pair) for pair in (own, other)]
    found = distillation_sum(as_tensors[0], as_tensors[1], (1.5, 0.5), torch.tensor(counted).float())  # type: ignore[arg-type]
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_model_that_agrees_has_no_divergence() -> None:
    logits = torch.randn(2, 3, 10), torch.randn(2, 3, 14)
    assert float(distillation_sum(logits, logits, (2.0, 2.0), torch.ones(2))) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("ratio", "enlarged"), [(2.0, 2.0), (4.0, 2.0), (4.0, 1.0), (2.0, 1.0)])
def test_resampled_bins_mean_the_same_point(ratio: float, enlarged: float) -> None:
    """The teacher: 64 · enlarged pixels, 2 bins each. Its u is the other one's (u + ½) / enlarged - ½."""
    bins, point = int(64 * enlarged) * 2, 20.0 * enlarged
    p = torch.softmax(-((torch.arange(bins) - 2 * point) ** 2) / (2 * 8**2), dim=0)
    found = resample_bins(p[None, None], matching_bins(int(64 * ratio), ratio, 2.0, enlarged))[0, 0]
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    mean = float((found * torch.arange(len(found))).sum()) / ratio
    assert mean == pytest.approx((point + 0.5) / enlarged - 0.5, abs=0.02)


def test_the_teacher_sees_the_same_crops_at_its_own_size(crops: Crops, teacher_file: Path) -> None:
    stage = Stage((64, 32), 8, 8)
    small = next(iter(batches(crops, recipe(8), stage, 0, 8)))
    both = next(iter(batches(crops, recipe(8), stage, 0, 8, teacher_size=(128, 64))))
    assert small.large is None and both.large is not None
    assert both.crops.shape == (8, 64, 32, 3) and both.large.shape == (8, 128, 64, 3)
    # A crop's centre is at w/2, which is half a pixel of the larger crop away from the centre of its pixels' area.
    assert torch.allclose(small.points, both.points + 0.25, atol=1e-3)
    means = [batch.float().mean(dim=(1, 2)) for batch in (both.crops, both.large)]
    assert torch.allclose(means[0], means[1], atol=3)
    part = both.parts(2)
    assert torch.equal(torch.cat([p.large for p in part if p.large is not None]), both.large)


def test_training_comes_nearer_to_the_teacher(crops: Crops, teacher_file: Path, tmp_path: Path) -> None:
    """Without any label: only the teacher's distributions pull."""
    unlabelled = dataclasses.replace(
        crops, people=dataclasses.replace(crops.people, weights=np.zeros_like(crops.people.weights))
    )
    teacher = load_teacher(teacher_file, COCO17, "cpu")
    made = recipe(320, teacher=teacher.sha256, teacher_weight=1.0, learning_rate=0.1)
    train(made, unlabelled, tmp_path, teacher=teacher)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows[0].startswith("samples")
    batch = next(iter(batches(crops, made, made.stages[0], 0, 8, teacher_size=teacher.config.input_size)))
    assert distance(tmp_path / "last.safetensors", teacher, batch) < 0.5 * distance(None, teacher, batch)


def test_the_teachers_runtime_gives_what_its_network_gives(crops: Crops, teacher_file: Path) -> None:
    """It runs in the fastest runtime of the device, on the threads that torch was given."""
    teacher = load_teacher(teacher_file, COCO17, "cpu")
    assert teacher.runner.runtime == "openvino"
    batch = next(iter(batches(crops, recipe(8), Stage((64, 32), 8, 8), 0, 8, teacher_size=(128, 64))))
    assert batch.large is not None
    network, config = load_network(teacher_file)
    with torch.no_grad():
        expected = network(normalise(batch.large, config, torch.device("cpu")))[:2]
    for found, axis in zip(teacher.distributions(batch, torch.device("cpu")), expected, strict=True):
        assert torch.allclose(found, axis, atol=1e-3 * float(axis.abs().max()))


def distance(weights: Path | None, teacher: Teacher, batch: object) -> float:
    from posecli.train.init import build_model

    network = build_model(recipe(8).model)[0].eval() if weights is None else load_network(weights)[0]
    where = torch.device("cpu")
    with torch.no_grad():
        outputs = network(normalise(batch.crops, recipe(8).model, where))  # type: ignore[attr-defined]
        taught = teacher.distributions(batch, where)  # type: ignore[arg-type]
    places = teacher.places(recipe(8).model)
    return float(distillation_sum(outputs[:2], taught, (1.0, teacher.config.temperature), torch.ones(8), places))


def test_another_keypoint_set_is_refused(teacher_file: Path) -> None:
    with pytest.raises(DataError, match="keypoints differ"):
        load_teacher(teacher_file, KeypointSet("two", ("a", "b"), (), ()), "cpu")


def test_the_command_takes_a_teacher(
    data: Path, teacher_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "--ann",
        data / "people.json",
        "--images",
        data,
        "--runs",
        tmp_path,
        "--deconv",
        "none",
        "--threads",
        1,
    )
    more = ("--stages", "64x32:16", "--batch-size", 8, "--device", "cpu", "--precision", "fp32")
    assert posecli(capfd, "train", *arguments, *more, "--teacher", teacher_file).code == 0
    assert (tmp_path / "simcc" / "last.safetensors").is_file()
    missing = posecli(capfd, "train", *arguments, *more, "--name", "x", "--teacher", tmp_path / "no.safetensors")
    assert missing.code == 4 and "no such weights" in missing.err


def test_a_run_does_not_replace_its_teacher(
    data: Path, teacher_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    teacher = tmp_path / "simcc" / "last.safetensors"
    teacher.parent.mkdir()
    teacher.write_bytes(teacher_file.read_bytes())
    arguments = ("--ann", data / "people.json", "--images", data, "--runs", tmp_path, "--deconv", "none")
    result = posecli(capfd, "train", *arguments, "--stages", "64x32:16", "--device", "cpu", "--teacher", teacher)
    assert result.code == 2 and str(teacher) in result.err
    assert teacher.read_bytes() == teacher_file.read_bytes()
