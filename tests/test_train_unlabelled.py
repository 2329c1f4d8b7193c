"""Distillation on photos without labels: --unlabelled."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from posecli.errors import DataError, NoInputError, UsageError
from posecli.keypoints import COCO17, KeypointSet
from posecli.pose.config import PoseConfig
from posecli.train.batches import Batch, batches
from posecli.train.data import People
from posecli.train.loop import train
from posecli.train.objective import PoseLoss
from posecli.train.packing import Crops, TrainingData, pack_crops
from posecli.train.recipe import Recipe, Stage
from posecli.train.teacher import Teacher, load_teacher
from posecli.train.unlabelled import PhotoFolder, find_people, list_photos
from posecli.types import Frame, Poses
from posecli.weights.files import load_weights
from tests.entry_points import posecli
from tests.media_factory import picture, write_photo
from tests.test_train_negatives import crops as people_and_negatives
from tests.test_train_negatives import data as people_folder
from tests.test_train_teacher import teacher_file as untrained_teacher

data, crops, teacher_file = people_folder, people_and_negatives, untrained_teacher


class StubPredictor:
    """Finds one person in the middle of each photo; none in dark ones."""

    keypoints = COCO17

    def __init__(self) -> None:
        self.seen: list[str] = []

    def predict(self, frames: Sequence[Frame], names: Sequence[str]) -> list[Poses]:
        self.seen += [Path(name).name for name in names]
        return [self._person(frame) if frame.pixels.mean() > 20 else Poses.empty(17) for frame in frames]

    def _person(self, frame: Frame) -> Poses:
        width, height = frame.width, frame.height
        x, y = np.linspace(0.3 * width, 0.7 * width, 17), np.linspace(0.2 * height, 0.8 * height, 17)
        points = np.stack([x, y], axis=1)[None].astype(np.float32)
        scores = np.full((1, 17), 0.9, np.float32)
        scores[0, 15:] = 0.1  # the ankles are not seen
        box = np.array([[0.2 * width, 0.1 * height, 0.8 * width, 0.9 * height]], np.float32)
        one = np.ones(1, np.float32)
        return Poses(points, np.ones_like(points), scores, box, one, one)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(5):
        write_photo(folder / ("inside" if i == 4 else ".") / f"{i}.jpg", picture(90, 120, i))
    write_photo(folder / "dark.png", np.zeros((50, 60, 3), np.uint8))
    (folder / "notes.txt").write_text("no photo")
    return folder


def found(folder: Path, cache: Path, weight: float = 1.0) -> tuple[People, list[str]]:
    stub = StubPredictor()
    people = find_people([list_photos(folder, weight)], COCO17, cache, ("detector", "teacher"), lambda: stub)  # type: ignore[arg-type, return-value]
    return people, stub.seen


def test_people_are_found_once(photos: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(photos, tmp_path / "photos")
    first, seen = found(folder, tmp_path, 0.5)
    assert seen == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "dark.png", "4.jpg"]
    assert len(first) == 5 and first.listed == 6 and first.ids[4] == "photos/inside/4.jpg:0"
    np.testing.assert_allclose(first.boxes[0], [18, 12, 72, 108])
    assert (first.weights[:, :15] == 0.5).all() and not first.weights[:, 15:].any()
    again, seen = found(folder, tmp_path, 0.5)
    assert not seen and again.ids == first.ids and np.array_equal(again.keypoints, first.keypoints)
    # A new photo, another one under an old name, and a line that a kill cut short.
    write_photo(folder / "new.jpg", picture(80, 80, 9))
    write_photo(folder / "1.jpg", picture(100, 100, 8))
    (cache,) = tmp_path.glob("unlabelled-*.jsonl")
    lines = cache.read_bytes().splitlines()
    cache.write_bytes(b"\n".join(lines)[:-40])
    more, seen = found(folder, tmp_path)
    assert sorted(seen) == ["1.jpg", "4.jpg", "new.jpg"] and len(more) == 6
    assert not found(folder, tmp_path)[1]


def test_photos_that_cannot_be_read_are_told(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    shutil.copy(photos / "0.jpg", folder)
    (folder / "broken.jpg").write_bytes((photos / "1.jpg").read_bytes()[:200])
    people, _ = found(folder, tmp_path)
    assert len(people) == 1 and len(people.remarks) == 1
    assert "1 of 2 photos" in people.remarks[0] and "broken.jpg" in people.remarks[0]


def test_folders_without_people_or_photos_and_other_teachers(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--unlabelled .*none: no such folder"):
        list_photos(tmp_path / "none")
    with pytest.raises(NoInputError, match="no photo in it"):
        list_photos(tmp_path)
    dark = PhotoFolder(photos, (photos / "dark.png",))
    stub = StubPredictor()
    with pytest.raises(DataError, match="no person found in 1 photos"):
        find_people([dark], COCO17, tmp_path, ("a",), lambda: stub)  # type: ignore[arg-type, return-value]
    two = KeypointSet("two", ("a", "b"), (), ())
    with pytest.raises(DataError, match="keypoints differ"):
        find_people([dark], two, tmp_path, ("b",), lambda: stub)  # type: ignore[arg-type, return-value]


@pytest.fixture(scope="module")
def unlabelled(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Crops:
    cache = tmp_path_factory.mktemp("cache")
    return pack_crops(found(photos, cache, 2.0)[0], cache, height=96)


def recipe(samples: int, **changes: object) -> Recipe:
    made = Recipe(
        model=PoseConfig(deconv_channels=(), input_size=(64, 64), split_ratio=4, sigma=(3, 3), person_score=True),
        stages=(Stage((64, 64), samples, 8, freeze=19),),
        warmup_samples=16,
        learning_rate=0.01,
        negatives_share=0.3,
        unlabelled_share=0.4,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def joined(seen: Sequence[Batch], name: str) -> torch.Tensor:
    return torch.cat([getattr(batch, name) for batch in seen])


def test_labelled_samples_stay_the_same_to_the_byte(crops: tuple[Crops, Crops], unlabelled: Crops) -> None:
    people, negatives = crops
    stage = Stage((64, 64), 320, 8)
    plain = list(batches(people, recipe(320), stage, 0, 320, negatives=negatives))
    mixed = list(batches(people, recipe(320), stage, 0, 320, negatives=negatives, unlabelled=unlabelled))
    ids = [text for batch in mixed for text in batch.ids]
    of_photos = torch.tensor([text.startswith(unlabelled.people.ids[0].split("/")[0]) for text in ids])
    assert 0.3 < float(of_photos.float().mean()) < 0.5
    for name in ("crops", "points", "weights", "present", "sides", "sides_weights", "taught"):
        before, after = joined(plain, name), joined(mixed, name)
        assert torch.equal(before[~of_photos], after[~of_photos]), name
    assert (joined(mixed, "present")[of_photos] == -1).all() and (joined(mixed, "taught")[of_photos] == 2).all()
    assert not joined(mixed, "weights")[of_photos].any() and not joined(mixed, "sides_weights")[of_photos].any()
    assert torch.equal(joined(plain, "taught"), joined(plain, "present"))  # 1 for people, 0 for negatives
    later = list(batches(people, recipe(320), stage, 160, 320, negatives=negatives, unlabelled=unlabelled))
    assert torch.equal(joined(later, "crops"), joined(mixed, "crops")[160:])


class Brightness(nn.Module):
    """A network whose outputs depend on the brightness of each crop alone."""

    def __init__(self, config: PoseConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        level = crops.mean(dim=(1, 2, 3))
        x, y = (level[:, None, None] * torch.linspace(-3, 3, bins).repeat(17, 1) for bins in self.config.bins)
        return x, y, level


def test_photos_add_to_the_divergence_from_the_teacher_only(
    crops: tuple[Crops, Crops], unlabelled: Crops, teacher_file: Path
) -> None:
    made, where = recipe(16), torch.device("cpu")
    teacher: Teacher = load_teacher(teacher_file, COCO17, "cpu")
    stage = Stage((128, 64), 16, 16)
    batch = next(iter(batches(crops[0], made, stage, 0, 16, negatives=crops[1], unlabelled=unlabelled)))
    config = dataclasses.replace(made.model, input_size=stage.input_size)
    network, loss = Brightness(config), PoseLoss(made, config, where, teacher)
    photos = batch.present < 0
    assert 0 < int(photos.sum()) < 16
    whole = {name: float(value) for name, value in loss(network, batch).items()}
    blanked = dataclasses.replace(batch, crops=torch.where(photos[:, None, None, None], 0, batch.crops))
    other = {name: float(value) for name, value in loss(network, blanked).items()}
    for name in ("keypoints", "person_score"):
        assert other[name] == pytest.approx(whole[name], rel=1e-5)
    assert abs(other["teacher"] - whole["teacher"]) > 1e-3 * whole["teacher"]
    # The folder's weight of 2 is on the part of the photos.
    rest = float(loss(network, dataclasses.replace(batch, taught=torch.where(photos, 0.0, batch.taught)))["teacher"])
    once = float(loss(network, dataclasses.replace(batch, taught=batch.taught.clamp_max(1)))["teacher"])
    assert whole["teacher"] - rest == pytest.approx(2 * (once - rest), rel=1e-3)


def test_a_training_with_photos_resumes_to_the_byte(
    crops: tuple[Crops, Crops], unlabelled: Crops, teacher_file: Path, tmp_path: Path
) -> None:
    teacher = load_teacher(teacher_file, COCO17, "cpu")
    made = recipe(32, teacher=teacher.sha256, stages=(Stage((64, 32), 32, 8, freeze=19),))
    made = dataclasses.replace(made, model=dataclasses.replace(made.model, input_size=(64, 32)))
    torch.set_num_threads(1)
    files = [
        train(made, crops[0], tmp_path / str(i), negatives=crops[1], unlabelled=unlabelled, teacher=teacher, workers=i)
        for i in range(2)
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "loss_teacher" in (tmp_path / "0" / "metrics.csv").read_text()
    images = TrainingData(*crops, unlabelled).fingerprint
    assert images["count"] == TrainingData(*crops).fingerprint["count"] + 5


def test_the_command_learns_from_photos(
    data: Path, samples: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("astronaut.jpg", "balance_two_people.jpg"):
        shutil.copy(samples / name, photos)
    command = ["train", "--ann", data / "people.json", "--images", data, "--runs", tmp_path / "runs"]
    command += ["--deconv", "none", "--threads", 1, "--stages", "64x32:16", "--batch-size", 8, "--device", "cpu"]
    taught = ["--teacher", "pose", "--unlabelled", f"{photos}:0.5"]
    result = posecli(capfd, *command, *taught)
    assert result.code == 0, result.err
    assert "finding people in 2 photos without labels" in result.err
    assert "3 people in 2 photos without labels" in result.err
    training = load_weights(tmp_path / "runs" / "simcc" / "last.safetensors")[1]["training"]
    assert training["unlabelled"] == 3 and training["recipe"]["unlabelled_share"] == 0.3
    began = json.loads((tmp_path / "runs" / "simcc" / "options.json").read_bytes())
    assert began["unlabelled"] is not None
    again = posecli(capfd, *command, *taught, "--name", "again", "--unlabelled-share", 0.5)
    assert again.code == 0 and "finding people" not in again.err
    looked = posecli(capfd, *command, *taught, "--name", "looked", "--preview", 4)
    assert looked.code == 0 and (tmp_path / "runs" / "looked" / "preview.jpg").is_file()


def test_the_command_s_errors_name_what_is_missing(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    command = ["train", "--ann", data / "people.json", "--images", data, "--runs", tmp_path / "runs", "--device", "cpu"]
    for more, code, words in (
        (["--unlabelled", empty], 2, "give one by --teacher"),
        (["--unlabelled", empty, "--teacher", "pose"], 3, f"--unlabelled {empty}: no photo in it"),
        (["--unlabelled", tmp_path / "none", "--teacher", "pose"], 2, "no such folder"),
        (["--unlabelled", empty, "--teacher", "pose", "--unlabelled-share", 1], 2, "a share between 0 and 1"),
        (["--unlabelled", empty, "--teacher", "pose", "--init", "pose", "--heads-only"], 2, "--heads-only"),
    ):
        result = posecli(capfd, *command, *more)
        assert result.code == code and words in result.err and "Traceback" not in result.err, result.err
        assert not (tmp_path / "runs").exists()
