"""Boxes, crops and OKS: all conversions between coordinate frames.

Pixel centres are at integers. Boxes have continuous corners, as in COCO. A crop is one 3×3 affine matrix from source
pixels to crop pixels:

    u = (x - centre_x + width/2) · W / width        (likewise in y)

where (width, height) is the padded box enlarged to the crop's aspect ratio. It is the map of the SimCC and
SimpleBaselines papers' code; its inverse maps decoded keypoints back exactly.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64Array = NDArray[np.float64]

# Ratio of a person's mask area to the box area, as in xtcocotools for data sets without masks.
AREA_OF_BOX = 0.53


def xywh_to_xyxy(boxes: ArrayLike) -> Float64Array:
    """(..., 4) x y width height → x1 y1 x2 y2."""
    boxes = np.asarray(boxes, np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def person_areas(boxes: ArrayLike) -> Float64Array:
    """Areas (...) for OKS, in square pixels, of people of whom only boxes (..., 4) xyxy are known."""
    boxes = np.asarray(boxes, np.float64)
    return np.asarray(AREA_OF_BOX * np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1))


def padded_size(boxes: ArrayLike, aspect: float, padding: float = 1.25) -> Float64Array:
    """Width and height (..., 2) of the boxes (xyxy) after padding, the short side enlarged to aspect = W/H.

    Sides shorter than one pixel count as one, so that a degenerate box still gives a crop.
    """
    boxes = np.asarray(boxes, np.float64)
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 1.0) * padding
    height = np.maximum(size[..., 1], size[..., 0] / aspect)
    return np.stack([height * aspect, height], axis=-1)


def crop_matrices(boxes: ArrayLike, size: tuple[int, int], padding: float = 1.25) -> Float64Array:
    """Matrices (N, 3, 3) from source pixels to crops of size (height, width), for boxes (N, 4) xyxy."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    height, width = size
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    padded = padded_size(boxes, width / height, padding)
    scale = np.array([width, height]) / padded
    matrices = np.zeros((len(boxes), 3, 3))
    matrices[:, 0, 0] = scale[:, 0]
    matrices[:, 1, 1] = scale[:, 1]
    matrices[:, :2, 2] = (padded / 2 - centre) * scale
    matrices[:, 2, 2] = 1
    return matrices


def transform(matrices: ArrayLike, points: ArrayLike) -> Float64Array:
    """Apply affine matrices (..., 3, 3) to points (..., K, 2)."""
    m = np.asarray(matrices, np.float64)
    return np.asarray(points, np.float64) @ np.swapaxes(m[..., :2, :2], -1, -2) + m[..., None, :2, 2]


def halvings(matrices: ArrayLike) -> NDArray[np.int64]:
    """How often (...) an image is halved before it is warped by a matrix (..., 3, 3): until less than half is left."""
    m = np.asarray(matrices, np.float64)
    determinants = m[..., 0, 0] * m[..., 1, 1] - m[..., 0, 1] * m[..., 1, 0]
    return np.maximum(0, -0.5 * np.log2(np.abs(determinants)) + 1e-9).astype(np.int64)


def seen_windows(
    matrices: ArrayLike, size: tuple[int, int], images: ArrayLike, margins: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first pixels (..., 2), x and y, and those after the last of the parts of images that crops show.

    matrices: (..., 3, 3) from source to crop pixels. size: (H, W) of the crops. images: their heights and widths
    (..., 2). margins: (...) in pixels of the image. Where a crop is outside of its image, the second is not above the
    first.
    """
    height, width = size
    corners = np.array([[-1, -1], [width, -1], [-1, height], [width, height]])
    seen = transform(np.linalg.inv(np.asarray(matrices, np.float64)), corners)
    margin = np.asarray(margins)[..., None]
    low = np.maximum(np.floor(seen.min(axis=-2)).astype(np.int64) - margin, 0)
    high = np.minimum(np.ceil(seen.max(axis=-2)).astype(np.int64) + 1 + margin, np.asarray(images)[..., ::-1])
    return low, high


def crop_to_source(sides: ArrayLike, matrices: ArrayLike, size: tuple[int, int]) -> Float64Array:
    """Boxes (N, 4) xyxy in source pixels from sides (N, 4) relative to crops of size (height, width).

    matrices: (N, 3, 3) from source to crop pixels.
    """
    height, width = size
    corners = np.asarray(sides, np.float64).reshape(-1, 2, 2) * [width, height]
    return transform(np.linalg.inv(np.asarray(matrices, np.float64)), corners).reshape(-1, 4)


def iou(a: ArrayLike, b: ArrayLike) -> Float64Array:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4), xyxy. Empty boxes overlap nothing."""
    a = np.asarray(a, np.float64).reshape(-1, 4)
    b = np.asarray(b, np.float64).reshape(-1, 4)
    sides = np.minimum(a[:, None, 2:], b[:, 2:])
    sides -= np.maximum(a[:, None, :2], b[:, :2])
    np.maximum(sides, 0.0, out=sides)
    size_a, size_b = np.maximum(a[:, 2:] - a[:, :2], 0.0), np.maximum(b[:, 2:] - b[:, :2], 0.0)
    overlap, area_a, area_b = sides[..., 0] * sides[..., 1], size_a[:, 0] * size_a[:, 1], size_b[:, 0] * size_b[:, 1]
    union = area_a[:, None] + area_b[None] - overlap
    result: Float64Array = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return result


def nms(boxes: ArrayLike, scores: ArrayLike, threshold: float) -> NDArray[np.int64]:
    """Non-maximum suppression: rows (M,) of the boxes that are kept, best first, as torchvision.ops.nms gives them.

    boxes: (N, 4) xyxy; scores: (N,); both in float32, which torchvision computes in. A box is dropped where its IoU
    with a better one that is kept is above the threshold.
    """
    boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
    order = np.argsort(-scores, kind="stable")
    low, high = boxes[order, :2], boxes[order, 2:]
    areas = (high[:, 0] - low[:, 0]) * (high[:, 1] - low[:, 1])
    alive, kept = np.ones(len(order), bool), []
    for row in range(len(order)):
        if not alive[row]:
            continue
        kept.append(row)
        rest = np.flatnonzero(alive[row + 1 :]) + row + 1
        sides = np.maximum(np.minimum(high[row], high[rest]) - np.maximum(low[row], low[rest]), np.float32(0))
        overlap = sides[:, 0] * sides[:, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = overlap / (areas[row] + areas[rest] - overlap)
        # The ratio is in float32, the threshold is not.
        alive[rest] = ~(ratio > np.float64(threshold))
    return np.asarray(order[np.array(kept, np.int64)], np.int64)


def oks(predicted: ArrayLike, truth: ArrayLike, visible: ArrayLike, area: ArrayLike, sigmas: ArrayLike) -> Float64Array:
    """Object keypoint similarity (...) of keypoints (..., K, 2), over those with visible (..., K) > 0.

    area (...) in square pixels; sigmas (K,). Lin et al., COCO keypoint evaluation: the mean of
    exp(-d² / (2 · area · (2σ)²)). Without a visible keypoint it is 0.
    """
    distance2 = np.sum((np.asarray(predicted, np.float64) - np.asarray(truth, np.float64)) ** 2, axis=-1)
    variance = (2 * np.asarray(sigmas, np.float64)) ** 2
    area = np.maximum(np.asarray(area, np.float64), np.spacing(1.0))
    similarity = np.exp(-distance2 / (2 * variance * area[..., None]))
    labelled = np.asarray(visible) > 0
    count = labelled.sum(axis=-1)
    return np.where(count > 0, (similarity * labelled).sum(axis=-1) / np.maximum(count, 1), 0.0)
