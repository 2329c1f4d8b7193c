"""Add to a pose model with a person score one that tells where its person's box ends (posecli.pose.network.BoxHead).

    python recipes/fit_extent.py --data SHARED --pose weights/pose.safetensors --out weights/pose.safetensors

The network stays as it is. On training photos the embedded detector proposes boxes, and others are made up around the
people: parts of them, and boxes that are shifted or of a wrong size. From the backbone's features of each such crop the
output learns the person's labelled box. Photos that the detector's training held out too
(hold_out.is_held_out_of_detector) give the figures and nothing else.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from fit_presence import TABLES, load_pooled
from hold_out import is_held_out_of_detector
from torch import nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from posecli.detect import Detector, load_detector
from posecli.geometry import iou, transform, xywh_to_xyxy
from posecli.media.images import decode_image
from posecli.pose.config import PoseConfig
from posecli.pose.crops import cut_crops
from posecli.pose.estimator import load_network
from posecli.pose.network import BoxHead, SimCC
from posecli.types import Frame
from posecli.weights.files import find_weights, load_weights, save_weights, sha256

PROPOSAL = 0.25
# Boxes made up for each person of a table.
MADE = {"person_keypoints_everyday": 1, "person_keypoints_train2017": 3}
# Lowest IoU of a box with the person that it is taken to be of.
FOUND = 0.25


@dataclass(frozen=True)
class Examples:
    """N crops: features (N, C, *BoxHead.GRID) float16, the sides that the box itself has and those of the person's
    labelled box (N, 4) in shares of the crop, weights (N,), whether it is held out (N,).
    """

    features: np.ndarray
    given: np.ndarray
    wanted: np.ndarray
    weights: np.ndarray
    held_out: np.ndarray


def read_examples(data: Path, detector: Detector, network: SimCC, config: PoseConfig, share: int) -> Examples:
    """Every photo of COCO, and one in share of the everyday ones besides those held out."""
    pooled = load_pooled(network, config, BoxHead.GRID)
    random = np.random.default_rng(0)
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, float, bool]] = []
    for table, folder in TABLES:
        document = json.loads((data / table).read_bytes())
        people: dict[int, list[dict]] = {}
        for annotation in document["annotations"]:
            if not annotation.get("iscrowd"):
                people.setdefault(annotation["image_id"], []).append(annotation)
        for image in document["images"]:
            held_out = is_held_out_of_detector(Path(table).stem, image["file_name"])
            skipped = "everyday" in table and not held_out and zlib.crc32(image["file_name"].encode()) % share
            if skipped or image["id"] not in people:
                continue
            of_image = people[image["id"]]
            true = xywh_to_xyxy(np.array([a["bbox"] for a in of_image]))
            pixels = decode_image((data / folder / image["file_name"]).read_bytes(), "", ignore_orientation=True)
            boxes = list(detector([Frame(pixels)], [""])[0].boxes)
            limits = np.array(pixels.shape[1::-1] * 2)
            if not held_out:
                for person in true:
                    boxes += list(np.clip(list(made_up(person, MADE[Path(table).stem], random)), 0, limits))
            boxes = np.array([b for b in boxes if min(b[2:] - b[:2]) > 8], np.float32).reshape(-1, 4)
            overlap = iou(boxes, true)
            boxes, overlap = boxes[overlap.max(axis=1) >= FOUND], overlap[overlap.max(axis=1) >= FOUND]
            if not len(boxes):
                continue
            whose = overlap.argmax(axis=1)
            crops, matrices = cut_crops([pixels], [boxes], config.input_size, config.preprocessing.padding)
            features = pooled(crops).astype(np.float16)
            given, wanted = (in_crops(corners, matrices, config.input_size) for corners in (boxes, true[whose]))
            sure = [of_image[k].get("score", 1.0) for k in whose]
            rows += [(features[i], given[i], wanted[i], sure[i], held_out) for i in range(len(boxes))]
        click.echo(f"{table}: {len(rows)} boxes so far", err=True)
    return Examples(*(np.array(column) for column in zip(*rows, strict=True)))


def made_up(person: np.ndarray, count: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Boxes x1 y1 x2 y2 as a bad detector might draw them around a person's."""
    while count:
        box, size = person.copy(), np.tile(person[2:] - person[:2], 2)
        kind = random.random()
        if kind < 0.35:  # 30 to 60 % of the person are cut off on one side
            side = random.integers(4)
            box[side] += (1 if side < 2 else -1) * size[side] * random.uniform(0.3, 0.6)
        box += random.normal(0, 0.13, 4) * size
        if kind > 0.75:
            middle = np.tile((box[:2] + box[2:]) / 2, 2)
            box = middle + (box - middle) * random.uniform(1, 1.7)
        if iou([box], [person])[0, 0] >= FOUND:
            count -= 1
            yield box


def in_crops(boxes: np.ndarray, matrices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) xyxy in source pixels as shares of their crops: the inverse of geometry.crop_to_source."""
    height, width = size
    return (transform(matrices, boxes.reshape(-1, 2, 2)) / [width, height]).reshape(-1, 4).astype(np.float32)


def fit(found: Examples, epochs: int, batch_size: int, rate: float) -> BoxHead:
    """GIoU and the sides' distances in shares of the person's size, weighted by how sure the label is."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    model = BoxHead(found.features.shape[1])
    rows = np.flatnonzero(~found.held_out)
    steps = epochs * len(rows) // batch_size
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    losses = []
    for step in range(steps):
        chosen = np.sort(random.choice(rows, batch_size, replace=False))
        features = torch.from_numpy(found.features[chosen].astype(np.float32))
        wanted, weights = torch.from_numpy(found.wanted[chosen]), torch.tensor(found.weights[chosen]).float()
        sides = model(features)
        size = (wanted[:, 2:] - wanted[:, :2]).repeat(1, 2)
        apart = functional.smooth_l1_loss(sides / size, wanted / size, beta=0.1, reduction="none").mean(dim=1)
        loss = ((generalized_box_iou_loss(sides, wanted) + apart) * weights).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if len(losses) == 200:
            click.echo(f"step {step + 1} of {steps}: loss {np.mean(losses):.3f}", err=True)
            losses = []
    return model.eval()


def figures(found: Examples, sides: np.ndarray) -> dict[str, float]:
    """How well sides (N, 4) fit the held-out people's boxes."""
    held = found.held_out
    overlap = np.array(
        [iou([side], [wanted])[0, 0] for side, wanted in zip(sides[held], found.wanted[held], strict=True)]
    )
    report = {f"IoU >= {level}": round(float((overlap >= level).mean()), 3) for level in (0.5, 0.75)}
    return {"mean IoU": round(float(overlap.mean()), 3)} | report


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--pose", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--detector", default="person", help="Weights of the embedded detector.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--share", default=1, show_default=True, help="One in so many everyday photos is used.")
@click.option("--epochs", default=6, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--rate", default=1e-3, show_default=True)
def main(
    data: Path, pose: Path, detector: str, out: Path, share: int, epochs: int, batch_size: int, rate: float
) -> None:
    """Fit, say what it means on held-out photos as JSON, and write OUT."""
    network, config = load_network(pose)
    find = load_detector("person", device="cpu", weights=find_weights(detector), threshold=PROPOSAL)
    found = read_examples(data, find, network, config, share)
    model = fit(found, epochs, batch_size, rate)
    with torch.inference_mode():
        parts = [found.features[i : i + 256].astype(np.float32) for i in range(0, len(found.features), 256)]
        sides = np.concatenate([model(torch.from_numpy(part)).numpy() for part in parts])
    report = {
        "examples": int((~found.held_out).sum()),
        "held out": int(found.held_out.sum()),
        "boxes as proposed": figures(found, found.given),
        "boxes as refitted": figures(found, sides),
    }
    tensors, header = load_weights(pose)
    tensors |= {f"box_head.{name}": tensor.to(torch.float16) for name, tensor in model.state_dict().items()}
    header["config"] = replace(config, box_head=True).to_json()
    header["extent"] = {"detector_sha256": sha256(find_weights(detector)), "share": share, "epochs": epochs, **report}
    save_weights(out, tensors, header)
    click.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
