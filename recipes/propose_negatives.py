"""Negatives for training a person score: false positives of a detector.

    python recipes/propose_negatives.py --data SHARED --weights weights/person.safetensors --out runs/negatives

Writes one COCO file each for everyday photos, COCO and photos without people, for `posecli train --negatives`. A box is
used if at most OVERLAP of its area is inside of a person's box, labelled or uncertain. On photos with people only
scores below SURE are used: boxes with higher scores may be people without a label. Photos without people are also
searched in parts. Held-out photos (hold_out.is_held_out_of_detector) are left out.
"""

import json
from pathlib import Path
from typing import Any

import click
import hold_out
import numpy as np

from posecli.detect import Detector, load_detector
from posecli.geometry import xywh_to_xyxy
from posecli.media.images import decode_image
from posecli.types import Frame, PixelArray

OVERLAP = 0.25
SURE = 0.45
TABLES = (
    ("everyday/person_keypoints_everyday.json", "everyday/images"),
    ("coco/annotations/person_keypoints_train2017.json", "coco/train2017"),
    ("negatives/person_none.json", "negatives/images"),
)


def parts(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Top, left, height and width of an image's four quarters, enlarged by a third, and of its centre."""
    h, w = 2 * height // 3, 2 * width // 3
    corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w)]
    return [(y, x, h, w) for y, x in (*corners, ((height - h) // 2, (width - w) // 2))]


def share_on(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) the largest share of each box (N, 4) that is inside one of the others (M, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inside = np.prod(np.maximum(high - low, 0), axis=-1) / np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
    shares: np.ndarray = inside.max(axis=1, initial=0.0)
    return shares


def propose(pixels: PixelArray, detector: Detector, in_parts: bool) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) xyxy in a photo and their scores (N,), by descending score."""
    boxes, scores = [], []
    whole = (0, 0, *pixels.shape[:2])
    for y, x, height, width in [whole, *(parts(*pixels.shape[:2]) if in_parts else [])]:
        view = np.ascontiguousarray(pixels[y : y + height, x : x + width])
        found = detector([Frame(view)], [""])[0]
        boxes.append(found.boxes + np.array([x, y, x, y], np.float32))
        scores.append(found.scores)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return np.concatenate(boxes)[order], np.concatenate(scores)[order]


def read_table(document: dict[str, Any], folder: Path, stem: str, detector: Detector, most: int) -> dict[str, Any]:
    """The COCO document of one table's negatives: `most` per photo, four times as many on photos without people."""
    people: dict[int, list[list[float]]] = {}
    for annotation in document["annotations"]:
        people.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    without_people = stem == "person_none"
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in document["images"]:
        name = image["file_name"]
        if hold_out.is_held_out_of_detector(stem, name) or not image.get("persons_complete", True):
            continue
        pixels = decode_image((folder / name).read_bytes(), name, ignore_orientation=True)
        boxes, scores = propose(pixels, detector, without_people)
        true = xywh_to_xyxy(np.array(people.get(image["id"], []), float).reshape(-1, 4))
        wrong = (share_on(boxes, true) <= OVERLAP) & (without_people | (scores < SURE))
        chosen = np.flatnonzero(wrong)[: 4 * most if without_people else most]
        if len(chosen):
            images.append(image)
        for x0, y0, x1, y1 in boxes[chosen].tolist():
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append({"id": len(annotations) + 1, "image_id": image["id"], "category_id": 1, "bbox": box})
    return {"images": images, "annotations": annotations, "categories": document["categories"]}


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--weights", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--lowest", default=0.15, show_default=True, help="Lowest score of a box.")
@click.option("--most", default=4, show_default=True, help="Boxes per photo, four times as many without people.")
def main(data: Path, weights: Path, out: Path, lowest: float, most: int) -> None:
    """Write OUT/everyday.json, OUT/coco.json and OUT/no_people.json."""
    detector = load_detector("person", device="cpu", weights=weights, threshold=lowest)
    out.mkdir(parents=True, exist_ok=True)
    for (table, folder), name in zip(TABLES, ("everyday", "coco", "no_people"), strict=True):
        document = json.loads((data / table).read_bytes())
        found = read_table(document, data / folder, Path(table).stem, detector, most)
        (out / f"{name}.json").write_text(json.dumps(found))
        click.echo(f"{name}: {len(found['annotations'])} boxes on {len(found['images'])} photos")


if __name__ == "__main__":
    main()
