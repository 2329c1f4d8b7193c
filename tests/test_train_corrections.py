"""Training on corrected people: what is learned, what is held out, and the command from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posecli.annotations.pixels import read_pixels
from posecli.cli.train_corrections import DEFAULTS, compare
from posecli.corrections.corrections import Corrections
from posecli.errors import DataError, UsageError
from posecli.media.images import decode_image
from posecli.media.video import VideoReader
from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC
from posecli.train.corrected import CorrectedData, read_corrected
from posecli.types import Poses
from posecli.weights.files import save_weights
from tests.dotted_people import dots
from tests.entry_points import posecli
from tests.media_factory import exif_orientation, write_photo, write_video
from tests.run_factory import make_run

PHOTOS = [f"photos/{i}.png" for i in range(4)]


def somebody(points: np.ndarray, seed: int = 0, tracked: bool = False) -> Poses:
    """A person whose keypoints are some pixels off."""
    random = np.random.default_rng(seed)
    return Poses(
        keypoints=(points[None, :, :2] + random.normal(0, 3, (1, 17, 2))).astype(np.float32),
        std=np.full((1, 17, 2), 3, np.float32),
        scores=np.linspace(0.2, 0.9, 17)[None].astype(np.float32),
        boxes=np.array([[25, 18, 135, 102]], np.float32),
        box_scores=np.full(1, 0.9, np.float32),
        person_scores=np.full(1, 0.8, np.float32),
        track_ids=np.ones(1, np.int64) if tracked else None,
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Results of four photos and two clips of ten frames, all of one person each."""
    inputs, sources = {}, {}
    for i, name in enumerate(PHOTOS):
        pixels, points = dots(i)
        sources[name] = write_photo(tmp_path / name, pixels)
        inputs[name] = [somebody(points, i)]
    for name in ("a.mp4", "b.mp4"):
        pictures = [dots(10 + i)[0] for i in range(10)]
        sources[name] = write_video(tmp_path / name, 10, 160, 120, pictures=pictures)
        inputs[name] = [somebody(dots(10 + i)[1], i, tracked=True) for i in range(10)]
    return make_run(tmp_path / "out", inputs, size=(160, 120), sources=sources)


def edit(out: Path, *edits: dict) -> None:
    with Corrections.open(out, write=True) as corrections:
        for each in edits:
            corrections.apply(each, "test")


def move(name: str, frame: int = 0, index: int = 3, v: int = 2) -> dict:
    place = {str(index): [50, 60, v]}
    return {"op": "keypoints", "input": name, "frame": frame, "person": "p0", "keypoints": place}


def accept(name: str, frame: int = 0) -> dict:
    return {"op": "accept", "input": name, "frame": frame, "person": "p0"}


def everybody(data: CorrectedData) -> set[tuple[str, int]]:
    return {(one.input, one.frame.index) for one in (*data.training, *data.held_out)}


def test_weights_are_one_where_somebody_looked_and_the_score_elsewhere(out: Path, tmp_path: Path) -> None:
    edit(out, move(PHOTOS[0]), move(PHOTOS[0], index=5, v=0), accept(PHOTOS[1]))
    people = read_corrected([out], tmp_path / "cache", 0, [0.5]).people()
    assert people.images == tuple((tmp_path / name) for name in PHOTOS[:2]) and people.sizes == ((160, 120),) * 2
    scores = np.round(np.linspace(0.2, 0.9, 17), 4)
    expected = scores.copy()
    expected[[3, 5]] = [1, 0]
    inside = (somebody(dots(0)[1], 0).keypoints[0] >= 0).all(axis=-1)
    np.testing.assert_allclose(people.weights[0], 0.5 * expected * inside, atol=1e-4)
    assert set(people.weights[1].tolist()) <= {0.0, 0.5} and people.keypoints[0, 3].tolist() == [50, 60]


def test_whole_clips_and_photos_are_held_out_and_always_the_same(out: Path, tmp_path: Path) -> None:
    edit(out, *(accept(name) for name in PHOTOS), *(move("a.mp4", f) for f in range(4)), move("b.mp4", 5))
    data = read_corrected([out], tmp_path / "cache", 0.3)
    training, held_out = ({one.input for one in part} for part in (data.training, data.held_out))
    assert held_out and training and not training & held_out
    assert everybody(data) == {(n, 0) for n in PHOTOS} | {("a.mp4", f) for f in range(4)} | {("b.mp4", 5)}
    assert len(data.held_out) <= 3
    again = read_corrected([out], tmp_path / "elsewhere", 0.3)
    assert {one.input for one in again.held_out} == held_out
    assert not read_corrected([out], tmp_path / "cache", 0).held_out


def test_of_one_clip_the_last_part_is_held_out_and_that_is_said(out: Path, tmp_path: Path) -> None:
    edit(out, *(move("a.mp4", frame) for frame in range(10)))
    data = read_corrected([out], tmp_path / "cache", 0.2)
    assert [one.frame.index for one in data.held_out] == [8, 9] and "one clip alone" in data.remarks[0]


def test_frames_of_clips_are_those_that_the_run_decoded(out: Path, tmp_path: Path) -> None:
    edit(out, move("a.mp4", 3), move("a.mp4", 7), move("b.mp4", 1))
    data = read_corrected([out], tmp_path / "cache", 0)
    data.decode()
    with VideoReader(tmp_path / "a.mp4") as reader:
        frames = {frame.index: frame.pixels for frame in reader}
    for one in data.training[:2]:
        assert np.array_equal(read_pixels(one.image, (160, 120))[0], frames[one.frame.index])
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(before) == 3
    read_corrected([out], tmp_path / "cache", 0).decode()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == before


def test_propagated_people_take_part_twice_a_second(out: Path, tmp_path: Path) -> None:
    values = {str(frame): {"p0": {"3": [40, 50]}} for frame in range(10)}
    edit(out, move("a.mp4", 0), {"op": "propagate", "input": "a.mp4", "track": 1, "values": values})
    # At 25 frames a second the ten frames are less than half a second.
    assert everybody(read_corrected([out], tmp_path / "cache", 0)) == {("a.mp4", 0)}


def test_the_truth_of_those_held_out_leaves_out_unclear_keypoints(out: Path, tmp_path: Path) -> None:
    edit(out, *(move(name, index=0) for name in PHOTOS))
    data = read_corrected([out], tmp_path / "cache", 0.5)
    truth = data.ground_truth()
    assert truth is not None and len(truth.dataset["annotations"]) == len(data.held_out) == 2
    for annotation in truth.dataset["annotations"]:
        v = annotation["keypoints"][2::3]
        # Scores below 0.3 have v 1; the first keypoint was set by hand.
        assert v[0] == 2 and v[1] == 0 and v[-1] == 2 and annotation["num_keypoints"] == np.count_nonzero(v)
        assert truth.pixels(annotation["image_id"]).shape == (120, 160, 3)


def test_a_turned_photo_is_trained_upright(tmp_path: Path) -> None:
    pixels, points = dots(1, (120, 160))
    stored = np.rot90(pixels)
    photo = write_photo(tmp_path / "turned.jpg", np.ascontiguousarray(stored))
    photo.write_bytes(exif_orientation(photo.read_bytes(), 6))
    upright = decode_image(photo.read_bytes(), "turned.jpg")
    assert upright.shape == (160, 120, 3)
    out = make_run(tmp_path / "out", {"turned.jpg": [somebody(points)]}, size=(120, 160), sources={"turned.jpg": photo})
    edit(out, accept("turned.jpg"))
    one = read_corrected([out], tmp_path / "cache", 0).training[0]
    assert np.array_equal(read_pixels(one.image, (one.frame.width, one.frame.height))[0], upright)


def test_what_cannot_be_learned_from_is_said_in_one_line(out: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no person was corrected"):
        read_corrected([out], tmp_path / "cache")
    with pytest.raises(UsageError, match="no results"):
        read_corrected([tmp_path], tmp_path / "cache")
    edit(out, move(PHOTOS[0]), move("a.mp4"))
    (tmp_path / PHOTOS[0]).write_bytes(b"changed")
    with pytest.raises(DataError, match="was changed since the run"):
        read_corrected([out], tmp_path / "cache")
    (tmp_path / PHOTOS[0]).unlink()
    with pytest.raises(DataError, match="source is gone"):
        read_corrected([out], tmp_path / "cache")


def start_weights(path: Path) -> Path:
    """A small pose model at its start."""
    config = PoseConfig(input_size=(32, 32), deconv_channels=(8,))
    save_weights(path, SimCC(config).state_dict(), {"kind": "pose", "config": config.to_json()})
    return path


def test_the_command_learns_compares_and_says_so(out: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit(out, *(accept(name) for name in PHOTOS), *(move("a.mp4", f) for f in range(4)), move("b.mp4", 5))
    init = start_weights(tmp_path / "start.safetensors")
    command = ["train", "--corrections", out, "--runs", tmp_path / "runs", "--name", "mended", "--device", "cpu"]
    no_start = posecli(capfd, *command)
    assert no_start.code == 2 and "--init" in no_start.err
    command += ["--init", init, "--stages", "32x32:16", "--batch-size", 8, "--hold-out", 0.3]
    records = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    done = posecli(capfd, *command)
    assert done.code == 0, done.err
    assert "held-out people" in done.err and "before" in done.err and "paired" in done.err
    folder = tmp_path / "runs" / "mended"
    document = json.loads((folder / "comparison.json").read_bytes())
    assert [model["name"] for model in document["models"]] == ["before", "after"]
    assert {"value", "low", "high", "p_value"} <= document["differences"][0]["AP"].keys()
    assert "AP difference" in (folder / "comparison.md").read_text()
    options = json.loads((folder / "options.json").read_bytes())
    assert options["learning_rate"] == DEFAULTS["learning_rate"] and options["stages"][0]["samples"] == 16
    first = (folder / "last.safetensors").read_bytes()
    # The same corrections give the same weights.
    assert posecli(capfd, *["again" if part == "mended" else part for part in command]).code == 0
    assert (tmp_path / "runs" / "again" / "last.safetensors").read_bytes() == first
    # Nothing in the results was changed.
    assert all(path.read_bytes() == content for path, content in records.items())


def test_corrections_beside_other_annotations(out: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit(out, *(accept(name) for name in PHOTOS))
    points = dots(50)[1]
    write_photo(tmp_path / "more" / "1.png", dots(50)[0])
    person = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [25, 18, 110, 84], "keypoints": points.ravel().tolist()}
    coco = json.loads((out / "coco.json").read_bytes())
    document = {
        "images": [{"id": 1, "file_name": "1.png", "width": 160, "height": 120}],
        "annotations": [{**person, "area": 5000, "iscrowd": 0, "num_keypoints": 17}],
        "categories": coco["categories"],
    }
    (tmp_path / "more.json").write_text(json.dumps(document))
    init = start_weights(tmp_path / "start.safetensors")
    command = ["train", "--init", init, "--corrections", f"{out}:2", "--ann", tmp_path / "more.json"]
    command += ["--images", tmp_path / "more", "--stages", "32x32:8", "--device", "cpu", "--runs", tmp_path / "runs"]
    done = posecli(capfd, *command)
    assert done.code == 0, done.err
    assert "4 people in 4 images" in done.err  # three of the photos, and one of the other file


def test_a_photo_in_two_folders_is_not_both_trained_on_and_held_out(out: Path, tmp_path: Path) -> None:
    other = make_run(
        tmp_path / "other",
        {PHOTOS[0]: [replace(somebody(dots(0)[1]))]},
        size=(160, 120),
        sources={PHOTOS[0]: tmp_path / PHOTOS[0]},
    )
    for folder in (out, other):
        edit(folder, accept(PHOTOS[0]))
    data = read_corrected([out, other], tmp_path / "cache", 0.5)
    assert len(data.training) == 2 and not data.held_out


def test_keypoints_without_sigmas_are_trained_but_not_compared(out: Path, tmp_path: Path) -> None:
    edit(out, *(accept(name) for name in PHOTOS))
    data = read_corrected([out], tmp_path / "cache", 0.5)
    plain = replace(data, keypoint_set=replace(data.keypoint_set, sigmas=None))
    said: list[str] = []
    compare(plain, tmp_path / "a", tmp_path / "b", tmp_path, "cpu", said.append)
    assert len(said) == 1 and "sigmas" in said[0] and not (tmp_path / "comparison.json").exists()
