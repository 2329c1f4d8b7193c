"""Images on a torch device against OpenCV's: upload, crops, letterbox, resizing."""

import cv2
import numpy as np
import pytest
import torch

from posecli import geometry
from posecli.detect import embedded
from posecli.detect.resident import letterbox_places
from posecli.device.images import ImageStore, upload
from posecli.device.resizing import blur_matrices, product, resize
from posecli.device.sampling import sample_crops
from posecli.pose.crops import cut_crops, warp
from posecli.types import Frame
from tests.media_factory import picture

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
RANDOM = np.random.default_rng(5)
# Upright people of all sizes, people beyond the borders, one that is nowhere in the picture.
BOXES = np.array(
    [[10, 20, 60, 110], [5, 5, 395, 290], [-40, -70, 90, 180], [330, 200, 460, 380], [100, 50, 101, 51],
     [900, 900, 990, 990]], np.float32,
)  # fmt: skip


def noise(height: int, width: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (height, width, 3), np.uint8)


def furthest(first: np.ndarray, second: torch.Tensor) -> int:
    return int(np.abs(first.astype(int) - second.cpu().numpy().astype(int)).max())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(64, 48), (32, 24), (16, 12)])
def test_crops_are_opencvs_within_a_level(device: str, size: tuple[int, int]) -> None:
    images = [noise(300, 400), picture(400, 300), noise(35, 31), noise(1000, 700)]
    boxes = [BOXES, BOXES[::-1].copy(), BOXES[:1], BOXES[:3] * 2.5]
    expected, matrices = cut_crops(images, boxes, size, 1.25)
    owners = [place for place, own in zip(upload(images, torch.device(device)), boxes, strict=True) for _ in own]
    found = sample_crops(owners, matrices, size)
    assert found.dtype == torch.uint8 and furthest(expected, found) <= 1
    halved = set(geometry.halvings(matrices).tolist())
    assert len(halved) > 3 and found[0].float().std() > 10
    # One by one, and from uploads of their own: the same bytes.
    for row in range(len(owners)):
        assert torch.equal(sample_crops(owners[row : row + 1], matrices[row : row + 1], size)[0], found[row])
    alone = upload([images[1]], torch.device(device))[0]
    both = sample_crops([owners[0], alone], matrices[[0, 8]], size)
    assert torch.equal(both[1], found[8])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("angle", [0.0, 33.0])
@pytest.mark.parametrize("scale", [0.6, 1.0, 2.1, 4.6, 9.0])
def test_turned_and_mirrored_crops_are_opencvs_within_a_level(device: str, angle: float, scale: float) -> None:
    image = noise(311, 423)
    cos, sin = np.cos(np.deg2rad(angle)) / scale, np.sin(np.deg2rad(angle)) / scale
    turn = np.array([[-cos, sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    turn[:2, 2] = (20, 34) - turn[:2, :2] @ np.array([190.3, 170.6])
    crop = np.empty((64, 48, 3), np.uint8)
    warp(image, turn, crop)
    assert furthest(crop, sample_crops(upload([image], torch.device(device)), turn[None], (64, 48))[0]) <= 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_crop_far_inside_a_large_picture_keeps_its_place(device: str) -> None:
    """float32 has steps of a 1/512 pixel at 20000: coordinates are relative to the crop."""
    image = np.zeros((40, 30000, 3), np.uint8)
    image[:, 29000:29400] = noise(40, 400)
    box = np.array([[29050.3, 2, 29081.7, 37]], np.float32)
    expected, matrices = cut_crops([image], [box], (64, 48), 1.25)
    assert furthest(expected, sample_crops(upload([image], torch.device(device)), matrices, (64, 48))) <= 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("height", "width"), [(480, 640), (300, 200), (1003, 901), (64, 48), (2111, 250), (9, 11)])
def test_letterboxes_are_opencvs_within_a_level(device: str, height: int, width: int) -> None:
    image, canvas = noise(height, width), (192, 128)
    expected, scales = embedded.letterbox([image, picture()], canvas)
    found, same = letterbox_places(upload([image, picture()], torch.device(device)), canvas)
    assert furthest(expected, found) <= 1 and scales == same


def test_resizing_is_opencvs_within_a_level() -> None:
    image = noise(90, 70)
    for size, kind, method in (
        ((31, 70), "area", cv2.INTER_AREA),
        ((45, 35), "area", cv2.INTER_AREA),
        ((131, 90), "linear", cv2.INTER_LINEAR),
        ((40, 200), "linear", cv2.INTER_LINEAR),
    ):
        expected = cv2.resize(image, size[::-1], interpolation=method)
        assert furthest(expected, resize(torch.from_numpy(image), size, kind)) <= 1
    sigmas = torch.tensor([0.5, 0.9, 1.2, 1.5])
    pixels = torch.from_numpy(image).float().expand(4, -1, -1, -1)
    blurred = product(pixels, blur_matrices(90, sigmas), blur_matrices(70, sigmas)).round()
    for sigma, found in zip(sigmas.tolist(), blurred, strict=True):
        assert furthest(cv2.GaussianBlur(image, (0, 0), sigma), found) <= 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_frame_is_uploaded_once_and_goes_with_it(device: str) -> None:
    store = ImageStore(torch.device(device))
    frames = [Frame(picture(50 + i, 40)) for i in range(3)]
    first = store.places(frames[:2])
    again = store.places([frames[2], frames[0]])
    assert again[1].buffer is first[0].buffer is first[1].buffer
    for frame, place in zip(frames, (*first, again[0]), strict=True):
        np.testing.assert_array_equal(place.pixels.cpu().numpy(), frame.pixels)
    part = first[1].part(5, 7, 25, 40)
    np.testing.assert_array_equal(part.pixels.cpu().numpy(), frames[1].pixels[7:40, 5:25])
    del frames, frame
    assert not store._places
