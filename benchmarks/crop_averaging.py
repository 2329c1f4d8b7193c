"""Effect and cost of averaging before the warp (pose/crops.py, warp): AP of the same weights with and without it."""

import dataclasses
import time
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from posecli.evaluate.bootstrap import difference, resampled
from posecli.evaluate.ground_truth import read_ground_truth
from posecli.evaluate.predictions import predict, true_boxes
from posecli.evaluate.scoring import score_keypoints
from posecli.pose import crops
from posecli.pose.estimator import load_estimator
from posecli.types import PixelArray


def sampled(image: PixelArray, matrix: NDArray[np.float64], crop: PixelArray) -> None:
    """The warp without averaging."""
    cv2.warpAffine(image, matrix[:2], crop.shape[1::-1], dst=crop, flags=cv2.INTER_LINEAR)


@click.command()
@click.argument("annotations", type=click.Path(path_type=Path, exists=True))
@click.argument("images", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--weights", default="pose", show_default=True)
@click.option("--flip/--no-flip", default=False)
def main(annotations: Path, images: Path, weights: str, flip: bool) -> None:
    truth = read_ground_truth(annotations, images)
    estimator = dataclasses.replace(load_estimator(weights), flip=flip)
    boxes = true_boxes(truth)
    averaged = crops.warp
    found = []
    print("| | AP | AP50 | AP75 | APm | APl | ms a person of 1020 px |\n|---|---:|---:|---:|---:|---:|---:|")
    image = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
    tall = [np.array([[600, 40, 1100, 1060]], np.float32)]
    for name, warp in (("sampled", sampled), ("averaged", averaged)):
        crops.warp = warp
        scores = score_keypoints(truth.dataset, predict(estimator, truth, boxes).results, truth.keypoint_set)
        found.append(scores)
        start = time.process_time()
        for _ in range(100):
            crops.cut_crops([image], tall, estimator.config.input_size, 1.25)
        took = (time.process_time() - start) * 10
        figures = " | ".join(f"{scores.values[key]:.4f}" for key in ("AP", "AP50", "AP75", "APm", "APl"))
        print(f"| {name} | {figures} | {took:.2f} |", flush=True)
    draws = [resampled(scores) for scores in found]
    print()
    for key in ("AP", "APl"):
        gap = difference(draws[0][key], draws[1][key], found[1].values[key] - found[0].values[key])
        print(f"{key}: {gap.value:+.4f}, 95 % interval {gap.low:+.4f} to {gap.high:+.4f} (paired bootstrap).")


if __name__ == "__main__":
    main()
