"""Overfit a few people from random weights: a test of the training code.

Takes the first PEOPLE people of SHARED/coco's train2017 whose labelled keypoints are all inside their crop (keypoints
outside cannot be predicted), trains on them from random weights, and evaluates on the same people. There is no
rotation, flip or truncation, but small changes of scale, position, colour and sharpness: a network trained on identical
pixels fails on the crops of inference, which are resampled once instead of twice. Options after `--` are passed to
`posecli train`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from posecli.geometry import crop_matrices, transform, xywh_to_xyxy

SIZE = (128, 96)

TRAIN = (
    *("--backbone", "mobilenet_v2", "--deconv", "128", "--sigma", "3", "--stages", "128x96:12000"),
    *("--batch-size", "16", "--weight-decay", "0", "--constant-fraction", "0.5", "--evaluate-every", "3000"),
    *("--scale", "0.05", "--shift", "0.02", "--colour", "0.05", "--blur-p", "0.2", "--weak-share", "0"),
    *(word for name in ("flip", "rotation", "half-body", "dropout", "cut") for word in (f"--{name}-p", "0")),
)


def first_people(document: dict[str, Any], count: int) -> dict[str, Any]:
    """A COCO dataset of the first people that can be learned, and their images."""
    people = [a for a in document["annotations"] if not a["iscrowd"] and a["num_keypoints"] > 0 and lies_in_crop(a)]
    images = {a["image_id"] for a in people[:count]}
    listed = [image for image in document["images"] if image["id"] in images]
    return {**document, "annotations": people[:count], "images": listed}


def lies_in_crop(annotation: dict[str, Any]) -> bool:
    """Whether all labelled keypoints are inside the crop of inference."""
    labels = np.array(annotation["keypoints"], np.float64).reshape(-1, 3)
    matrix = crop_matrices(xywh_to_xyxy(np.array([annotation["bbox"]], np.float64)), SIZE, 1.25)[0]
    points = transform(matrix, labels[labels[:, 2] > 0, :2])
    return bool(((points >= 0) & (points <= (SIZE[1] - 1, SIZE[0] - 1))).all())


@click.command()
@click.argument("shared", type=click.Path(path_type=Path, exists=True))
@click.option("--people", default=32, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/overfit"), show_default=True)
@click.argument("more", nargs=-1)
def main(shared: Path, people: int, out: Path, more: tuple[str, ...]) -> None:
    document = json.loads((shared / "coco/annotations/person_keypoints_train2017.json").read_bytes())
    out.mkdir(parents=True, exist_ok=True)
    chosen = out / "people.json"
    chosen.write_text(json.dumps(first_people(document, people)))
    images = shared / "coco/train2017"
    posecli = [sys.executable, "-m", "posecli"]
    same = ("--allow-overlap", "--ann", chosen, "--images", images)
    validation = ("--val-ann", chosen, "--val-images", images)
    train = [*posecli, "train", "--runs", out.parent, "--name", out.name, *same, *validation, *TRAIN, *more]
    subprocess.run(list(map(str, train)), check=True)
    evaluate = [*posecli, "eval", out / "last.safetensors", *same, "--out", out / "eval"]
    subprocess.run(list(map(str, evaluate)), check=True)


if __name__ == "__main__":
    main()
