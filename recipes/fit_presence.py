"""Set how much the presence output of a pose model counts: weights/pose.safetensors' last step.

    python recipes/fit_presence.py --data SHARED --pose runs/pose/last.safetensors --out weights/pose.safetensors

The output is trained with the network (`posecli train --nobody`), on photos of nobody that it then knows. Its scale is
fitted on photos of which neither it nor the detector's training has seen who is not there (train_detector.is_held_out):
a logistic regression on the output, with the log-odds of the embedded detector's score as its offset, for in a run the
two add up. The bias is then the highest at which somebody reaches the detector's own default score on at most
FALSE_PEOPLE of the held-out photos of nobody, each shown whole, mirrored and in parts, for there are few.

People of the held-out everyday photos are in the pose model's training: the recall below is a little too good.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from scipy.optimize import minimize
from train_detector import is_held_out

from posecli.detect import Detector, load_detector
from posecli.detect.person import PersonConfig
from posecli.errors import DataError
from posecli.geometry import iou, xywh_to_xyxy
from posecli.media.images import decode_image
from posecli.pose.crops import cut_crops
from posecli.pose.estimator import load_network
from posecli.pose.runtimes import load_runner
from posecli.types import Frame, PixelArray
from posecli.weights.files import find_weights, load_weights, save_weights, sha256

FALSE_PEOPLE = 0.05
TABLES = (
    ("everyday/person_keypoints_everyday.json", "everyday/images"),
    ("coco/annotations/person_keypoints_train2017.json", "coco/train2017"),
    ("negatives/person_none.json", "negatives/images"),
)


@dataclass(frozen=True)
class Proposals:
    """N boxes on held-out photos, each array (N,).

    presence: the output for the box. odds: the detector's log-odds. who: the id of the person in it, else 0. nobody: a
    hash of the photo where that shows nobody, else 0. view: which view of the photo, 0 the whole.

    photos: how many photos of nobody there were. people: how many people.
    """

    presence: np.ndarray
    odds: np.ndarray
    who: np.ndarray
    nobody: np.ndarray
    view: np.ndarray
    photos: int
    people: int


def read_proposals(data: Path, detector: Detector, pose: Path) -> Proposals:
    """The detector's boxes on all held-out photos, and what the pose model's presence output says of them."""
    network, config = load_network(pose)
    if not config.presence:
        raise DataError(f"{pose}: no presence output; train with --nobody")
    runner = load_runner(network, config, device="cpu")
    rows: list[tuple[float, float, int, int, int]] = []
    photos = people = 0
    for table, folder in TABLES:
        document = json.loads((data / table).read_bytes())
        for image in document["images"]:
            if not is_held_out(Path(table).stem, image["file_name"]):
                continue
            of_image = [a for a in document["annotations"] if a["image_id"] == image["id"]]
            nobody = zlib.crc32(image["file_name"].encode()) if "negatives" in table else 0
            photos += nobody > 0
            people += sum(not a.get("iscrowd") for a in of_image)
            whole = decode_image((data / folder / image["file_name"]).read_bytes(), "", ignore_orientation=True)
            for number, view in enumerate(views(whole) if nobody else [whole]):
                found = detector([Frame(view)], [""])[0]
                if not len(found):
                    continue
                truth = label(found.boxes, of_image, image.get("persons_complete", True))
                crops, _ = cut_crops([view], [found.boxes], config.input_size, config.preprocessing.padding)
                presence = runner.run(crops).presence
                assert presence is not None
                odds = np.log(found.scores / (1 - found.scores))
                rows += [
                    (float(presence[i]), float(odds[i]), int(truth[i]), nobody, number)
                    for i in np.flatnonzero(truth >= 0)
                ]
    return Proposals(*(np.array(column) for column in zip(*rows, strict=True)), photos=photos, people=people)


def views(pixels: PixelArray) -> list[PixelArray]:
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


def fit_scale(found: Proposals) -> tuple[float, float]:
    """Scale and bias of the presence output that, added to the detector's log-odds, tell people best."""
    sign = np.where(found.who > 0, 1.0, -1.0)

    def loss(values: np.ndarray) -> float:
        logits = values[0] * found.presence + values[1] + found.odds
        return float(np.logaddexp(0, -sign * logits).mean())

    scale, bias = minimize(loss, (1.0, 0.0)).x
    return float(scale), float(bias)


def highest_bias(found: Proposals, scale: float, needed: float) -> float:
    """The highest bias with which somebody is seen on at most FALSE_PEOPLE of the photos of nobody, in any view.

    needed: log-odds that a person reaches.
    """
    rows = found.nobody > 0
    surest: dict[int, float] = {}
    for photo, odds in zip(found.nobody[rows], (scale * found.presence + found.odds)[rows], strict=True):
        surest[photo] = max(odds, surest.get(photo, -np.inf))
    allowed = int(FALSE_PEOPLE * found.photos)
    worst = sorted(surest.values(), reverse=True)
    if len(worst) <= allowed:
        raise DataError("too few false proposals on photos of nobody to choose by: lower --proposal")
    # Halfway between the last that may be seen and the first that may not.
    return needed - (worst[allowed] + worst[allowed - 1]) / 2


def figures(found: Proposals, kept: np.ndarray) -> dict[str, float | None]:
    """What keeping these boxes (N,) means on whole held-out photos."""
    person, nobody = found.who > 0, found.nobody > 0
    told = person[kept & ~nobody]
    return {
        "recall": round(len(np.unique(found.who[kept & person])) / found.people, 3),
        "precision": round(float(told.mean()), 3) if len(told) else None,
        "false people on a photo of nobody": round(int((kept & nobody & (found.view == 0)).sum()) / found.photos, 3),
    }


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--pose", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--detector", default="person", help="Weights of the embedded detector.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--proposal", type=float, help="Lowest score of a proposal, else the detector's own.")
def main(data: Path, pose: Path, detector: str, out: Path, proposal: float | None) -> None:
    """Fit, say what it means on held-out photos as JSON, and write OUT."""
    detector_file = find_weights(detector)
    settings = PersonConfig.from_json(load_weights(detector_file)[1]["config"])
    lowest = proposal or settings.proposal
    needed = float(np.log(settings.threshold / (1 - settings.threshold)))
    found = read_proposals(data, load_detector("person", device="cpu", weights=detector_file, threshold=lowest), pose)
    scale, fitted = fit_scale(found)
    bias = highest_bias(found, scale, needed)
    odds = scale * found.presence + bias + found.odds
    report = {
        "scale": round(scale, 3),
        "bias": round(bias, 3),
        "bias of the best fit": round(fitted, 3),
        "detector alone": figures(found, found.odds >= needed),
        "confirmed": figures(found, odds >= needed),
        "proposals a person": round(float((found.nobody == 0).sum() / found.people), 2),
    }
    tensors, header = load_weights(pose)
    tensors["presence.weight"] = (tensors["presence.weight"].float() * scale).to(torch.float16)
    tensors["presence.bias"] = (tensors["presence.bias"].float() * scale + bias).to(torch.float16)
    header["presence"] = {"detector_sha256": sha256(detector_file), "proposal": lowest, **report}
    save_weights(out, tensors, header)
    click.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
