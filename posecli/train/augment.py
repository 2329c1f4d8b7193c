"""Augmentation of crops: one 3×3 matrix and one warp for each sample."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from posecli import geometry
from posecli.keypoints import KeypointSet
from posecli.pose.crops import warp
from posecli.train.proposals import disturbed_box, sides_in_crop

Float = NDArray[np.float64]
# A part of an image: top, bottom, left, right, the latter of each pair exclusive.
Part = tuple[int, int, int, int]


@dataclass(frozen=True)
class Augmentation:
    """Parameters of the augmentation; with all zeros a sample is the crop of inference.

    flip_p: probability of a horizontal flip. scale: the box is scaled by a factor from [1 - scale, 1 + scale].
    rotation: largest angle in degrees to either side, with probability rotation_p. shift: of the box's centre, relative
    to its padded side. half_body_p: probability of a crop of the upper or lower body, for people with 9 or more
    keypoints. truncation_p: probability that a part of the person is hidden by the image's border or an occluder: black
    or another image there, and no keypoints. colour: strength of changes in brightness, contrast and saturation.
    blur_p, erasing_p: probabilities of a Gaussian blur and of a random rectangle of one colour. downscale_p:
    probability of a reduced resolution. proposal_p: probability of a simulated proposal's crop (see
    proposals.disturbed_box).
    """

    flip_p: float = 0.5
    scale: float = 0.4
    rotation: float = 60.0
    rotation_p: float = 0.6
    shift: float = 0.1
    half_body_p: float = 0.2
    colour: float = 0.3
    blur_p: float = 0.1
    erasing_p: float = 0.3
    truncation_p: float = 0.2
    downscale_p: float = 0.2
    proposal_p: float = 0.0


NONE = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
WEAK = Augmentation(
    scale=0.2,
    rotation=30,
    rotation_p=0.4,
    shift=0.05,
    half_body_p=0.1,
    colour=0.15,
    blur_p=0,
    erasing_p=0,
    truncation_p=0.3,
)


class AugmentedSample(NamedTuple):
    """One training sample.

    crop: (height, width, 3) uint8 RGB. keypoints: (K, 2) in its pixels. weights: (K,), 0 for keypoints outside the
    crop. sides (4,), sides_weight: the person's box in the crop, as proposals.sides_in_crop gives them.
    """

    crop: NDArray[np.uint8]
    keypoints: Float
    weights: Float
    sides: Float
    sides_weight: float


class PixelChanges(NamedTuple):
    """Changes of a crop's pixels, in this order; None for none.

    colour: (3, 4), an affine map of RGB. downscale: factor of a lower resolution. blur: σ in pixels. erased: top, left,
    height and width of a rectangle, with its colour erased_colour (3,).
    """

    colour: Float | None = None
    downscale: float | None = None
    blur: float | None = None
    erased: tuple[int, int, int, int] | None = None
    erased_colour: tuple[int, int, int] = (0, 0, 0)


class Plan(NamedTuple):
    """What is done to an image and its labels for one sample; it does not depend on the pixels.

    matrix: (3, 3) from the image to the crop. hidden: parts of the image, top, bottom, left, right, that are hidden by
    black, or by the image that beyond names. changes: of the crop. The rest: see AugmentedSample.
    """

    matrix: Float
    hidden: tuple[Part, ...]
    beyond: Any
    changes: PixelChanges
    keypoints: Float
    weights: Float
    sides: Float
    sides_weight: float


def augment_sample(
    pixels: NDArray[np.uint8],
    box: Float,
    keypoints: Float,
    weights: Float,
    keypoint_set: KeypointSet,
    size: tuple[int, int],
    augmentation: Augmentation,
    random: np.random.Generator,
    padding: float = 1.25,
    other: Callable[[], NDArray[np.uint8]] | None = None,
) -> AugmentedSample:
    """A person in an augmented crop.

    pixels: (h, w, 3) uint8 RGB; box (4,) xyxy, keypoints (K, 2) and weights (K,) in them. size: (height, width) of the
    crop. other: gives another image, to hide a part of the person.
    """
    shape = pixels.shape[:2]
    plan = plan_sample(shape, box, keypoints, weights, keypoint_set, size, augmentation, random, padding, other)
    crop = crop_of(plan, pixels, plan.beyond, size)
    return AugmentedSample(crop, plan.keypoints, plan.weights, plan.sides, plan.sides_weight)


def crop_of(
    plan: Plan, pixels: NDArray[np.uint8], beyond: NDArray[np.uint8] | None, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The crop (H, W, 3) of a plan for an image; beyond: the image that hides parts of it, None for black."""
    for part in plan.hidden:
        pixels = hide(pixels, part, beyond)
    crop = np.empty((*size, 3), np.uint8)
    warp(pixels, plan.matrix, crop)
    return apply_changes(crop, plan.changes)


def plan_sample(
    shape: tuple[int, int],
    box: Float,
    keypoints: Float,
    weights: Float,
    keypoint_set: KeypointSet,
    size: tuple[int, int],
    augmentation: Augmentation,
    random: np.random.Generator,
    padding: float = 1.25,
    other: Callable[[], Any] | None = None,
) -> Plan:
    """The plan of a sample, with all of its random numbers. shape: (h, w) of the image. The rest: see augment_sample.

    other: gives Plan.beyond.
    """
    height, width = size
    hidden: list[Part] = []
    beyond = None
    if random.random() < augmentation.truncation_p:
        beyond = other() if other is not None and random.random() < 0.5 else None
        for _ in range(1 + int(random.random() < 0.3)):
            part, box, weights = hidden_part(shape, box, keypoints, weights, random)
            hidden += [part] if part is not None else []
        person = box
    else:
        person = box
        if random.random() < augmentation.half_body_p:
            box = half_body_box(box, keypoints, weights, keypoint_set, random)
    # No random number is used where the probability is 0, so that samples of older runs do not change.
    if augmentation.proposal_p and random.random() < augmentation.proposal_p:
        box = disturbed_box(person, random)
    matrix = crop_matrix(box, size, augmentation, random, padding)
    # The random number is used in any case, so that the following ones do not depend on it.
    if random.random() < augmentation.flip_p and keypoint_set.mirrors:
        mirror = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])
        matrix = mirror @ matrix
        order = list(keypoint_set.flip_indices)
        keypoints, weights = keypoints[order], weights[order]
    points = geometry.transform(matrix, keypoints)
    inside = ((points >= -0.5) & (points <= np.array([width, height]) - 0.5)).all(axis=-1)
    sides, sides_weight = sides_in_crop(person, matrix, size)
    changes = draw_changes(size, augmentation, random)
    return Plan(matrix, tuple(hidden), beyond, changes, points, weights * inside, sides, sides_weight)


def crop_matrix(
    box: Float, size: tuple[int, int], augmentation: Augmentation, random: np.random.Generator, padding: float
) -> Float:
    """The crop's matrix composed with random scale, shift and rotation about its centre."""
    height, width = size
    matrix = geometry.crop_matrices(box, size, padding)[0]
    factor = 1 / random.uniform(1 - augmentation.scale, 1 + augmentation.scale)
    shift = random.uniform(-augmentation.shift, augmentation.shift, 2) * (width, height)
    turned = random.random() < augmentation.rotation_p
    # A truncated normal distribution as in SimpleBaselines and MMPose: large angles are rare.
    angle = np.clip(random.normal(0, augmentation.rotation / 2), -augmentation.rotation, augmentation.rotation)
    radians = np.deg2rad(angle) if turned else 0.0
    cos, sin = factor * np.cos(radians), factor * np.sin(radians)
    centre = np.array([width / 2, height / 2])
    about_centre = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    about_centre[:2, 2] = centre + shift - about_centre[:2, :2] @ centre
    return np.asarray(about_centre @ matrix, np.float64)


# Probabilities that the person is cut off below, left, right and above: in photos feet are cut off most.
_TRUNCATED_SIDES = (0.6, 0.15, 0.15, 0.1)


def truncate(
    pixels: NDArray[np.uint8],
    box: Float,
    keypoints: Float,
    weights: Float,
    random: np.random.Generator,
    beyond: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], Float, Float]:
    """The person truncated by a horizontal or vertical line: (pixels, the box up to the line, weights).

    beyond: the image on the other side of the line, black by default. Unchanged where fewer than 2 labelled keypoints
    would be left.
    """
    part, box, weights = hidden_part(pixels.shape[:2], box, keypoints, weights, random)
    return (pixels if part is None else hide(pixels, part, beyond)), box, weights


def hidden_part(
    shape: tuple[int, int], box: Float, keypoints: Float, weights: Float, random: np.random.Generator
) -> tuple[Part | None, Float, Float]:
    """The part of an image (h, w) beyond a random line through the person: (part, the box up to the line, weights).

    None, with box and weights as they are, where fewer than 2 labelled keypoints would be left.
    """
    side = int(random.choice(4, p=_TRUNCATED_SIDES))
    share = random.uniform(0.15, 0.85)
    axis = 1 if side in (0, 3) else 0
    low, high = box[axis], box[axis + 2]
    # On sides 0 and 2 (below, right) the part after the line is hidden, on the others the part before it.
    after = side in (0, 2)
    border = low + share * (high - low) if after else high - share * (high - low)
    inside = keypoints[:, axis] < border if after else keypoints[:, axis] > border
    if np.count_nonzero((weights > 0) & inside) < 2:
        return None, box, weights
    box, length = box.copy(), shape[1 - axis]
    place = int(np.clip(round(border), 0, length))
    box[axis + 2 if after else axis] = border
    first, end = (place, length) if after else (0, place)
    part = (first, end, 0, shape[1]) if axis == 1 else (0, shape[0], first, end)
    return part, box, weights * inside


def hide(pixels: NDArray[np.uint8], part: Part, beyond: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """A copy of an image with a part hidden by another image, or by black."""
    pixels = pixels.copy()
    top, bottom, left, right = part
    region = pixels[top:bottom, left:right]
    if beyond is None or not region.size:
        region[:] = 0
    else:
        region[:] = cv2.resize(beyond, region.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return pixels


def half_body_box(
    box: Float, keypoints: Float, weights: Float, keypoint_set: KeypointSet, random: np.random.Generator
) -> Float:
    """The box of the upper or lower body's keypoints where enough are labelled, else the given box."""
    labelled = weights > 0
    if labelled.sum() < 9:
        return box
    lower = np.array([any(w in name for w in ("hip", "knee", "ankle")) for name in keypoint_set.names])
    chosen = labelled & (lower if random.random() < 0.3 else ~lower)
    if chosen.sum() < 4:
        return box
    low, high = keypoints[chosen].min(axis=0), keypoints[chosen].max(axis=0)
    centre, half = (low + high) / 2, np.maximum(high - low, 1) / 2 * 1.2
    return np.concatenate([centre - half, centre + half])


def change_pixels(
    crop: NDArray[np.uint8], augmentation: Augmentation, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Colour, downscaling, blur and erasing."""
    return apply_changes(crop, draw_changes((crop.shape[0], crop.shape[1]), augmentation, random))


def draw_changes(size: tuple[int, int], augmentation: Augmentation, random: np.random.Generator) -> PixelChanges:
    """Random changes of a crop (height, width)."""
    height, width = size
    colour = _colour_map(augmentation.colour, random) if augmentation.colour else None
    downscale = random.uniform(0.15, 0.6) if random.random() < augmentation.downscale_p else None
    blur = random.uniform(0.5, 1.5) if random.random() < augmentation.blur_p else None
    if random.random() >= augmentation.erasing_p:
        return PixelChanges(colour, downscale, blur)
    h, w = (int(side) for side in random.uniform(0.1, 0.35, 2) * (height, width))
    top, left = int(random.integers(0, height - h)), int(random.integers(0, width - w))
    red, green, blue = random.integers(0, 256, 3).tolist()
    return PixelChanges(colour, downscale, blur, (top, left, h, w), (red, green, blue))


def apply_changes(crop: NDArray[np.uint8], changes: PixelChanges) -> NDArray[np.uint8]:
    """The changed crop; its memory may be used."""
    if changes.colour is not None:
        crop = np.asarray(cv2.transform(crop, changes.colour), np.uint8)
    if changes.downscale is not None:
        crop = _downscale(crop, changes.downscale)
    if changes.blur is not None:
        crop = np.asarray(cv2.GaussianBlur(crop, (0, 0), changes.blur), np.uint8)
    if changes.erased is not None:
        top, left, h, w = changes.erased
        crop[top : top + h, left : left + w] = changes.erased_colour
    return crop


def _colour_map(strength: float, random: np.random.Generator) -> Float:
    """Brightness, contrast, saturation and channel gains as one affine map (3, 4) of RGB."""
    brightness, contrast, saturation = 1 + random.uniform(-strength, strength, 3)
    gains = 1 + random.uniform(-strength, strength, 3) * 0.3
    luma = np.array([0.299, 0.587, 0.114])
    mix = saturation * np.eye(3) + (1 - saturation) * np.ones((3, 1)) * luma
    mix = contrast * brightness * gains[:, None] * mix
    offset = np.full(3, (1 - contrast) * 116.0)
    return np.hstack([mix, offset[:, None]])


def downscaled_size(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """(height, width) of a crop at a lower resolution."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _downscale(crop: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """The crop downsampled by a factor and upsampled again."""
    height, width = crop.shape[:2]
    few = cv2.resize(crop, downscaled_size((height, width), factor)[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
