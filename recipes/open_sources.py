"""Filter COCO keypoints by the source of the images: python recipes/open_sources.py IN OUT --without econ,icon

An image's source is the part of its "source" before the first slash.
"""

import json
from pathlib import Path

import click

# Sources of the everyday photos whose terms forbid commercial use.
NON_COMMERCIAL = "bsds500,econ,icon,multi_hmr,alphapose"


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--without", default=NON_COMMERCIAL, show_default=True)
def main(source: Path, out: Path, without: str) -> None:
    """Write OUT and print the numbers of remaining images and annotations."""
    document = json.loads(source.read_bytes())
    left_out = set(without.split(","))
    images = [i for i in document["images"] if str(i.get("source", "")).partition("/")[0] not in left_out]
    kept = {image["id"] for image in images}
    annotations = [a for a in document["annotations"] if a["image_id"] in kept]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**document, "images": images, "annotations": annotations}))
    click.echo(f"{len(images)} of {len(document['images'])} images, {len(annotations)} annotations", err=True)


if __name__ == "__main__":
    main()
