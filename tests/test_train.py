"""Training: loss, schedule, resuming, initial weights, the command."""

import csv
import dataclasses
import json
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from posecli.errors import DataError, PosecliError, UsageError
from posecli.keypoints import KeypointSet
from posecli.pose.config import PoseConfig
from posecli.pose.loading import load_network
from posecli.train.engine import parameter_groups
from posecli.train.init import build_model, read_init
from posecli.train.loop import PoseCallbacks, train
from posecli.train.loss import kl_sums
from posecli.train.packing import Crops
from posecli.train.recipe import Recipe, Stage
from posecli.train.state import freeze
from posecli.weights.files import load_weights
from posecli.weights.fingerprints import overlap
from tests.dotted_people import crops, dataset, tiny_recipe
from tests.entry_points import posecli
from tests.labels import gaussians

__all__ = ["crops", "dataset"]  # fixtures


def test_loss_against_a_slow_version_and_its_floor() -> None:
    random = np.random.default_rng(0)
    logits = [torch.tensor(random.normal(size=(2, 3, bins)), dtype=torch.float32) for bins in (48, 64)]
    points = torch.tensor(random.uniform(2, 20, (2, 3, 2)), dtype=torch.float32)
    weights = torch.tensor([[1.0, 0.5, 0.0], [0.2, 0.0, 1.0]])
    slow = 0.0
    for axis, sigma in enumerate((2.0, 3.0)):
        z = logits[axis].double().numpy() * 1.5
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        q = gaussians(points[..., axis].numpy() * 2, z.shape[-1], sigma)
        q = q * 0.9 + 0.1 / z.shape[-1]
        slow += float(((q * np.log(q / p)).sum(-1) * weights.numpy()).sum()) / 2
    total, weight = kl_sums(
        (logits[0], logits[1]), points, weights, split_ratio=2, sigma=(2, 3), temperature=1.5, label_smoothing=0.1
    )
    assert float(total) == pytest.approx(slow, rel=1e-4) and float(weight) == pytest.approx(2.7)
    perfect = tuple(
        torch.log(torch.tensor(gaussians(points[..., a].numpy() * 2, b, 2.0)) + 1e-30) for a, b in ((0, 48), (1, 64))
    )
    best, _ = kl_sums((perfect[0], perfect[1]), points, weights, split_ratio=2, sigma=(2, 2))
    assert float(best) == pytest.approx(0, abs=1e-4)


def test_schedule_warms_up_stays_and_falls() -> None:
    recipe = tiny_recipe(1000, warmup_samples=100, constant_fraction=0.5, learning_rate=1.0)
    rates = [recipe.schedule.at(n) for n in range(0, 1001, 10)]
    assert rates[0] < 0.02 and rates[20] == 1.0 and rates[50] == 1.0
    assert all(a >= b for a, b in pairwise(rates[50:]))
    assert rates[-1] == pytest.approx(0.01)
    # The second stage, with half the rate, warms up again.
    assert recipe.learning_rate_at(499) == 1.0 and recipe.learning_rate_at(510) < 0.15
    assert recipe.learning_rate_at(560) == pytest.approx(0.5 * recipe.schedule.at(560))
    assert (
        recipe.augmentation_at(799) == recipe.augmentation and recipe.augmentation_at(800) == recipe.weak_augmentation
    )


def test_frozen_blocks_and_decay_groups() -> None:
    recipe = tiny_recipe()
    model = build_model(recipe.model)[0].train()
    freeze(model, 4)
    blocks = list(model.backbone.children())
    assert not any(p.requires_grad for b in blocks[:4] for p in b.parameters()) and not blocks[3].training
    assert all(p.requires_grad for b in blocks[4:] for p in b.parameters()) and blocks[4].training
    groups = parameter_groups(model, weight_decay=0.1)
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
    assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in model.parameters())


def test_a_resumed_run_ends_in_the_same_weights(crops: Crops, tmp_path: Path) -> None:
    recipe = tiny_recipe(96)
    torch.set_num_threads(1)
    whole = train(recipe, crops, tmp_path / "whole")

    class Stop(Exception):
        pass

    def interrupt(model: object, config: object) -> dict[str, float]:
        raise Stop

    for where in (24, 72):  # once in each stage
        with pytest.raises(Stop):
            train(recipe, crops, tmp_path / "parts", callbacks=PoseCallbacks(evaluate=interrupt, evaluate_every=where))
    parts = train(recipe, crops, tmp_path / "parts")
    assert whole.read_bytes() == parts.read_bytes()
    rows = list(csv.DictReader((tmp_path / "whole" / "metrics.csv").open()))
    assert int(rows[-1]["samples"]) == 96 and math.isfinite(float(rows[-1]["loss"]))
    network, config = load_network(whole)
    assert config.input_size == (64, 64) and not network.training


def test_a_loss_that_is_not_finite_stops_and_names_the_people(crops: Crops, tmp_path: Path) -> None:
    people = crops.people
    broken = dataclasses.replace(
        people, keypoints=np.full_like(people.keypoints, 60.0), weights=people.weights * np.nan
    )
    with pytest.raises(PosecliError, match="loss is nan"):
        train(tiny_recipe(), dataclasses.replace(crops, people=broken), tmp_path)
    assert len((tmp_path / "bad_batch.csv").read_text().split()) == 8


def test_the_command_trains_judges_and_resumes(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = "32x32:16@5,64x64:16"
    command = ["train", "--data", dataset, "--runs", tmp_path, "--name", "t", "--stages", stages, "--sigma", 4]
    command += ["--deconv", "8", "--batch-size", 8, "--device", "cpu", "--evaluate-every", 16]
    result = posecli(capfd, *command)
    assert result.code == 0, result.err
    folder = tmp_path / "t"
    assert {p.name for p in folder.iterdir()} >= {
        "options.json",
        "metrics.csv",
        "evaluations.csv",
        "state.pt",
        "last.safetensors",
        "best.safetensors",
        "curves.png",
        "predictions.jpg",
    }
    options = json.loads((folder / "options.json").read_text())
    assert [stage["sigma"] for stage in options["stages"]] == [5, None] and options["model"]["sigma"] == [4, 4]
    header = load_weights(folder / "best.safetensors")[1]
    assert header["config"]["std_scale"] != 1.0
    images = header["training"]["images"]
    assert images["count"] == 12 and overlap(images, [dataset / "train2017" / "000003.png"])
    assert posecli(capfd, *command).code == 0  # nothing left to do
    other = posecli(capfd, *command, "--learning-rate", 0.1)
    assert other.code == 2 and "learning_rate" in other.err
    sheet = posecli(capfd, *command, "--name", "p", "--preview", 4)
    assert sheet.code == 0 and (tmp_path / "p" / "preview.jpg").is_file()


def test_the_command_refuses_bad_data(dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nothing = posecli(capfd, "train", "--data", tmp_path)
    assert nothing.code == 1 and "give --data" in nothing.err
    train_file, images = dataset / "annotations" / "person_keypoints_train2017.json", dataset / "train2017"
    same = posecli(
        capfd,
        "train",
        "--data",
        dataset,
        "--val-ann",
        train_file,
        "--val-images",
        images,
        "--runs",
        tmp_path,
        "--stages",
        "32x32:8",
    )
    assert same.code == 1 and "12 validation images are trained on" in same.err
    for stages in ("abc", "64x64:8@0", "64x64:_8", "64x64"):
        assert posecli(capfd, "train", "--data", dataset, "--stages", stages).code == 2
    assert posecli(capfd, "train", "--ann", train_file, "--images", images, "--images", images).code == 2


def test_a_start_from_own_weights_is_those_weights(crops: Crops, tmp_path: Path) -> None:
    recipe = tiny_recipe(32)
    first = train(recipe, crops, tmp_path / "first")
    start = read_init(str(first), "mobilenet_v2")
    assert start.config is not None
    model, notes = build_model(start.config, start)
    assert notes == []
    for name, tensor in load_network(first)[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    larger = dataclasses.replace(start.config, input_size=(128, 96))
    resampled, notes = build_model(larger, start)
    assert "resampled" in notes[0] and resampled.fc_x.out_features == 192


def test_another_number_of_keypoints_starts_only_their_maps_anew(crops: Crops, tmp_path: Path) -> None:
    start = read_init(str(train(tiny_recipe(16), crops, tmp_path)), "mobilenet_v2")
    assert start.config is not None
    mouse = KeypointSet("mouse", ("nose", "left_ear", "right_ear", "tail"))
    model, notes = build_model(dataclasses.replace(start.config, keypoints=mouse), start)
    assert len(notes) == 1 and "4 keypoints start anew" in notes[0]
    old, new = load_network(tmp_path / "last.safetensors")[0].state_dict(), model.state_dict()
    assert new["final.weight"].shape[0] == 4
    assert all(torch.equal(new[name], old[name]) for name in new if not name.startswith("final."))
    other, notes = build_model(dataclasses.replace(start.config, deconv_channels=(8, 8)), start)
    assert "head starts anew" in notes[0]
    assert torch.equal(other.state_dict()["backbone.0.0.weight"], old["backbone.0.0.weight"])
    with pytest.raises(DataError, match="lack"):
        build_model(dataclasses.replace(start.config, backbone="resnet18"), start)
    with pytest.raises(UsageError, match="no such file"):
        read_init(str(tmp_path / "gone"), "mobilenet_v2")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(DataError, match="not a torch state"):
        read_init(str(tmp_path / "junk.pth"), "mobilenet_v2")


def test_accumulated_parts_make_the_same_step(crops: Crops, tmp_path: Path) -> None:
    """With batch norms at rest, four parts of a batch give the gradients of the whole."""
    recipe = still_recipe(64)
    rows = []
    for name, parts in (("whole", 1), ("parts", 4)):
        train(dataclasses.replace(recipe, accumulate=parts), crops, tmp_path / name)
        rows.append(float(list(csv.DictReader((tmp_path / name / "metrics.csv").open()))[-1]["loss"]))
    assert rows[0] == pytest.approx(rows[1], rel=2e-3)


def still_recipe(samples: int) -> Recipe:
    """Only the head without batch norms learns, so that the loss depends on the whole batch alone."""
    return Recipe(
        model=PoseConfig(deconv_channels=(), input_size=(64, 64), sigma=(3, 3)),
        stages=(Stage((64, 64), samples, 8, freeze=19),),
        warmup_samples=16,
        learning_rate=0.01,
    )


def test_two_processes_follow_the_curve_of_one(dataset: Path, tmp_path: Path) -> None:
    """torchrun's two gloo processes: every sample once an epoch, the loss of one process at each row."""
    command = ["train", "--data", dataset, "--stages", "64x64:480", "--deconv", "none", "--freeze", 19]
    command += ["--batch-size", 8, "--device", "cpu", "--threads", 1, "--seed", 3, "--evaluate-every", 240]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "posecli"]
    for name, start in (("one", ["posecli"]), ("two", launch)):
        line = [sys.executable, "-m", *start, *map(str, command), "--runs", str(tmp_path), "--name", name]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    curves = []
    for name in ("one", "two"):
        rows = list(csv.DictReader((tmp_path / name / "metrics.csv").open()))
        curves.append([float(row["loss"]) for row in rows])
        assert [int(row["samples"]) for row in rows] == [400, 480]
    assert curves[0] == pytest.approx(curves[1], rel=2e-3)
    evaluations = (tmp_path / "two" / "evaluations.csv").read_text().splitlines()
    assert len(evaluations) == 3
