"""Split COCO annotations in two: one image in 20, by a hash of its name, is held out to choose settings by.

    python recipes/hold_out.py SHARED/everyday/person_keypoints_everyday.json runs/split

writes train.json and held.json into runs/split.
"""

import hashlib
import json
from pathlib import Path

import click

SHARE = 20


def is_held_out(file_name: str) -> bool:
    """Whether an image serves to choose settings."""
    return int(hashlib.sha256(file_name.encode()).hexdigest(), 16) % SHARE == 0


@click.command()
@click.argument("annotations", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
def main(annotations: Path, out: Path) -> None:
    """Write both parts."""
    document = json.loads(annotations.read_bytes())
    out.mkdir(parents=True, exist_ok=True)
    for name, wanted in (("train", False), ("held", True)):
        images = [image for image in document["images"] if is_held_out(image["file_name"]) is wanted]
        ids = {image["id"] for image in images}
        people = [a for a in document["annotations"] if a["image_id"] in ids]
        (out / f"{name}.json").write_text(json.dumps(document | {"images": images, "annotations": people}))
        click.echo(f"{name}: {len(images)} images, {len(people)} people")


if __name__ == "__main__":
    main()
