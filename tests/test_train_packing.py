"""Packed crops: order, what another process gets, what is left behind, hashes of the images."""

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from posecli.errors import DataError
from posecli.keypoints import COCO17
from posecli.train.data import People
from posecli.train.packing import Crops, pack_crops
from posecli.weights.fingerprints import fingerprint, fingerprint_of, overlap
from tests.media_factory import write_photo


def people_of(paths: list[Path], boxes: list[list[float]]) -> People:
    """One person a path, keypoints in the middle of the box."""
    found = np.array(boxes, np.float64)
    middles = np.repeat(((found[:, :2] + found[:, 2:]) / 2)[:, None], 17, axis=1)
    ids = tuple(f"x:{row}" for row in range(len(paths)))
    return People(COCO17, tuple(paths), ids, found, middles, np.ones((len(paths), 17)))


@pytest.fixture
def interleaved(tmp_path: Path) -> People:
    """Two images with a dark left and a bright right half; their people take turns."""
    paths = []
    for name, levels in (("a", (20, 120)), ("b", (70, 220))):
        pixels = np.zeros((120, 160, 3), np.uint8)
        pixels[:, :80], pixels[:, 80:] = levels
        paths.append(write_photo(tmp_path / f"{name}.png", pixels))
    left, right = [10.0, 10, 70, 110], [90.0, 10, 150, 110]
    return people_of([paths[0], paths[1], paths[0], paths[1]], [left, left, right, right])


def level(crops: Crops, row: int) -> float:
    x, y = crops.people.keypoints[row, 0].astype(int)
    return float(crops.pixels(row)[y - 3 : y + 4, x - 3 : x + 4].mean())


def test_each_row_is_its_person_however_images_are_shared(interleaved: People, tmp_path: Path) -> None:
    for _ in range(2):  # packed, and read back
        crops = pack_crops(interleaved, tmp_path / "cache")
        assert [level(crops, row) for row in range(4)] == pytest.approx([20, 70, 120, 220], abs=2)
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".jpegs", ".npz"]


def test_another_process_maps_the_file_again(interleaved: People, tmp_path: Path) -> None:
    crops = pack_crops(interleaved, tmp_path / "cache")
    sent = pickle.dumps(crops)
    assert len(sent) < crops.data.nbytes + 5000
    received = pickle.loads(sent)
    assert isinstance(received.data, np.memmap) and received.people.ids == crops.people.ids
    assert all(np.array_equal(received.pixels(row), crops.pixels(row)) for row in range(4))


def test_hashes_give_the_fingerprint_of_the_images(interleaved: People, tmp_path: Path) -> None:
    crops = pack_crops(interleaved, tmp_path / "cache")
    assert fingerprint_of(crops.contents) == fingerprint(interleaved.images)
    renamed = tmp_path / "other.png"
    renamed.write_bytes(interleaved.images[1].read_bytes())
    assert overlap(fingerprint_of(crops.contents), [renamed, tmp_path / "none.png"]) == [renamed]


def test_a_failed_pack_leaves_no_file(interleaved: People, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 of 2 training images cannot be read"):
        pack_crops(interleaved, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    left = pack_crops(interleaved, tmp_path / "cache", missing_limit=0.5)
    assert [level(left, row) for row in range(2)] == pytest.approx([20, 120], abs=2)


def test_memory_does_not_grow_with_the_crops(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = write_photo(tmp_path / "noise.png", random.integers(0, 255, (200, 150, 3), np.uint8))
    peaks, written = [], []
    for count in (20, 200):
        paths = [tmp_path / f"{count}_{number}.png" for number in range(count)]
        for copy in paths:
            copy.hardlink_to(path)
        people = people_of(paths, [[10, 10, 140, 190]] * count)
        tracemalloc.start()
        crops = pack_crops(people, tmp_path / "cache")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        written.append(crops.data.nbytes)
    assert peaks[1] - peaks[0] < 0.3 * (written[1] - written[0]), (peaks, written)
