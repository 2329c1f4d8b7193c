"""Training: data, augmentation, loss, schedule, resuming, the command."""

import csv
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.errors import DataError, PosecliError, UsageError
from posecli.keypoints import COCO17, KeypointSet
from posecli.pose.config import PoseConfig
from posecli.pose.estimator import load_network
from posecli.train.augment import NONE, Augmentation, augment_sample
from posecli.train.batches import batches
from posecli.train.data import Source, read_people
from posecli.train.distributed import Distributed
from posecli.train.engine import parameter_groups
from posecli.train.init import build_model, read_init
from posecli.train.loop import PoseCallbacks, train
from posecli.train.loss import kl_sums
from posecli.train.packing import Crops, pack_crops
from posecli.train.recipe import Recipe, Stage
from posecli.train.samples import sample_order
from posecli.train.state import freeze
from posecli.weights.files import load_weights
from posecli.weights.fingerprints import fingerprint, overlap
from tests.entry_points import posecli
from tests.labels import gaussians
from tests.media_factory import write_photo

NAMES = list(COCO17.names)


def dots(seed: int, size: tuple[int, int] = (160, 120)) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a coloured dot at every keypoint, and the keypoints (17, 3)."""
    random = np.random.default_rng(seed)
    points = random.uniform(0.2, 0.8, (17, 2)) * (size[0], size[1])
    pixels = np.full((size[1], size[0], 3), 30, np.uint8)
    for i, point in enumerate(points):
        colour = (int(60 + 11 * i), int(250 - 12 * i), 128)
        cv2.circle(pixels, np.rint(point * 16).astype(int).tolist(), 5 * 16, colour, -1, cv2.LINE_AA, 4)
    return pixels, np.concatenate([points, np.full((17, 1), 2.0)], axis=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of one dotted person each, laid out as COCO, and the same again to judge by."""
    root = tmp_path_factory.mktemp("coco")
    for part, first in (("train2017", 0), ("val2017", 100)):
        images, annotations = [], []
        for i in range(12):
            pixels, points = dots(first + i)
            write_photo(root / part / f"{first + i:06d}.png", pixels)
            images.append({"id": i + 1, "file_name": f"{first + i:06d}.png", "width": 160, "height": 120})
            annotations.append(
                {
                    "id": i + 1,
                    "image_id": i + 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [25, 18, 110, 84],
                    "area": 5000,
                    "num_keypoints": 17,
                    "keypoints": points.reshape(-1).tolist(),
                }
            )
        category = {"id": 1, "name": "person", "keypoints": NAMES, "skeleton": []}
        (root / "annotations").mkdir(exist_ok=True)
        document = {"images": images, "annotations": annotations, "categories": [category]}
        (root / "annotations" / f"person_keypoints_{part}.json").write_text(json.dumps(document))
    return root


def source(dataset: Path, weight: float = 1.0) -> Source:
    return Source(dataset / "annotations" / "person_keypoints_train2017.json", dataset / "train2017", weight)


@pytest.fixture(scope="module")
def crops(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Crops:
    return pack_crops(read_people([source(dataset)]), tmp_path_factory.mktemp("crops"), height=192)


def tiny_recipe(samples: int = 64, **changes: object) -> Recipe:
    recipe = Recipe(
        model=PoseConfig(deconv_channels=(8,), input_size=(64, 64), sigma=(3, 3)),
        stages=(Stage((32, 32), samples // 2, 8), Stage((64, 64), samples // 2, 8, lr_factor=0.5)),
        warmup_samples=16,
    )
    return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]


def sample_of(crops: Crops, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    people = crops.people
    return crops.pixels(row), people.boxes[row], people.keypoints[row], people.weights[row]


def dot_colour_error(pixels: np.ndarray, points: np.ndarray, weights: np.ndarray, order: list[int]) -> float:
    """How far the colours under the keypoints are from those painted there, in levels."""
    errors = []
    for place, (x, y) in enumerate(points):
        if weights[place] > 0 and 3 < x < pixels.shape[1] - 4 and 3 < y < pixels.shape[0] - 4:
            i = order[place]
            painted = np.array([60 + 11 * i, 250 - 12 * i, 128])
            errors.append(np.abs(pixels[round(y), round(x)].astype(float) - painted).max())
    return float(np.median(errors))


def test_packed_crops_show_their_keypoints(crops: Crops) -> None:
    assert len(crops) == 12
    for i in range(len(crops)):
        points, weights = crops.people.keypoints[i], crops.people.weights[i]
        assert dot_colour_error(crops.pixels(i), points, weights, list(range(17))) < 20


@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_augmented_keypoints_stay_on_their_dots(crops: Crops, seed: int) -> None:
    """Scale, shift, rotation, half body and the mirror with its swap of sides: pixels and points move alike."""
    # Cuts, of which test_augment.py tells, leave too few dots for a median; few pixels change their colours.
    pixels_as_they_are = {"colour": 0, "blur_p": 0, "erasing_p": 0, "downscale_p": 0, "truncation_p": 0}
    augmentation = Augmentation(flip_p=0.5, rotation=80, scale=0.4, **pixels_as_they_are)
    random = np.random.default_rng(seed)
    row = seed % len(crops)
    pixels, points, weights, _, _ = augment_sample(*sample_of(crops, row), COCO17, (256, 192), augmentation, random)
    orders = (list(range(17)), list(COCO17.flip_indices))
    if (weights > 0).sum() >= 4:
        assert min(dot_colour_error(pixels, points, weights, order) for order in orders) < 30


def test_the_same_number_is_the_same_sample_wherever_a_run_resumes(crops: Crops) -> None:
    recipe = tiny_recipe()
    stage = Stage((64, 64), 40, 8)
    whole = list(batches(crops, recipe, stage, 0, 40))
    rest = list(batches(crops, recipe, stage, 16, 40))
    for a, b in zip(whole[2:], rest, strict=True):
        assert torch.equal(a.crops, b.crops) and torch.equal(a.points, b.points) and a.ids == b.ids
    assert sorted(sample_order(12, 0, 3)) == list(range(12))
    seen = [person for batch in whole for person in batch.ids]
    everybody = sorted(crops.people.ids)
    assert sorted(seen[:12]) == everybody and sorted(seen[12:24]) == everybody


def test_without_augmentation_a_sample_is_the_crop_of_inference(crops: Crops) -> None:
    from posecli.pose.crops import cut_crops

    people = crops.people
    random = np.random.default_rng(0)
    pixels = augment_sample(*sample_of(crops, 0), COCO17, (64, 64), NONE, random).crop
    expected, _ = cut_crops([crops.pixels(0)], [people.boxes[0][None].astype(np.float32)], (64, 64), 1.25)
    assert np.abs(pixels.astype(int) - expected[0]).mean() < 1


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keypoints": [1, 2, 3]}, "3 keypoint values, not 51"),
        ({"keypoints": [float("nan"), 5, 2] * 17}, "not finite|not JSON"),
        ({"keypoints": [0, 0, 0] * 17}, "no person with a labelled keypoint"),
        ({"keypoint_weights": [2] * 17}, "from 0 to 1"),
        ({"image_id": 99}, "no image 99"),
        ({"keypoints": [5000, 5000, 2] * 17}, "17 of 17 keypoints lie outside"),
    ],
)
def test_broken_labels_name_the_annotation(tmp_path: Path, change: dict[str, object], words: str) -> None:
    annotation = {"id": 5, "image_id": 1, "bbox": [0, 0, 9, 9], "keypoints": [1, 2, 2] * 17, **change}
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 90, "height": 90}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "person", "keypoints": NAMES}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=words):
        read_people([Source(path, tmp_path)])


def test_sources_are_weighted_and_missing_images_counted(dataset: Path, tmp_path: Path) -> None:
    people = read_people([source(dataset), source(dataset, 0.25)])
    assert len(people) == 24 and people.weights[:12].min() == 1 and people.weights[12:].max() == 0.25
    gone = Source(source(dataset).annotations, tmp_path)
    with pytest.raises(DataError, match="12 of 12 training images are missing"):
        read_people([gone])


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


def test_processes_share_each_epoch_without_overlap(crops: Crops) -> None:
    stage = Stage((32, 32), 30, 8)
    shares = [list(batches(crops, tiny_recipe(), stage, 0, 30, Distributed(rank, 3))) for rank in range(3)]
    alone = list(batches(crops, tiny_recipe(), stage, 0, 30))
    for whole, *parts in zip(alone, *shares, strict=True):
        counted = [person for part in parts for person in part.ids if bool(part.weights.any())]
        assert sorted(counted) == sorted(whole.ids) and {part.samples for part in parts} == {whole.samples}
    tail = next(iter(batches(crops, tiny_recipe(), Stage((32, 32), 1, 8), 0, 1, Distributed(1, 2))))
    assert tail.samples == 1 and not tail.weights.any() and tail.present.tolist() == [-1]


def test_fingerprints_know_images_by_name_and_by_content(dataset: Path, tmp_path: Path) -> None:
    trained = sorted((dataset / "train2017").iterdir())
    known = fingerprint(trained)
    assert known["count"] == 12 and len(json.dumps(known)) < 400
    renamed, changed, new = tmp_path / "x.png", tmp_path / trained[1].name, tmp_path / "new.png"
    renamed.write_bytes(trained[0].read_bytes())
    changed.write_bytes(b"other bytes")
    new.write_bytes(b"new")
    assert overlap(known, [renamed, changed, new]) == [renamed, changed]
    assert overlap(known, (dataset / "val2017").iterdir()) == []


def test_missing_images_are_left_out_up_to_a_limit(dataset: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(dataset / "train2017", images)
    (images / "000000.png").unlink()
    half = Source(source(dataset).annotations, images)
    with pytest.raises(DataError, match=r"1 of 12 training images are missing, first .*000000"):
        read_people([half])
    people = read_people([half], missing_limit=0.1)
    assert len(people) == 11 and "000000.png" in people.remarks[0]
    nothing = Source(source(dataset).annotations, tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"12 of 12 training images are missing, first .*none is left"):
        read_people([nothing], missing_limit=1.0)


def test_keypoints_outside_the_image_do_not_count(dataset: Path, tmp_path: Path) -> None:
    document = json.loads(source(dataset).annotations.read_bytes())
    document["annotations"][0]["keypoints"][:3] = [-9, 5, 2]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    people = read_people([Source(path, dataset / "train2017")])
    assert people.weights[0, 0] == 0 and people.weights[0, 1:].all() and "1 of 204 keypoints" in people.remarks[0]


def test_other_categories_are_not_trained_on(dataset: Path, tmp_path: Path) -> None:
    document = json.loads(source(dataset).annotations.read_bytes())
    document["categories"].insert(0, {"id": 9, "name": "dog"})
    document["annotations"].append({"id": 99, "image_id": 1, "category_id": 9, "bbox": [0, 0, 9, 9], "keypoints": [1]})
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    assert len(read_people([Source(path, dataset / "train2017")])) == 12
