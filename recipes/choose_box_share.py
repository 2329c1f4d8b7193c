"""Choose the share of the box head's box in a refined box (pose.verification.BOX_HEAD_SHARE) by box AP.

    python recipes/choose_box_share.py --data SHARED

prints a Markdown table: person box AP, AP50 and AP75 of the verified people on coco/train2017_more, whose boxes are by
people and on which nothing trains. Not all people there are labelled, so that only differences tell something.
"""

import contextlib
import io
from pathlib import Path

import click
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posecli.media.images import decode_image
from posecli.pose import verification
from posecli.pose.estimator import Estimate
from posecli.predict import Predictor, load_predictor
from posecli.types import Frame

SHARES = (0.0, 0.25, 0.5, 0.67, 0.75, 1.0)


def estimate(predictor: Predictor, frame: Frame) -> Estimate:
    """The pose model's outputs for the detector's proposals in an image."""
    if predictor.detector.propose is None:
        raise click.UsageError("the detector makes no proposals")
    proposals = predictor.detector.propose([frame], [""])
    return predictor.estimator.estimate([frame], proposals)[0]


def box_ap(coco: COCO, people: dict[int, tuple[Frame, Estimate]], predictor: Predictor) -> np.ndarray:
    """AP, AP50 and AP75 of the boxes with the module's BOX_HEAD_SHARE."""
    results = []
    for image, (frame, found) in people.items():
        poses = verification.rescored_and_refined(found, frame)
        rows = verification.select(poses, predictor.detector.verified, predictor.keypoints.sigmas)
        for (x1, y1, x2, y2), score in zip(poses.boxes[rows].tolist(), poses.box_scores[rows].tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image, "category_id": 1, "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        scoring = COCOeval(coco, coco.loadRes(results), "bbox")
        scoring.evaluate()
        scoring.accumulate()
        scoring.summarize()
    return np.asarray(scoring.stats[:3])


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
def main(data: Path) -> None:
    """Print box AP for each share."""
    folder = data / "coco"
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(folder / "annotations/person_keypoints_train2017_more.json")
    predictor, people = load_predictor(device="cpu"), {}
    for image in coco.dataset["images"]:
        path = folder / "train2017_more" / image["file_name"]
        frame = Frame(decode_image(path.read_bytes(), path.name, ignore_orientation=True))
        people[image["id"]] = (frame, estimate(predictor, frame))
    click.echo("| share of the box head | AP | AP50 | AP75 |\n|---|---|---|---|")
    for share in SHARES:
        verification.BOX_HEAD_SHARE = share
        click.echo(f"| {share} | " + " | ".join(f"{value:.3f}" for value in box_ap(coco, people, predictor)) + " |")


if __name__ == "__main__":
    main()
