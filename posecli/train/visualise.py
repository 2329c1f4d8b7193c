"""Visualisation of a training run: sample preview, curves, predictions on fixed people."""

import csv
import dataclasses
from pathlib import Path

import numpy as np

from posecli.draw.skeleton import draw_person
from posecli.evaluate.ground_truth import GroundTruth, is_evaluated
from posecli.geometry import crop_matrices, transform, xywh_to_xyxy
from posecli.media.write_images import write_image
from posecli.pose.config import PoseConfig
from posecli.pose.crops import cut_crops
from posecli.pose.estimator import Estimator
from posecli.pose.network import SimCC
from posecli.pose.runner import load_runner
from posecli.results.charts import Panel, Series, png
from posecli.train.batches import batches
from posecli.train.packing import TrainingData
from posecli.train.recipe import Recipe
from posecli.types import Detections, Frame, PixelArray

SHOWN_PEOPLE = 16
TILE = (256, 192)


def write_preview(path: Path, data: TrainingData, recipe: Recipe, count: int) -> None:
    """A contact sheet of augmented samples with their keypoints, if they have any."""
    stage = dataclasses.replace(recipe.stages[-1], batch_size=count)
    found = batches(data.crops, recipe, stage, 0, count, negatives=data.negatives, unlabelled=data.unlabelled)
    batch = next(iter(found))
    tiles = []
    for crop, points, weights in zip(batch.crops.numpy(), batch.points.numpy(), batch.weights.numpy(), strict=True):
        tiles.append(draw_person(crop, points, weights, recipe.model.keypoints, 1e-6))
    write_image(path, contact_sheet(tiles, 8))


def write_predictions(path: Path, network: SimCC, config: PoseConfig, truth: GroundTruth) -> None:
    """A sheet of fixed validation people, spread over the set: ground truth above, prediction below."""
    evaluated = [a for a in truth.dataset["annotations"] if is_evaluated(a)]
    people = [a for a in evaluated if 2 * a["num_keypoints"] >= len(truth.keypoint_set)] or evaluated
    if not people:
        return
    chosen = [people[i] for i in np.linspace(0, len(people) - 1, min(SHOWN_PEOPLE, len(people))).astype(int)]
    device = str(next(network.parameters()).device)
    estimator = Estimator(config, load_runner(lambda: network, config, device=device, runtime="torch"))
    tiles = []
    for annotation in chosen:
        frame = Frame(truth.pixels(annotation["image_id"]))
        box = xywh_to_xyxy(np.array([annotation["bbox"]], np.float64)).astype(np.float32)
        poses = estimator([frame], [Detections(box, np.ones(1, np.float32))])[0]
        crops, _ = cut_crops([frame.pixels], [box], TILE, config.preprocessing.padding)
        matrix = crop_matrices(box.astype(np.float64), TILE, config.preprocessing.padding)[0]
        labels = np.array(annotation["keypoints"], np.float64).reshape(-1, 3)
        above = draw_person(crops[0], transform(matrix, labels[:, :2]), labels[:, 2] > 0, truth.keypoint_set)
        points = transform(matrix, poses.keypoints[0].astype(np.float64))
        below = draw_person(crops[0], points, poses.scores[0], truth.keypoint_set)
        tiles.append(np.vstack([above, below]))
    write_image(path, contact_sheet(tiles, 8))


def write_curves(path: Path, folder: Path) -> None:
    """Write curves of loss, learning rate and AP over the samples, from a run's CSV files."""
    metrics, evaluations = _columns(folder / "metrics.csv"), _columns(folder / "evaluations.csv")
    if not metrics:
        return
    seen = metrics["samples"]
    loss = Series("loss", seen, metrics["loss"])
    panels = [
        Panel("Loss: KL divergence of the labels from the predictions, mean of x and y", "samples", "nats", [loss]),
        Panel("Learning rate", "samples", "", [Series("learning rate", seen, metrics["learning_rate"])]),
    ]
    if evaluations:
        curves = [Series(name, evaluations["samples"], evaluations[name]) for name in ("AP", "AP50", "AP75")]
        panels.insert(1, Panel("Validation people, true boxes", "samples", "", curves))
    png(path, panels, height=2.6)


def contact_sheet(tiles: list[PixelArray], columns: int) -> PixelArray:
    """Tiles of one size in rows, the last row padded with black."""
    columns = min(columns, len(tiles))
    tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def _columns(path: Path) -> dict[str, list[float]]:
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {}
