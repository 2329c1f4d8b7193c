"""Upper bound of the AP of crop-based models on true boxes: all keypoints correct but those outside of the crop."""

import json
from pathlib import Path

import click
import numpy as np

from posecli.evaluate.ground_truth import is_evaluated, read_ground_truth
from posecli.evaluate.scoring import score_keypoints
from posecli.geometry import crop_matrices, transform, xywh_to_xyxy


@click.command()
@click.argument("annotations", type=click.Path(path_type=Path, exists=True))
@click.option("--padding", default=1.25, show_default=True)
def main(annotations: Path, padding: float) -> None:
    truth = read_ground_truth(annotations, Path(), needs_images=False)
    width, height = 192, 256
    outside = labelled = 0
    results = []
    for annotation in filter(is_evaluated, truth.dataset["annotations"]):
        labels = np.array(annotation["keypoints"], np.float64).reshape(-1, 3)
        box = xywh_to_xyxy(np.array([annotation["bbox"]], np.float64))
        matrix = crop_matrices(box, (height, width), padding)[0]
        points = transform(matrix, labels[:, :2])
        nearest = np.clip(points, 0, (width - 1, height - 1))
        seen = labels[:, 2] > 0
        labelled += int(seen.sum())
        outside += int((seen & (points != nearest).any(axis=1)).sum())
        back = transform(np.linalg.inv(matrix), nearest)
        flat = np.concatenate([back, np.ones((len(back), 1))], axis=1).reshape(-1).tolist()
        results.append({"image_id": annotation["image_id"], "keypoints": flat, "score": 1.0})
    scores = score_keypoints(truth.dataset, results, truth.keypoint_set)
    print(json.dumps({"AP": round(scores.values["AP"], 4), "outside": outside, "labelled": labelled}))


if __name__ == "__main__":
    main()
