"""Training of the person detector: its pictures and labels, its losses, and a small run that is interrupted."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posecli.detect import load_detector
from posecli.detect.person import build_fcos, level_sizes, locations
from posecli.detect.person_config import PersonConfig
from posecli.errors import DataError
from posecli.train.detector import DetectorRecipe, make_batch
from posecli.train.detector_augment import part_without_people, place_photo
from posecli.train.detector_data import NO_LABELS, DetectionSource, Labels, Photo, read_photos
from posecli.train.detector_loss import BACKGROUND, IGNORED, assign, detector_losses
from posecli.types import Frame
from posecli.weights.files import load_weights, save_weights
from tests.entry_points import posecli
from tests.media_factory import picture

STRIDES = PersonConfig("fcos_cspnext").strides
PERSON = {"category_id": 1, "bbox": [20, 10, 40, 70], "score": 0.4, "iscrowd": 0}
CROWD = {"category_id": 1, "bbox": [80, 5, 30, 30], "iscrowd": 1}


def write_source(folder: Path, count: int, annotations: list[dict], **image: object) -> DetectionSource:
    images = [{"id": i, "file_name": f"{i}.png", "width": 128, "height": 96, **image} for i in range(count)]
    labels = [
        {"id": len(annotations) * i + k, "image_id": i, **a} for i in range(count) for k, a in enumerate(annotations)
    ]
    folder.mkdir()
    (folder / "boxes.json").write_text(json.dumps({"images": images, "annotations": labels}))
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), picture(128, 96, i))
    return DetectionSource(folder / "boxes.json", folder)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[DetectionSource]:
    """Five photos of people, one not fully labelled, three without people."""
    root = tmp_path_factory.mktemp("data")
    return [
        write_source(root / "people", 5, [PERSON, CROWD]),
        write_source(root / "partial", 1, [PERSON], persons_complete=False),
        write_source(root / "negatives", 3, []),
    ]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a detector."""
    config = PersonConfig("fcos_cspnext", input_size=(96, 96), channels=32, convolutions=1)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    save_weights(path, build_fcos(config).state_dict(), {"kind": "detector", "config": vars(config)})
    return path


def test_labels_are_read_with_their_weights_and_what_is_uncertain(sources: list[DetectionSource]) -> None:
    photos = read_photos([sources[0], DetectionSource(sources[2].annotations, sources[2].images, repeat=2), sources[1]])
    assert [len(photo.labels.boxes) for photo in photos] == [1] * 5 + [0] * 6 + [1]
    assert photos[0].labels.boxes.tolist() == [[20, 10, 60, 80]] and photos[0].labels.weights == pytest.approx(0.7)
    assert photos[0].labels.ignored.tolist() == [[80, 5, 110, 35]]
    assert photos[-1].labels.ignored.tolist() == [[0, 0, 128, 96]]
    halved = read_photos(sources[:1], longest=64)[0]
    assert halved.pixels().shape == (48, 64, 3) and halved.labels.boxes.tolist() == [[10, 5, 30, 40]]


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    source = write_source(tmp_path / "people", 1, [PERSON])
    (source.images / "0.png").write_text("no image")
    with pytest.raises(DataError, match=r"0\.png: not an image"):
        read_photos([source])
    (source.images / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png: cannot be read"):
        read_photos([source])


def test_boxes_move_with_the_picture() -> None:
    """The person is painted white on black: the box is where white is."""
    pixels = np.zeros((192, 256, 3), np.uint8)
    pixels[40:150, 80:160] = 255
    labels = Labels.of([[80, 40, 160, 150]], [1.0], [])
    photo = Photo(cv2.imencode(".png", pixels)[1].ravel(), labels, Path("x"))
    for seed in range(20):
        drawn, moved = place_photo(photo, (96, 128), (0.4, 1.2), np.random.default_rng(seed))
        rows, columns = np.nonzero(drawn.min(axis=2) > 150)
        white = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(moved.boxes[0], white, atol=2.5)


def test_empty_parts_have_nobody_in_them() -> None:
    """People are painted red: no red is left."""
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[10:80, 20:60] = (0, 0, 255)
    photo = Photo(cv2.imencode(".png", pixels)[1].ravel(), Labels.of([[20, 10, 60, 80]], [1.0], []), Path("x"))
    parts = [part_without_people(photo, (40, 50), np.random.default_rng(seed)) for seed in range(30)]
    found = [part for part in parts if part is not None]
    assert len(found) > 10
    for part, empty in found:
        assert part.shape == (40, 50, 3) and not len(empty.boxes)
        assert part[..., 0].max() < 128


def test_batches_depend_on_the_recipe_alone(sources: list[DetectionSource]) -> None:
    photos = read_photos(sources)
    recipe = DetectorRecipe(samples=40, batch_size=4, sizes=(64, 96), mosaic_p=0.5)
    first, again, other = (make_batch(photos, recipe, n) for n in (4, 4, 8))
    assert first.images.shape == (4, 96, 96, 3) and other.images.shape == (4, 64, 64, 3)
    assert torch.equal(first.images, again.images) and first.ids == again.ids
    for side, batch in ((96, first), (64, other)):
        for labels in batch.labels:
            assert (labels.boxes >= 0).all() and (labels.boxes <= side).all()


def perfect(labels: Labels, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs that give the first person's box everywhere, and the locations: logits, boxes, centres, strides."""
    centres, strides = locations(size, STRIDES)
    boxes = torch.from_numpy(labels.boxes[:1]).repeat(len(centres), 1)
    return torch.zeros(len(centres)), boxes, centres, strides


def test_locations_inside_a_person_answer_for_it() -> None:
    labels = Labels.of([[16, 16, 80, 80], [100, 20, 120, 60]], [1, 1], [[0, 64, 128, 96]])
    logits, boxes, centres, strides = perfect(labels, (96, 128))
    index, overlap = assign(logits, boxes, labels, centres, strides)
    inside = ((centres > 16) & (centres < 80)).all(1)
    assert int((index == 0).sum()) == 13 and inside[index == 0].all() and (overlap[index == 0] > 0.99).all()
    assert int((index == 1).sum()) == 1, "at least one location, however bad its box"
    low = (centres[:, 1] >= 64) & (index < 0)
    assert (index[low] == IGNORED).all() and (index[(centres[:, 1] < 64) & (index < 0)] == BACKGROUND).all()
    assert (overlap[index < 0] == 0).all()


def test_losses_fall_to_nothing_for_perfect_outputs() -> None:
    labels = Labels.of([[16, 16, 80, 80]], [1], [])
    logits, boxes, centres, strides = perfect(labels, (96, 128))
    index, _ = assign(logits, boxes, labels, centres, strides)
    distances = torch.cat([centres - boxes[:, :2], boxes[:, 2:] - centres], 1) / strides[:, None]
    sure = torch.where(index >= 0, 12.0, -12.0)

    def total(logit: torch.Tensor, moved: float, what: Labels = labels) -> dict[str, float]:
        outputs = {"cls_logits": logit[None, :, None], "bbox_regression": (distances + moved)[None]}
        return {name: float(loss) for name, loss in detector_losses(outputs, [what], centres, strides).items()}

    assert total(sure, 0) == pytest.approx({"quality": 0, "giou": 0}, abs=1e-3)
    assert total(sure, 0.5)["giou"] > 0.1 and total(-sure, 0)["quality"] > 1
    assert total(sure, 0, NO_LABELS)["quality"] > 1 and total(sure, 0, NO_LABELS)["giou"] == 0
    unsure = Labels.of([], [], [[0, 0, 128, 96]])
    assert total(sure, 0, unsure)["quality"] == 0, "nothing is learned in an uncertain region"


def arguments(sources: list[DetectionSource], start: Path, runs: Path, samples: int) -> list[object]:
    options: list[object] = ["train-detector", "--init", start, "--runs", runs, "--samples", samples, "--batch-size", 4]
    options += ["--size", "64,96", "--input-size", 96, "--device", "cpu", "--license", "Apache-2.0"]
    for source in sources:
        options += ["--ann", source.annotations, "--images", source.images]
    return options


def test_a_run_makes_weights_that_run_and_goes_on_when_killed(
    sources: list[DetectionSource],
    start: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert posecli(capfd, *arguments(sources, start, whole, 12)).code == 0
    from posecli.train import detector

    with monkeypatch.context() as patch:
        patch.setattr(detector, "detection_batches", lambda *_: (_ for _ in [fail(sources)]))
        assert posecli(capfd, *arguments(sources, start, parts, 12)).code != 0
    draw = detector.make_batch

    def draw_two(photos: list[Photo], recipe: DetectorRecipe, first: int) -> detector.DetectionBatch:
        if first >= 8:
            raise DataError("stopped here")
        return draw(photos, recipe, first)

    with monkeypatch.context() as patch:
        patch.setattr(detector, "make_batch", draw_two)
        assert "stopped here" in posecli(capfd, *arguments(sources, start, parts, 12)).err
    assert posecli(capfd, *arguments(sources, start, parts, 12)).code == 0
    made = whole / "person/person.safetensors"
    assert made.read_bytes() == (parts / "person/person.safetensors").read_bytes()
    tensors, header = load_weights(made)
    assert header["training"]["samples"] == 12 and header["licence"] == "Apache-2.0"
    before = load_weights(start)[0]
    assert any(not torch.equal(tensors[name].float(), before[name]) for name in before)
    found = load_detector("person", device="cpu", runtime="torch", weights=made)([Frame(picture())], ["x"])
    assert found[0].boxes.shape[1] == 4
    refused = posecli(capfd, *arguments(sources, start, parts, 16))
    assert refused.code == 2 and "began with other samples" in refused.err


def fail(sources: list[DetectionSource]) -> None:
    raise DataError(f"cut off at {sources[0].images}")


def test_options_that_do_not_fit_are_refused(
    sources: list[DetectionSource], start: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = arguments(sources[:1], start, tmp_path, 4)
    for change, words in (
        (["--size", "100"], "100 is no multiple of 32"),
        (["--ann", sources[1].annotations], "one folder of images for each"),
        (["--ann", sources[1].annotations, "--images", f"{sources[1].images}:0"], "no whole number of times"),
        (["--init", "nowhere.safetensors"], "no such weights file"),
    ):
        result = posecli(capfd, *good, *change)
        assert result.code != 0 and words in result.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(416, 416), (256, 416), (320, 192)])
def test_locations_lie_where_the_convolutions_look(size: tuple[int, int]) -> None:
    centres, sizes = locations(size, STRIDES)
    assert len(centres) == len(sizes) == sum(h * w for h, w in level_sizes(size, STRIDES))
    for stride in STRIDES:
        of_level = centres[sizes == stride]
        assert (of_level % stride == 0).all() and (of_level < torch.tensor(size[::-1])).all()
