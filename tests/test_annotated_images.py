"""Images of COCO files: their pixel space, their names on the disk, unreadable ones; mirroring without pairs."""

import dataclasses
import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from posecli.annotations.images import Image
from posecli.annotations.names import find_files
from posecli.annotations.pixels import OTHER, TURNED, read_pixels
from posecli.detect.boxes import read_boxes
from posecli.errors import DataError
from posecli.evaluate.ground_truth import read_ground_truth
from posecli.evaluate.predictions import read_ahead
from posecli.keypoints import COCO17, describe_category
from posecli.pose.estimator import load_estimator
from posecli.train.augment import NONE, augment_sample
from posecli.train.data import Source, read_people
from posecli.train.packing import pack_crops
from posecli.types import Detections, Frame
from posecli.weights.files import load_weights, save_weights
from tests.dotted_people import dots
from tests.entry_points import posecli
from tests.media_factory import exif_orientation, picture, write_photo

# How upright pixels are stored, so that this EXIF orientation turns them upright again.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


def write_turned(path: Path, upright: np.ndarray, orientation: int) -> Path:
    ok, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(STORED[orientation](upright))[..., ::-1])
    assert ok
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(exif_orientation(jpeg.tobytes(), orientation))
    return path


def near(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and float(np.abs(first.astype(int) - second).mean()) < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_pixel_space_is_that_of_width_and_height(tmp_path: Path, orientation: int) -> None:
    upright = picture(64, 48)
    stored = np.ascontiguousarray(STORED[orientation](upright))
    path = write_turned(tmp_path / "a.jpg", upright, orientation)
    mirrored = orientation in (2, 3, 4)  # width and height are the same, turned or not
    pixels, told = read_pixels(path, (64, 48))
    assert near(pixels, upright) and told == (TURNED if mirrored else "")
    pixels, told = read_pixels(path, stored.shape[1::-1])
    assert near(pixels, upright if mirrored else stored) and told == (TURNED if mirrored else "")
    pixels, told = read_pixels(path, None)
    assert near(pixels, upright) and told == (TURNED if orientation > 1 else "")
    pixels, told = read_pixels(path, (640, 480))
    assert near(pixels, upright) and told == OTHER


def turned_dataset(root: Path, orientation: int, *, upright_sizes: bool = True) -> Path:
    """Four pictures of a dotted person each, stored turned, annotated upright or as stored."""
    images, annotations = [], []
    for i in range(4):
        pixels, points = dots(i)
        write_turned(root / "x" / f"{i:06d}.jpg", pixels, orientation)
        images.append({"id": i, "file_name": f"{i:06d}.jpg", "width": 160, "height": 120})
        box = [25, 18, 110, 84]
        if not upright_sizes:
            # Orientation 6: upright (x, y) is stored at (y, width - 1 - x).
            images[-1] |= {"width": 120, "height": 160}
            points[:, :2] = np.stack([points[:, 1], 159 - points[:, 0]], axis=1)
            box = [18, 25, 84, 110]
        annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": box,
                            "keypoints": points.reshape(-1).tolist()})  # fmt: skip
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.names)}
    path = root / "a.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return path


@pytest.mark.parametrize(("orientation", "upright_sizes"), [(6, True), (6, False), (3, True), (8, True), (5, True)])
def test_train_and_eval_see_dots_where_the_keypoints_are(tmp_path: Path, orientation: int, upright_sizes: bool) -> None:
    path = turned_dataset(tmp_path, orientation, upright_sizes=upright_sizes)
    crops = pack_crops(read_people([Source(path, tmp_path / "x")]), tmp_path / "crops", height=192)
    truth = read_ground_truth(path, tmp_path / "x")
    shown = [(crops.pixels(i), crops.people.keypoints[i]) for i in range(4)]
    labels = [np.array(a["keypoints"]).reshape(-1, 3)[:, :2] for a in truth.dataset["annotations"]]
    shown += list(zip([f.pixels for _, frames, _ in read_ahead(truth, None) for f in frames], labels, strict=True))
    assert len(shown) == 8
    for pixels, points in shown:
        errors = []
        for i, (x, y) in enumerate(points):
            painted = np.array([60 + 11 * i, 250 - 12 * i, 128])
            errors.append(np.abs(pixels[round(y), round(x)].astype(int) - painted).max())
        assert np.median(errors) < 40
    assert any("3 images" in note or "4 images" in note for note in crops.people.notes) == (orientation == 3)
    again = pack_crops(read_people([Source(path, tmp_path / "x")]), tmp_path / "crops", height=192)
    assert again.people.notes == crops.people.notes  # told again, although nothing is packed


# ---- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "on_disk", "told"),
    [
        ("Läufer é.jpg", unicodedata.normalize("NFD", "Läufer é.jpg"), "Unicode form"),
        (unicodedata.normalize("NFD", "Läufer é.jpg"), "Läufer é.jpg", "Unicode form"),
        ("train\\a.jpg", "a.jpg", "backslashes"),
        ("sub\\a.jpg", "sub/a.jpg", "backslashes"),
        (quote("sub dir/ü a.jpg"), "sub dir/ü a.jpg", "URL quoting"),
        ("a b.jpg", "a%20b.jpg", "URL quoting"),
        ("images/a.jpg", "a.jpg", "other folders"),
        ("a.jpg", "images/a.jpg", "other folders"),
        ("/home/me/set/a.jpg", "sub/a.jpg", "other folders"),
        ("C:\\Users\\me\\a.jpg", "a.jpg", "backslashes"),
        ("https://host/data/a.jpg?x=1", "a.jpg", "other folders"),
        ("A.JPG", "a.jpg", "letter case"),
        ("a.JPG", "A.jpg", "letter case"),
        ("", "000000000007.jpg", "image's id"),
        ("", "7.png", "image's id"),
    ],
)
def test_names_spelt_otherwise_are_found_and_told(tmp_path: Path, written: str, on_disk: str, told: str) -> None:
    (tmp_path / on_disk).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / on_disk).touch()
    (tmp_path / "other.jpg").touch()
    files = find_files([Image(7, 7, written, None)], tmp_path)
    assert files.there == {7: tmp_path / on_disk} and not files.missing
    assert len(files.notes) == 1 and told in files.notes[0] and files.notes[0].isascii()
    if written:
        path = tmp_path / "boxes.json"
        images = [{"id": 7, "file_name": written}]
        path.write_text(json.dumps({"images": images, "annotations": [{"image_id": 7, "bbox": [0, 0, 5, 5]}]}))
        assert len(read_boxes(path).of(on_disk)) == 1


def test_names_that_do_not_tell_are_missing(tmp_path: Path) -> None:
    for name in ("one/a.jpg", "two/a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = ["/x/a.jpg", "cam1/b.jpg", "cam2/b.jpg", "x\0.jpg", "y" * 300, "\ud800.jpg", "c.jpg"]
    files = find_files([Image(i, i, name, None) for i, name in enumerate(names)], tmp_path)
    assert list(files.there) == [6] and len(files.missing) == 6 and files.notes == ()


def test_missing_names_are_shown_so_that_they_can_be_told_apart(tmp_path: Path) -> None:
    document = {"images": [{"id": 1, "file_name": "cafe\u0301.jpg"}], "annotations": [],
                "categories": [{"id": 1, "name": "person", "keypoints": ["a"]}]}  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"1 of 1 images are missing.*cafe\\u0301"):
        read_ground_truth(path, tmp_path)


# ---- unreadable images --------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = turned_dataset(tmp_path, 1)
    (tmp_path / "x" / "000001.jpg").write_bytes(b"no picture")
    return path


def test_training_leaves_unreadable_images_out_up_to_a_limit(damaged: Path, tmp_path: Path) -> None:
    source = [Source(damaged, tmp_path / "x")]
    with pytest.raises(DataError, match=r"1 of 4 training images cannot be read, first .*000001.jpg.*--missing-limit"):
        pack_crops(read_people(source), tmp_path / "crops")
    for _ in range(2):  # the second time the crops are there
        crops = pack_crops(read_people(source, missing_limit=0.25), tmp_path / "crops", missing_limit=0.25)
        assert [i.rpartition(":")[2] for i in crops.people.ids] == ["0", "2", "3"] and len(crops.spans) == 3
        assert "1 of 4 training images cannot be read" in crops.people.remarks[0]
        third = pack_crops(read_people(source).subset([2]), tmp_path / "third").pixels(0)
        assert near(crops.pixels(1), third)
    with pytest.raises(DataError, match="cannot be read"):  # the cache does not soften the limit
        pack_crops(read_people(source), tmp_path / "crops")
    (tmp_path / "x" / "000002.jpg").unlink()
    with pytest.raises(DataError, match="cannot be read"):  # missing and unreadable ones count together
        pack_crops(read_people(source, missing_limit=0.25), tmp_path / "crops", missing_limit=0.25)


def test_eval_leaves_unreadable_images_out_when_allowed(
    damaged: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [
        "eval",
        tiny_weights,
        "--ann",
        damaged,
        "--images",
        tmp_path / "x",
        "--device",
        "cpu",
        "--runtime",
        "torch",
    ]
    command += ["--bootstrap", 5, "--out", tmp_path / "o", "--json"]
    refused = posecli(capfd, *command)
    assert refused.code == 1 and "000001.jpg" in refused.err and "--allow-missing" in refused.err
    assert len([line for line in refused.err.splitlines() if "warning" not in line]) == 1
    done = posecli(capfd, *command, "--allow-missing")
    assert done.code == 0 and "left out: 1 missing or unreadable images, first" in done.err
    assert json.loads(done.out)["people"] == 3


def test_train_command_with_an_unreadable_image_and_another_category(
    damaged: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(damaged.read_text())
    document["categories"].append({"id": 2, "name": "hand", "keypoints": ["a", "b"]})
    document["annotations"] += [
        {"id": 90 + i, "image_id": i, "category_id": 2, "bbox": [9, 9, 50, 50], "keypoints": [20, 20, 2, 30, 30, 2]}
        for i in (0, 2)
    ]
    damaged.write_text(json.dumps(document))
    command = ["train", "--ann", damaged, "--images", tmp_path / "x", "--runs", tmp_path / "r", "--stages", "32x32:8"]
    command += ["--deconv", "8", "--batch-size", 4, "--device", "cpu", "--sigma", 3]
    refused = posecli(capfd, *command)
    assert refused.code == 1 and "000001.jpg" in refused.err and refused.err.count("posecli:") == 1
    done = posecli(capfd, *command, "--missing-limit", 0.3)
    assert done.code == 0, done.err
    assert 'category "person" (id 1) taken beside "hand" (id 2)' in done.err and "3 people" in done.err
    assert "nothing is mirrored" not in done.err
    hand = posecli(capfd, *command, "--category", "hand", "--name", "hand")
    assert hand.code == 0 and "2 people in 2 images" in hand.err and "nothing is mirrored" in hand.err
    config = load_weights(tmp_path / "r" / "hand" / "last.safetensors")[1]["config"]
    assert config["keypoints"]["names"] == ["a", "b"]


# ---- mirroring ----------------------------------------------------------------------------------------


def test_samples_are_mirrored_only_where_pairs_are_known() -> None:
    pixels, points = dots(3)
    box = np.array([25.0, 18, 135, 102])
    for names, mirrored in ((list(COCO17.names), True), ([f"p{i}" for i in range(17)], False)):
        keypoint_set = describe_category({"keypoints": names})[0]
        crops = [
            augment_sample(
                pixels, box, points[:, :2], np.ones(17), keypoint_set, (64, 48),
                dataclasses.replace(NONE, flip_p=p), np.random.default_rng(0),
            )[0]
            for p in (0.0, 1.0)
        ]  # fmt: skip
        assert np.array_equal(*crops) != mirrored
        assert np.array_equal(crops[0][:, ::-1], crops[1]) == mirrored or not mirrored


def test_the_flip_test_is_off_without_pairs_and_told(
    tiny_weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors, header = load_weights(tiny_weights)
    path = tmp_path / "plain.safetensors"
    config = json.loads(json.dumps(header["config"]))
    config["keypoints"] |= {"names": [f"p{i}" for i in range(17)], "flip_pairs": [], "name": "custom"}
    save_weights(path, tensors, {**header, "config": config})
    found = Detections(np.array([[5, 5, 60, 90]], np.float32), np.ones(1, np.float32))
    frame = Frame(picture(64, 96))
    answers: dict[Any, Any] = {}
    for weights in (path, tiny_weights):
        for flip in (False, True):
            estimator = load_estimator(str(weights), device="cpu", runtime="torch", decoder="argmax", flip=flip)
            answers[weights, flip] = estimator([frame], [found])[0].keypoints
    assert np.array_equal(answers[path, False], answers[path, True])
    assert not np.array_equal(answers[tiny_weights, False], answers[tiny_weights, True])
    assert [record.getMessage() for record in caplog.records].count(
        f"{path}: its keypoints have no left and right pairs: no mirror images are averaged in (--flip)"
    ) == 1


def test_weights_keep_what_a_category_says_of_its_pairs(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    from posecli.pose.config import PoseConfig

    for given in ([], [["a", "b"]]):
        found = describe_category({"name": "x", "keypoints": ["a", "b", "c"], "flip_pairs": given})[0]
        config = PoseConfig.from_json(json.loads(json.dumps(PoseConfig(keypoints=found).to_json())))
        assert config.keypoints == found and config.keypoints.mirrors


def test_boxes_of_another_size_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "boxes.json"
    images = [{"id": 7, "file_name": "a.png", "width": 480, "height": 640}]
    path.write_text(json.dumps({"images": images, "annotations": [{"image_id": 7, "bbox": [0, 0, 5, 5]}]}))
    write_photo(tmp_path / "a.png", picture(64, 48))
    read_boxes(path).of("a.png", Frame(picture(64, 48)))
    assert "its boxes are of a picture of 480x640 pixels, this one has 64x48" in caplog.text
