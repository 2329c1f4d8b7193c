"""Share of faces that --blur-faces covers completely, on images with labelled people.

python benchmarks/faces.py --ann val2017 --data DIR --out results/faces.md

A face counts if its nose, an eye and one more keypoint of the head are labelled visible, at least 8 pixels apart. It
is completely covered if all these are, and forehead and chin, too, which are extrapolated from eyes and nose.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson

from posecli.draw.faces import Area, FaceBlur
from posecli.evaluate.layout import find_annotations, find_images
from posecli.geometry import iou
from posecli.keypoints import COCO17
from posecli.media.images import read_image
from posecli.predict import load_predictor
from posecli.types import Frame


def covered(areas: Sequence[Area], points: np.ndarray) -> np.ndarray:
    """Which of the points (P, 2) lie in an area."""
    inside = np.zeros(len(points), bool)
    for area in areas:
        away = np.abs(points - [area.x, area.y]) / [area.half_width, area.half_height]
        inside |= (away**2).sum(axis=1) <= 1 if area.ellipse else (away <= 1).all(axis=1)
    return inside


def face_points(keypoints: Sequence[float]) -> np.ndarray | None:
    """Points (P, 2) of a labelled face, None where no face is visible."""
    head = np.reshape(keypoints, (17, 3))[:5]
    seen = head[:, 2] == 2
    points = head[seen, :2].astype(float)
    if not (seen[0] and seen[1:3].any() and seen.sum() >= 3) or np.hypot(*np.ptp(points, axis=0)) < 8:
        return None
    eyes = head[1:3][seen[1:3], :2].mean(axis=0)
    down = head[0, :2] - eyes
    return np.vstack([points, head[0, :2] + 1.3 * down, eyes - 1.2 * down])


@click.command()
@click.option("--ann", default="val2017")
@click.option("--data", type=click.Path(path_type=Path))
@click.option("--threshold", type=float, multiple=True, default=(0.4, 0.3, 0.2, 0.1), help="Of the detector.")
@click.option("--out", type=click.Path(path_type=Path))
def main(ann: str, data: Path | None, threshold: tuple[float, ...], out: Path | None) -> None:
    """Print a row per threshold of the detector."""
    path = find_annotations(ann, data)
    images = find_images(path, ann, data)
    truth = orjson.loads(path.read_bytes())
    people: dict[int, list[dict[str, Any]]] = {}
    for person in truth["annotations"]:
        if not person.get("iscrowd"):
            people.setdefault(person["image_id"], []).append(person)
    lines = [
        "| detector's threshold | faces | wholly covered | person found | of these wholly covered | picture covered |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for lowest in threshold:
        predictor = load_predictor(detector_threshold=lowest, precision="fp32")
        faces = whole = found = found_whole = 0
        shares = []
        for image in truth["images"]:
            frame = Frame(read_image(images / image["file_name"]))
            poses = predictor.predict([frame], [image["file_name"]])[0]
            areas = FaceBlur(COCO17, 0.3).update(poses, 0.0)
            grid = np.random.default_rng(0).uniform(0, [frame.width, frame.height], (2000, 2))
            shares.append(covered(areas, grid).mean())
            for person in people.get(image["id"], []):
                points = face_points(person["keypoints"])
                if points is None:
                    continue
                points = points.clip(0, [frame.width - 1, frame.height - 1])
                hidden = bool(covered(areas, points).all())
                box = np.array(person["bbox"])
                box[2:] += box[:2]
                met = len(poses) > 0 and iou(box[None], poses.boxes.astype(float)).max() >= 0.5
                faces, whole, found = faces + 1, whole + hidden, found + met
                found_whole += met and hidden
        row = f"| {lowest} | {faces} | {whole} ({whole / faces:.1%}) | {found} | "
        lines.append(row + f"{found_whole} ({found_whole / found:.1%}) | {np.mean(shares):.1%} |")
        click.echo(lines[-1], err=True)
    command = f"python benchmarks/faces.py --ann {ann}"
    text = "# Faces covered by --blur-faces\n\n    " + command + "\n\n" + "\n".join(lines) + "\n"
    click.echo(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
