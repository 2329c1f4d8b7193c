"""Training a person score on people and negatives."""

import csv
import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.errors import DataError
from posecli.keypoints import COCO17
from posecli.pose.config import PoseConfig
from posecli.pose.loading import load_network
from posecli.train.augment import Augmentation
from posecli.train.batches import batches
from posecli.train.data import Source, read_negatives, read_people, trained_images
from posecli.train.distributed import Distributed
from posecli.train.init import Init, build_model, read_init
from posecli.train.loop import train
from posecli.train.loss import person_score_sum
from posecli.train.packing import Crops, pack_crops, pack_data
from posecli.train.recipe import Recipe, Stage
from posecli.train.validation import read_validation
from posecli.weights.files import load_weights
from tests.entry_points import posecli
from tests.media_factory import write_photo

SIZE = (48, 32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight bright people and six dark boxes without a person, each a COCO file beside its images."""
    root = tmp_path_factory.mktemp("presence")
    random = np.random.default_rng(0)
    people, boxes, images = [], [], {"people": [], "negatives": []}
    for i in range(8):
        write_photo(root / f"bright{i}.png", random.integers(150, 250, (96, 64, 3), np.uint8))
        images["people"].append({"id": i, "file_name": f"bright{i}.png", "width": 64, "height": 96})
        points = np.column_stack([random.uniform((8, 8), (56, 88), (17, 2)), np.full(17, 2)])
        person = {"id": i, "image_id": i, "category_id": 1, "bbox": [4, 4, 56, 88], "iscrowd": 0, "area": 4000}
        people.append(person | {"keypoints": points.ravel().tolist(), "num_keypoints": 17})
    for i in range(6):
        write_photo(root / f"dark{i}.png", random.integers(0, 60, (96, 64, 3), np.uint8))
        images["negatives"].append({"id": i, "file_name": f"dark{i}.png", "width": 64, "height": 96})
        boxes.append({"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 40, 70]})
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.names), "skeleton": []}
    for name, annotations in (("people", people), ("negatives", boxes)):
        document = {"images": images[name], "annotations": annotations, "categories": [category]}
        (root / f"{name}.json").write_text(json.dumps(document))
    return root


@pytest.fixture(scope="module")
def crops(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Crops, Crops]:
    """People and negatives."""
    people = read_people([Source(data / "people.json", data)])
    negatives = read_negatives([Source(data / "negatives.json", data)], people.keypoint_set)
    cache = tmp_path_factory.mktemp("crops")
    return pack_crops(people, cache, height=96), pack_crops(negatives, cache, height=96)


def recipe(samples: int = 96, **changes: object) -> Recipe:
    made = Recipe(
        model=PoseConfig(deconv_channels=(), input_size=(64, 64), sigma=(3, 3), person_score=True),
        stages=(Stage((64, 64), samples, 8, freeze=19),),
        warmup_samples=16,
        learning_rate=0.01,
        negatives_share=0.4,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_negative_boxes_become_crops_without_keypoints(crops: tuple[Crops, Crops]) -> None:
    negatives = crops[1]
    assert len(negatives) == 6 and not negatives.people.weights.any()
    assert all(negatives.pixels(row).mean() < 60 for row in range(6))


def test_the_share_of_negative_crops_and_what_they_are_told_as(crops: tuple[Crops, Crops]) -> None:
    people, negatives = crops
    stage = Stage((64, 64), 400, 8)
    seen = list(batches(people, recipe(400), stage, 0, 400, negatives=negatives))
    present = torch.cat([batch.present for batch in seen])
    told = [name.split(":")[0] for batch in seen for name in batch.ids]
    assert [name == "people" for name in told] == present.bool().tolist()
    assert 0.5 < float(present.mean()) < 0.7
    for batch in seen:
        assert not batch.weights[batch.present == 0].any() and batch.weights[batch.present == 1].any()
    again = list(batches(people, recipe(400), stage, 200, 400, negatives=negatives))
    for first, second in zip(seen[25:], again, strict=True):
        assert first.ids == second.ids and torch.equal(first.crops, second.crops)
    part = seen[0].parts(3)
    assert torch.equal(torch.cat([p.present for p in part]), seen[0].present)
    without = torch.cat([batch.present for batch in batches(people, recipe(64), stage, 0, 64)])
    assert bool((without == 1).all())


@given(seed=st.integers(0, 10**6), share=st.floats(0.02, 0.98))
@settings(max_examples=30, deadline=None)
def test_verification_loss_against_a_slow_version(seed: int, share: float) -> None:
    """Bayes: the odds before, times the likelihood ratio whose logarithm the output is."""
    random = np.random.default_rng(seed)
    logits, present = random.normal(0, 3, 7), random.integers(-1, 2, 7)
    expected = 0.0
    for ratio, label in zip(np.exp(logits), present, strict=True):
        person, negatives = (1 - share) * ratio, share
        if label >= 0:
            expected -= math.log((person if label else negatives) / (person + negatives))
    value = person_score_sum(torch.tensor(logits), torch.tensor(present, dtype=torch.float32), share)
    assert float(value) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_it_learns_to_tell_people_from_negatives(crops: tuple[Crops, Crops], tmp_path: Path) -> None:
    people, negatives = crops
    stages = (Stage((64, 64), 128, 8),)
    last = train(recipe(stages=stages, learning_rate=3e-3, ema=0.8), people, tmp_path, negatives=negatives)
    network, config = load_network(last)
    assert config.person_score
    shown = [next(iter(batches(source, recipe(8), Stage((64, 64), 8, 8), 0, 8))).crops for source in crops]
    pixels = torch.cat(shown).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.preprocessing.mean, config.preprocessing.std))
    with torch.inference_mode():
        # A backbone that began at random needs the batch's own statistics after so few steps.
        told = network.train()((pixels - mean) / std)[2]
    assert told[:8].mean() > told[8:].mean() + 1, told


def test_accumulated_parts_make_the_same_step(crops: tuple[Crops, Crops], tmp_path: Path) -> None:
    losses = []
    for name, count in (("whole", 1), ("parts", 4)):
        train(recipe(64, accumulate=count), crops[0], tmp_path / name, negatives=crops[1])
        losses.append(float(list(csv.DictReader((tmp_path / name / "metrics.csv").open()))[-1]["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_init_of_the_person_score(crops: tuple[Crops, Crops], tmp_path: Path) -> None:
    start = read_init(str(train(recipe(16), crops[0], tmp_path, negatives=crops[1])), "mobilenet_v2")
    assert start.config is not None and start.config.person_score
    same, notes = build_model(start.config, start)
    assert notes == [] and torch.equal(same.state_dict()["person_score.weight"], start.tensors["person_score.weight"])
    plain, notes = build_model(dataclasses.replace(start.config, person_score=False), start)
    assert notes == ["the person score is left out"] and plain.person_score is None
    tensors = {name: tensor for name, tensor in start.tensors.items() if not name.startswith("person_score.")}
    old = dataclasses.replace(start, tensors=tensors, config=dataclasses.replace(start.config, person_score=False))
    new, notes = build_model(start.config, old)
    assert notes == ["the person score starts anew"] and not new.state_dict()["person_score.weight"].any()


def test_the_command(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    people, negatives = data / "people.json", data / "negatives.json"
    command = ["train", "--ann", people, "--images", data, "--runs", tmp_path, "--stages", "32x32:16"]
    command += ["--batch-size", 8, "--deconv", "none", "--freeze", 19, "--device", "cpu", "--name", "told"]
    done = posecli(capfd, *command, "--negatives", negatives, "--negative-images", data)
    assert done.code == 0 and "6 boxes without a person in 6 images" in done.err
    header = load_weights(tmp_path / "told" / "last.safetensors")[1]
    assert header["config"]["person_score"] and header["training"]["images"]["count"] == 14
    sheet = posecli(capfd, *command, "--negatives", negatives, "--negative-images", data, "--preview", 8)
    assert sheet.code == 0
    alone = posecli(capfd, *command, "--negatives", negatives)
    assert alone.code == 2 and "--negative-images" in alone.err
    folder = posecli(capfd, *command, "--negative-images", data)
    assert folder.code == 2 and "--negative-images" in folder.err
    for share in (0, 1):
        bad = posecli(capfd, *command, "--negatives", negatives, "--negative-images", data, "--negatives-share", share)
        assert bad.code == 2 and "--negatives-share" in bad.err


@pytest.mark.slow  # as test_train's, which is not
def test_two_processes_follow_the_curve_of_one(data: Path, tmp_path: Path) -> None:
    """The last batch, of one sample, leaves the second process with one that does not count."""
    command = ["train", "--ann", data / "people.json", "--images", data, "--negatives", data / "negatives.json"]
    command += ["--negative-images", data, "--negatives-share", 0.4, "--stages", "64x64:121", "--deconv", "none"]
    command += ["--freeze", 19, "--batch-size", 8, "--device", "cpu", "--threads", 1, "--runs", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "posecli"]
    losses = []
    for name, start in (("one", ["posecli"]), ("two", launch)):
        line = [sys.executable, "-m", *start, *map(str, command), "--name", name]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        losses.append(float(list(csv.DictReader((tmp_path / name / "metrics.csv").open()))[-1]["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_negatives_are_taken_from_no_validation_image(data: Path, tmp_path: Path) -> None:
    people = read_people([Source(data / "people.json", data)])
    one, other = people.subset([0]), dataclasses.replace(people.subset([1]), weights=np.zeros((1, 17)))
    assert trained_images(one, None) == one.images and trained_images(one, other) == (*one.images, *other.images)
    known = pack_data(one, other, tmp_path, 0.0, Distributed()).fingerprint
    with pytest.raises(DataError, match="2 validation images are trained on"):
        read_validation(data / "people.json", data, people.keypoint_set, known)
    assert len(read_validation(data / "people.json", data, people.keypoint_set).files) == 8


def test_missing_images_of_negatives_are_refused_or_left_out(data: Path, tmp_path: Path) -> None:
    document = json.loads((data / "negatives.json").read_text())
    document["images"][0]["file_name"] = "gone.png"
    (tmp_path / "negatives.json").write_text(json.dumps(document))
    sources = [Source(tmp_path / "negatives.json", data)]
    with pytest.raises(DataError, match=r"1 of 6 training images are missing.*--missing-limit"):
        read_negatives(sources, COCO17)
    left = read_negatives(sources, COCO17, missing_limit=0.2)
    assert len(left) == 5 and "1 of 6" in left.remarks[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bbox": [1, 2, 0, 5]}, "bbox"),
        ({"bbox": [1, 2, float("nan"), 5]}, "bbox"),
        ({"image_id": 99}, "no image 99"),
        ({"bbox": None}, "bbox"),
    ],
)
def test_bad_boxes_are_named(data: Path, tmp_path: Path, change: dict[str, object], told: str) -> None:
    document = json.loads((data / "negatives.json").read_text())
    document["annotations"][2] |= change
    (tmp_path / "negatives.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=f"annotation 2.*{told}"):
        read_negatives([Source(tmp_path / "negatives.json", data)], COCO17)


def test_heads_alone_are_trained_on_a_frozen_network(crops: tuple[Crops, Crops], tmp_path: Path) -> None:
    people, negatives = crops
    model = PoseConfig(
        backbone="resnet18", deconv_channels=(16,), input_size=(64, 64), person_score=True, box_head=True
    )
    network, _ = build_model(model, None, seed=3)
    init = Init(network.state_dict(), model)
    augmentation = Augmentation(flip_p=0.5, rotation_p=0, truncation_p=0, half_body_p=0, proposal_p=1.0)
    recipe = Recipe(
        model=model,
        stages=(Stage((64, 64), 256, batch_size=16),),
        learning_rate=3e-3,
        warmup_samples=16,
        negatives_share=0.3,
        heads_only=True,
        precision="fp32",
        ema=0.9,
        augmentation=augmentation,
        weak_augmentation=augmentation,
    )
    last = train(recipe, people, tmp_path / "run", negatives=negatives, init=init)
    trained, header = load_weights(last)
    assert header["config"]["box_head"] and header["config"]["person_score"]
    for name, tensor in network.state_dict().items():
        same = torch.equal(trained[name].float(), tensor.half().float())
        assert same != name.startswith(("person_score.", "box_head.")), name
