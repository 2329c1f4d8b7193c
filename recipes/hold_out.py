"""Split COCO annotations: one image in 20 (--share), by a hash of its name, is held out for choosing settings.

    python recipes/hold_out.py SHARED/everyday/person_keypoints_everyday.json runs/split

writes train.json and held.json into runs/split. With --images FOLDER also small.json and small/: the held-out photos at
--shrink of their size, with small people.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

SHARE = 20
# Shares of the detector's data sets.
DETECTOR_SHARES = {"person_keypoints_everyday": SHARE, "person_keypoints_street": SHARE, "person_none": 5}


def is_held_out(file_name: str, share: int = SHARE) -> bool:
    """Whether an image is held out: one in share."""
    return int(hashlib.sha256(file_name.encode()).hexdigest(), 16) % share == 0


def is_held_out_of_detector(table: str, file_name: str) -> bool:
    """Whether an image is held out of the detector's training. table: name of its annotation file without suffix."""
    return table in DETECTOR_SHARES and is_held_out(file_name, DETECTOR_SHARES[table])


@click.command()
@click.argument("annotations", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--share", default=SHARE, show_default=True, help="One image in this many is held out.")
@click.option("--images", type=click.Path(path_type=Path, exists=True), help="Folder of the images.")
@click.option("--shrink", default=0.4, show_default=True)
def main(annotations: Path, out: Path, share: int, images: Path | None, shrink: float) -> None:
    """Write both parts."""
    document = json.loads(annotations.read_bytes())
    out.mkdir(parents=True, exist_ok=True)
    for name, wanted in (("train", False), ("held", True)):
        chosen = [image for image in document["images"] if is_held_out(image["file_name"], share) is wanted]
        ids = {image["id"] for image in chosen}
        people = [a for a in document["annotations"] if a["image_id"] in ids]
        part = document | {"images": chosen, "annotations": people}
        (out / f"{name}.json").write_text(json.dumps(part))
        click.echo(f"{name}: {len(chosen)} images, {len(people)} people")
    if images is not None:
        (out / "small.json").write_text(json.dumps(shrink_part(part, images, out / "small", shrink)))


def shrink_part(part: dict[str, Any], images: Path, out: Path, factor: float) -> dict[str, Any]:
    """The part's images written to out at factor times their size, and its labels for them."""
    small_images = []
    for image in part["images"]:
        pixels = cv2.imdecode(np.fromfile(images / image["file_name"], np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise click.ClickException(f"{images / image['file_name']} is not an image")
        size = (round(image["width"] * factor), round(image["height"] * factor))
        target = (out / image["file_name"]).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imencode(".png", cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))[1].tofile(target)
        name = str(target.relative_to(out))
        small_images.append(image | {"file_name": name, "width": size[0], "height": size[1]})
    people = []
    for person in part["annotations"]:
        keypoints = np.reshape(person["keypoints"], (-1, 3)) * [factor, factor, 1]
        scaled = {"bbox": [value * factor for value in person["bbox"]], "area": person["area"] * factor**2}
        people.append(person | scaled | {"keypoints": keypoints.ravel().tolist()})
    return part | {"images": small_images, "annotations": people}


if __name__ == "__main__":
    main()
