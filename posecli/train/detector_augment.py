"""Augmentation for detector training: random scale, crop and flip, and mosaics of four photos."""

import cv2
import numpy as np
from numpy.typing import NDArray

from posecli.train.augment import Augmentation, change_pixels
from posecli.train.detector_data import NO_LABELS, Boxes, Labels, Photo

COLOUR = Augmentation(flip_p=0.5, colour=0.3, blur_p=0.05, erasing_p=0, downscale_p=0)
GREY = 114
# A box is ignored where a smaller share of it is visible, or its shorter side has fewer pixels.
_SEEN, _SMALLEST = 0.35, 4
# Probability that a part of a mosaic is a crop without people.
_EMPTY_P = 0.3

Image = NDArray[np.uint8]
Size = tuple[int, int]


def augmented_image(
    photos: list[Photo], index: int, size: Size, mosaic_p: float, seed: list[int]
) -> tuple[Image, Labels]:
    """The augmented training image (height, width, 3) uint8 RGB of photo number index, and its labels.

    The photo alone, or with probability mosaic_p as the upper left one of four around a random point. seed: the result
    is a function of it.
    """
    random = np.random.default_rng(seed)
    if random.random() >= mosaic_p:
        return place_photo(photos[index], size, (0.6, 1.7), random)
    height, width = size
    cy, cx = (random.uniform(0.3, 0.7, 2) * size).astype(int)
    canvas = np.full((height, width, 3), GREY, np.uint8)
    parts = []
    corners = [(0, 0, cy, cx), (0, cx, cy, width), (cy, 0, height, cx), (cy, cx, height, width)]
    for k, (y0, x0, y1, x1) in enumerate(corners):
        photo = photos[index] if k == 0 else photos[int(random.integers(len(photos)))]
        part = (y1 - y0, x1 - x0)
        empty = part_without_people(photo, part, random) if k and random.random() < _EMPTY_P else None
        canvas[y0:y1, x0:x1], labels = empty or place_photo(photo, part, (0.9, 2.2), random)
        shift = np.array([x0, y0, x0, y0], np.float32)
        parts.append(Labels(labels.boxes + shift, labels.weights, labels.ignored + shift))
    return canvas, Labels(
        np.concatenate([p.boxes for p in parts]),
        np.concatenate([p.weights for p in parts]),
        np.concatenate([p.ignored for p in parts]),
    )


def place_photo(
    photo: Photo, size: Size, scales: tuple[float, float], random: np.random.Generator
) -> tuple[Image, Labels]:
    """A photo, randomly scaled, shifted and flipped, on a grey canvas (height, width), and its labels there.

    scales: range of the photo's size relative to the largest that fits.
    """
    height, width = size
    pixels = photo.pixels()
    matrix = _placement((pixels.shape[0], pixels.shape[1]), size, scales, random)
    shrunk = matrix
    if max(matrix[0, 0], matrix[1, 1], -matrix[0, 0]) < 0.5:
        # Halved by averaging first, against aliasing in warpAffine.
        pixels = np.asarray(cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
        shrunk = matrix @ np.diag([2.0, 2.0, 1.0])
    canvas = cv2.warpAffine(pixels, shrunk, (width, height), flags=cv2.INTER_LINEAR, borderValue=(GREY, GREY, GREY))
    image = change_pixels(np.asarray(canvas, np.uint8), COLOUR, random)
    return image, _transform_labels(photo.labels, matrix, size)


def _placement(
    photo: Size, size: Size, scales: tuple[float, float], random: np.random.Generator
) -> NDArray[np.float64]:
    """A random (2, 3) matrix from a photo's pixels to the canvas: scale, aspect ratio, shift and flip."""
    height, width = size
    fit = min(width / photo[1], height / photo[0])
    scale = fit * np.exp(random.uniform(*np.log(scales)))
    stretch = np.exp(random.uniform(-0.1, 0.1))
    sx, sy = scale * stretch, scale / stretch
    margin = np.array([width - photo[1] * sx, height - photo[0] * sy])
    dx, dy = random.uniform(np.minimum(margin, 0), np.maximum(margin, 0) + 1e-3)
    matrix = np.array([[sx, 0, dx], [0, sy, dy]])
    if random.random() < 0.5:
        matrix = np.array([[-1.0, 0, width - 1], [0, 1, 0]]) @ np.vstack([matrix, [0, 0, 1]])
    return matrix


def _transform_labels(labels: Labels, matrix: NDArray[np.float64], size: Size) -> Labels:
    """Labels on the canvas; boxes of which too little is visible are ignored."""

    def move(boxes: Boxes) -> Boxes:
        corners = boxes.reshape(-1, 2, 2) @ matrix[:, :2].T + matrix[:, 2]
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)

    boxes, ignored = move(labels.boxes), move(labels.ignored)
    limit = np.array([size[1], size[0]] * 2, np.float32)
    cut = np.clip(boxes, 0, limit)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    seen = np.prod(cut[:, 2:] - cut[:, :2], axis=1) / np.maximum(area, 1e-6)
    large = np.minimum(cut[:, 2] - cut[:, 0], cut[:, 3] - cut[:, 1]) >= _SMALLEST
    keep = (seen > _SEEN) & large
    rest = cut[~keep & (seen > 0.02)]
    return Labels(cut[keep], labels.weights[keep], np.concatenate([np.clip(ignored, 0, limit), rest]))


def part_without_people(photo: Photo, size: Size, random: np.random.Generator) -> tuple[Image, Labels] | None:
    """A random part of a photo without people, resized to (height, width); None after eight tries without one."""
    pixels = photo.pixels()
    taken = np.concatenate([photo.labels.boxes, photo.labels.ignored])
    shape = np.array(pixels.shape[1::-1])
    for _ in range(8):
        side = random.uniform(0.25, 0.7) * shape
        low = random.uniform(0, shape - side)
        high = low + side
        if not ((taken[:, :2] < high) & (taken[:, 2:] > low)).all(axis=1).any():
            (x0, y0), (x1, y1) = low.astype(int), high.astype(int)
            part = cv2.resize(pixels[y0:y1, x0:x1], size[::-1], interpolation=cv2.INTER_AREA)
            part = part[:, ::-1] if random.random() < 0.5 else part
            return change_pixels(np.ascontiguousarray(part, np.uint8), COLOUR, random), NO_LABELS
    return None
