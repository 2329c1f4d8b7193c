"""Add to a pose model an output that tells whether a crop shows a person at all: weights/pose.safetensors' last step.

    python recipes/fit_presence.py --data SHARED --pose runs/pose/last.safetensors --out weights/pose.safetensors

The network stays as it is. The embedded detector proposes boxes on training photos; a logistic regression on the
mean of the backbone's features is fitted to whether each is a person, with the log-odds of the detector's score as its
offset: the two add up. Photos of nobody are also shown mirrored and in parts, and searched for worse proposals, for
there are few; --nobody adds more of them.

On photos that the detector's training held out too (hold_out.is_held_out_of_detector) the ridge is chosen by the loss.
The bias is then raised as far as at the detector's own default score people are seen on at most FALSE_PEOPLE of the
photos of nobody, in any of their parts, by fits that did not see the photo (five folds).
"""

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from hold_out import is_held_out_of_detector
from torch import nn
from torch.nn import functional

from posecli.detect import Detector, load_detector
from posecli.detect.person import PersonConfig
from posecli.geometry import iou, xywh_to_xyxy
from posecli.media.images import decode_image
from posecli.pose.config import PoseConfig
from posecli.pose.crops import cut_crops
from posecli.pose.estimator import load_network
from posecli.pose.network import SimCC
from posecli.pose.runner import PixelNetwork
from posecli.runtime import ModuleSpec, compile_network
from posecli.types import Frame
from posecli.weights.files import find_weights, load_weights, save_weights, sha256

FALSE_PEOPLE = 0.03
NOBODY_PROPOSAL = 0.15
FOLDS = 5
RIDGES = (1e-3, 3e-3, 1e-2, 3e-2)
TABLES = (
    ("everyday/person_keypoints_everyday.json", "everyday/images"),
    ("coco/annotations/person_keypoints_train2017.json", "coco/train2017"),
    ("negatives/person_none.json", "negatives/images"),
)


@dataclass(frozen=True)
class Proposals:
    """N boxes: features (N, C), the detector's log-odds (N,), the id of the person in it or 0 (N,), held out (N,),
    whether its photo shows nobody (N,), and a hash of the photo (N,).

    photos: how many held-out photos of nobody there were. people: how many held-out people.
    """

    features: np.ndarray
    odds: np.ndarray
    who: np.ndarray
    held_out: np.ndarray
    nobody: np.ndarray
    photo: np.ndarray
    photos: int
    people: int

    @property
    def person(self) -> np.ndarray:
        """(N,) whether it is a person."""
        return self.who > 0


def read_tables(data: Path, nobody: Path | None) -> Iterator[tuple[str, Path, dict]]:
    """Name, folder of the images and COCO document of each table; the photos in nobody are one more of person_none."""
    for table, folder in TABLES:
        yield Path(table).stem, data / folder, json.loads((data / table).read_bytes())
    if nobody is not None:
        images = [{"id": number, "file_name": path.name} for number, path in enumerate(sorted(nobody.glob("*.jpg")))]
        yield "person_none", nobody, {"images": images, "annotations": []}


def read_proposals(
    data: Path,
    more: Path | None,
    detector: Detector,
    eager: Detector,
    network: SimCC,
    config: PoseConfig,
    share: int,
) -> Proposals:
    """Every photo of nobody and of COCO, and one in share of the everyday ones besides those held out.

    more: a folder with further photos of nobody. eager: the detector with worse proposals, for photos of nobody that
    are trained on.
    """
    pooled = load_pooled(network, config, (1, 1))
    rows: list[tuple[np.ndarray, float, int, bool, bool, int]] = []
    photos = held_people = 0
    for table, folder, document in read_tables(data, more):
        people: dict[int, list[dict]] = {}
        for annotation in document["annotations"]:
            people.setdefault(annotation["image_id"], []).append(annotation)
        nobody = table == "person_none"
        for image in document["images"]:
            held_out = is_held_out_of_detector(table, image["file_name"])
            photo = zlib.crc32(image["file_name"].encode())
            if "everyday" in table and not held_out and photo % share:
                continue
            of_image = people.get(image["id"], [])
            photos += nobody and held_out
            held_people += held_out * sum(not a.get("iscrowd") for a in of_image)
            whole = decode_image((folder / image["file_name"]).read_bytes(), "", ignore_orientation=True)
            for view in views(whole) if nobody and not held_out else [whole]:
                search = eager if nobody and not held_out else detector
                found = search([Frame(view)], [""])[0]
                if not len(found):
                    continue
                truth = label(found.boxes, of_image, image.get("persons_complete", True))
                crops, _ = cut_crops([view], [found.boxes], config.input_size, config.preprocessing.padding)
                features = pooled(crops)[:, :, 0, 0]
                odds = np.log(found.scores / (1 - found.scores))
                rows += [
                    (features[i], float(odds[i]), int(truth[i]), held_out, nobody, photo)
                    for i in range(len(found))
                    if truth[i] >= 0
                ]
        click.echo(f"{table}: {len(rows)} proposals so far", err=True)
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Proposals(*columns, photos=photos, people=held_people)


def views(pixels: np.ndarray) -> list[np.ndarray]:
    """A photo of nobody, its mirror image and its parts."""
    cut = (pixels[y : y + h, x : x + w] for y, x, h, w in parts(*pixels.shape[:2]))
    return [np.ascontiguousarray(view) for view in (pixels, pixels[:, ::-1], *cut)]


def parts(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Top, left, height and width of a picture's four quarters, enlarged by a third, and of its middle."""
    h, w = 2 * height // 3, 2 * width // 3
    corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w)]
    return [(y, x, h, w) for y, x in (*corners, ((height - h) // 2, (width - w) // 2))]


def label(boxes: np.ndarray, annotations: list[dict], complete: bool) -> np.ndarray:
    """(N,) the id of the person in each box, 0 for none, -1 where nobody knows."""
    true, crowd = (
        xywh_to_xyxy(np.array([a["bbox"] for a in annotations if bool(a.get("iscrowd")) is wanted]).reshape(-1, 4))
        for wanted in (False, True)
    )
    ids = np.array([a["id"] for a in annotations if not a.get("iscrowd")] or [0])
    table = iou(boxes, true) if len(true) else np.zeros((len(boxes), 1))
    overlap = table.max(axis=1)
    known = complete & (overlap < 0.3) & (share_on(boxes, crowd) < 0.3)
    return np.where(overlap >= 0.5, ids[table.argmax(axis=1)], np.where(known, 0, -1))


def share_on(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) the largest share of each box (N, 4) that lies in one of the others (M, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    inside = np.prod(np.maximum(high - low, 0), axis=-1) / np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
    return inside.max(axis=1, initial=0.0)


class Pooled(nn.Module):
    """The backbone's features, averaged to a grid of (rows, columns), as the outputs after it take them."""

    def __init__(self, network: PixelNetwork, grid: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.grid = network, grid

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Crops (N, H, W, 3) uint8 → (N, C, rows, columns)."""
        pixels = (crops.permute(0, 3, 1, 2).float() - self.network.mean) / self.network.std
        return functional.adaptive_avg_pool2d(self.network.network.backbone(pixels), self.grid)


def load_pooled(network: SimCC, config: PoseConfig, grid: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """Pooled, ready to run."""
    pooled = Pooled(PixelNetwork(network, config), grid)
    spec = ModuleSpec(pooled, None, cpu_batch=4, gpu_batch=32, sizes=(config.input_size,))
    compiled = compile_network(spec, device="cpu", runtime="openvino")
    return lambda crops: compiled(crops)[0]


def fit(found: Proposals, ridge: float, left_out: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Weights (C,) and bias on the features as they are, without the rows left out (N,), and the loss on those."""
    train = ~left_out
    mean, std = found.features[train].mean(axis=0), found.features[train].std(axis=0) + 1e-6
    x = torch.tensor((found.features - mean) / std, dtype=torch.float64)
    y, odds = torch.tensor(found.person, dtype=torch.float64), torch.tensor(found.odds)
    weight, bias = (
        torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True),
        torch.zeros(1, dtype=x.dtype, requires_grad=True),
    )
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=300)

    def loss(rows: np.ndarray) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(x[rows] @ weight + bias + odds[rows], y[rows])

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss(train) + ridge * weight.square().sum()
        value.backward()
        return value

    optimiser.step(closure)
    with torch.no_grad():
        held = float(loss(left_out))
        plain = weight.numpy() / std
        return plain, float(bias) - float((plain * mean).sum()), held


def figures(found: Proposals, kept: np.ndarray) -> dict[str, float]:
    """What keeping these boxes (N,) means on held-out photos."""
    held = found.held_out & kept
    return {
        "recall": round(len(np.unique(found.who[held & found.person])) / found.people, 3),
        "precision": round(float(found.person[held & ~found.nobody].mean()), 3),
        "false people on a photo of nobody": round(float((held & found.nobody).sum() / found.photos), 3),
    }


def share_seen(found: Proposals, kept: np.ndarray) -> float:
    """Share of the photos of nobody, those held out aside, on which one of the boxes kept (N,) lies in any view."""
    rows = found.nobody & ~found.held_out
    return len(np.unique(found.photo[rows & kept])) / len(np.unique(found.photo[rows]))


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--nobody", type=click.Path(path_type=Path, exists=True), help="Folder of more photos of nobody.")
@click.option("--pose", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--detector", default="person", help="Weights of the embedded detector.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--share", default=2, show_default=True, help="One in so many everyday photos is used.")
@click.option("--proposal", type=float, help="Lowest score of a proposal, else the detector's own.")
def main(
    data: Path, nobody: Path | None, pose: Path, detector: str, out: Path, share: int, proposal: float | None
) -> None:
    """Fit, say what it means on held-out photos as JSON, and write OUT."""
    detector_file = find_weights(detector)
    settings = PersonConfig.from_json(load_weights(detector_file)[1]["config"])
    lowest, threshold = proposal or settings.proposal, settings.threshold
    network, config = load_network(pose)
    find = load_detector("person", device="cpu", weights=detector_file, threshold=lowest)
    eager = load_detector("person", device="cpu", weights=detector_file, threshold=NOBODY_PROPOSAL)
    found = read_proposals(data, nobody, find, eager, network, config, share)
    fits = {ridge: fit(found, ridge, found.held_out) for ridge in RIDGES}
    ridge = min(fits, key=lambda ridge: fits[ridge][2])
    weight, bias, loss = fits[ridge]
    needed = np.log(threshold / (1 - threshold))
    odds = found.features @ weight + bias + found.odds
    unseen = np.zeros_like(odds)
    for fold in range(FOLDS):
        rows = found.photo // 20 % FOLDS == fold
        part, constant, _ = fit(found, ridge, rows | found.held_out)
        unseen[rows] = found.features[rows] @ part + constant + found.odds[rows]
    proposed = found.odds >= np.log(lowest / (1 - lowest))
    shifts = np.arange(-4, 4, 0.05)
    shift = max(s for s in shifts if share_seen(found, proposed & (unseen + s >= needed)) <= FALSE_PEOPLE)
    report = {"ridge": ridge, "held_out_loss": round(loss, 4), "shift": round(float(shift), 2)}
    report["detector alone"] = figures(found, found.odds >= needed)
    for low in sorted({lowest, *(level for level in (0.3, 0.35, 0.4, 0.45) if level > lowest)}):
        proposed = found.odds >= np.log(low / (1 - low))
        report[f"proposals from {low}"] = figures(found, (odds + shift >= needed) & proposed) | {
            "proposals a person": round(float(proposed[found.held_out & ~found.nobody].sum() / found.people), 2)
        }
    tensors, header = load_weights(pose)
    tensors["person_score.weight"] = torch.from_numpy(weight).to(torch.float16)[None]
    tensors["person_score.bias"] = torch.tensor([bias + shift], dtype=torch.float16)
    header["config"] = replace(config, person_score=True).to_json()
    header["presence"] = {"detector_sha256": sha256(detector_file), "proposal": lowest, "share": share, **report}
    save_weights(out, tensors, header)
    click.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
