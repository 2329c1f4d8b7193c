"""A small data set with custom keypoints for a training example: drawings of kites in COCO's format.

    python examples/kites.py kites

writes kites/train/ and kites/val/ (images with one kite each), kites/train.json and kites/val.json. docs/training.md
trains on it.
"""

import json
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

# Keypoints of a kite of height 1 relative to its centre, x to the right, y down; left is the viewer's left.
SHAPE = {"top": (0.0, -0.5), "left_tip": (-0.32, -0.15), "right_tip": (0.32, -0.15), "tail": (0.0, 0.5)}
CATEGORY: dict[str, Any] = {
    "id": 1,
    "name": "kite",
    "keypoints": list(SHAPE),
    "skeleton": [[1, 2], [2, 4], [4, 3], [3, 1]],
    "sigmas": [0.08] * len(SHAPE),
    "flip_pairs": [["left_tip", "right_tip"]],
}
SIZE = 128


def draw_kite(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image (SIZE, SIZE, 3) and the keypoints (4, 2) of the kite on it, in pixels."""
    height, angle = random.uniform(60, 90), np.deg2rad(random.uniform(-30, 30))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.array(list(SHAPE.values())) @ rotation.T * height + random.uniform(56, 72, 2)
    image = np.full((SIZE, SIZE, 3), random.integers(150, 250, 3), np.uint8)
    image = image + random.integers(0, 5, image.shape, np.uint8)
    outline = np.rint(points[[0, 1, 3, 2]]).astype(np.int32)
    cv2.fillPoly(image, [outline], random.integers(0, 120, 3).tolist(), cv2.LINE_AA)
    for begin, end in ((0, 3), (1, 2)):
        first, last = np.rint(points[[begin, end]]).astype(int).tolist()
        cv2.line(image, first, last, (255, 255, 255), 2, cv2.LINE_AA)
    return np.asarray(image), points


def write_part(folder: Path, name: str, count: int, seed: int) -> None:
    """Write folder/name/ with count images, and folder/name.json."""
    random = np.random.default_rng(seed)
    (folder / name).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        image, points = draw_kite(random)
        file_name = f"{name}-{number:03d}.png"
        cv2.imwrite(str(folder / name / file_name), image)
        images.append({"id": number, "file_name": file_name, "width": SIZE, "height": SIZE})
        (left, upper), (width, height) = points.min(axis=0), np.ptp(points, axis=0)
        keypoints = [value for x, y in points.round(1).tolist() for value in (x, y, 2)]
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": np.round([left, upper, width, height], 1).tolist(),
                "area": round(0.5 * width * height, 1),
                "iscrowd": 0,
                "keypoints": keypoints,
                "num_keypoints": len(SHAPE),
            }
        )
    document = {"images": images, "annotations": annotations, "categories": [CATEGORY]}
    (folder / f"{name}.json").write_text(json.dumps(document))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--train", default=64, show_default=True, help="Images to train on.")
@click.option("--val", default=16, show_default=True, help="Images to evaluate on.")
def main(folder: Path, train: int, val: int) -> None:
    """Write the data set into FOLDER."""
    write_part(folder, "train", train, seed=0)
    write_part(folder, "val", val, seed=1)


if __name__ == "__main__":
    main()
