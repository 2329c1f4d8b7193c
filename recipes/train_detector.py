"""Train the embedded person detector. One command makes weights/person.safetensors again.

    python recipes/train_detector.py --data SHARED --init mobilenet_v2-b0353104.pth --out runs/person

Data, each a COCO file and its images under SHARED: people with boxes (everyday, coco/train2017) and
photos of nobody (negatives). Crowds (iscrowd) and pictures whose people are not all labelled
(persons_complete: false) give no negatives where somebody may stand. A part of the everyday photos,
chosen by a hash of the name, is held out to choose the default score threshold.
"""

import json
import math
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from posecli.detect.person import PersonConfig, build_fcos, locations
from posecli.train.augment import Augmentation, change_pixels
from posecli.weights.files import load_weights, save_weights, sha256

STRIDES = PersonConfig().strides
COLOUR = Augmentation(flip_p=0.5, colour=0.3, blur_p=0.05, erasing_p=0, downscale_p=0)
GREY = 114


@dataclass(frozen=True)
class Labels:
    """boxes (N, 4) xyxy and their weights (N,); ignored (M, 4): neither person nor background."""

    boxes: np.ndarray
    weights: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class Photo:
    """An encoded picture, at most 512 pixels long, with labels in its pixels."""

    encoded: np.ndarray
    labels: Labels
    held_out: bool


def read_photos(shared: Path, cache: Path, longest: int = 512) -> list[Photo]:
    """All training photos. The encoded pictures are kept in cache."""
    tables = [
        (shared / "everyday/person_keypoints_everyday.json", shared / "everyday/images"),
        (shared / "coco/annotations/person_keypoints_train2017.json", shared / "coco/train2017"),
        (shared / "negatives/person_none.json", shared / "negatives/images"),
    ]
    photos = []
    cache.mkdir(parents=True, exist_ok=True)
    for annotations, folder in tables:
        document = json.loads(annotations.read_bytes())
        of_image: dict[int, list[dict]] = {}
        for annotation in document["annotations"]:
            of_image.setdefault(annotation["image_id"], []).append(annotation)
        for image in document["images"]:
            small = cache / f"{annotations.stem}-{image['id']}-{longest}.jpg"
            if not small.is_file():
                pixels = cv2.imread(str(folder / image["file_name"]), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
                scale = min(1.0, longest / max(pixels.shape[:2]))
                pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                cv2.imwrite(str(small), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
            scale = min(1.0, longest / max(image["width"], image["height"]))
            boxes, weights, ignored = [], [], []
            for annotation in of_image.get(image["id"], []):
                x, y, w, h = np.asarray(annotation["bbox"], float) * scale
                if annotation.get("iscrowd") or min(w, h) < 2:
                    ignored.append([x, y, x + w, y + h])
                else:
                    boxes.append([x, y, x + w, y + h])
                    weights.append(min(1.0, 0.4 + 0.75 * annotation.get("score", 1.0)))
            if not image.get("persons_complete", True):
                ignored.append([0, 0, image["width"], image["height"]])
            labels = Labels(_boxes(boxes), np.asarray(weights, np.float32), _boxes(ignored))
            held_out = is_held_out(annotations.stem, image["file_name"])
            photos.append(Photo(np.fromfile(small, np.uint8), labels, held_out))
    return photos


def is_held_out(table: str, file_name: str) -> bool:
    """Whether a photo serves to choose the default score: 1 in 20 of the everyday photos, 1 in 5 of the empty ones."""
    share = {"person_keypoints_everyday": 20, "person_none": 5}.get(table)
    return share is not None and zlib.crc32(file_name.encode()) % share == 0


def _boxes(values: list) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(-1, 4)


def place(photo: Photo, size: tuple[int, int], low: float, high: float, random: np.random.Generator):
    """A random cut of a photo on a grey canvas (height, width), with its labels there."""
    height, width = size
    pixels = cv2.imdecode(photo.encoded, cv2.IMREAD_COLOR_RGB)
    fit = min(width / pixels.shape[1], height / pixels.shape[0])
    scale = fit * np.exp(random.uniform(np.log(low), np.log(high)))
    stretch = np.exp(random.uniform(-0.1, 0.1))
    sx, sy = scale * stretch, scale / stretch
    room = np.array([width - pixels.shape[1] * sx, height - pixels.shape[0] * sy])
    dx, dy = random.uniform(np.minimum(room, 0), np.maximum(room, 0) + 1e-3)
    matrix = np.array([[sx, 0, dx], [0, sy, dy]])
    if random.random() < 0.5:
        matrix = np.array([[-1.0, 0, width - 1], [0, 1, 0]]) @ np.vstack([matrix, [0, 0, 1]])
    if max(sx, sy) < 0.5:
        # Halve by area first; warpAffine alone would alias.
        pixels = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        matrix = matrix @ np.array([[2, 0, 0], [0, 2, 0], [0, 0, 1.0]])
        halved = 0.5
    else:
        halved = 1.0
    picture = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(GREY, GREY, GREY))
    picture = change_pixels(picture, COLOUR, random)

    def move(boxes: np.ndarray) -> np.ndarray:
        corners = (boxes * halved).reshape(-1, 2, 2) @ matrix[:, :2].T + matrix[:, 2]
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)

    boxes, ignored = move(photo.labels.boxes), move(photo.labels.ignored)
    limit = np.array([width, height, width, height], np.float32)
    cut, cut_ignored = np.clip(boxes, 0, limit), np.clip(ignored, 0, limit)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    seen = np.prod(cut[:, 2:] - cut[:, :2], axis=1) / np.maximum(area, 1e-6)
    tall = np.minimum(cut[:, 2] - cut[:, 0], cut[:, 3] - cut[:, 1]) >= 4
    keep = (seen > 0.35) & tall
    rest = cut[~keep & (seen > 0.02)]
    return picture, Labels(cut[keep], photo.labels.weights[keep], np.concatenate([cut_ignored, rest]))


def empty_part(photo: Photo, size: tuple[int, int], random: np.random.Generator):
    """A part of a photo where nobody stands, on the whole canvas; None where no try finds one."""
    pixels = cv2.imdecode(photo.encoded, cv2.IMREAD_COLOR_RGB)
    taken = np.concatenate([photo.labels.boxes, photo.labels.ignored])
    shape = np.array(pixels.shape[1::-1])
    for _ in range(8):
        side = random.uniform(0.25, 0.7) * shape
        low = random.uniform(0, shape - side)
        high = low + side
        if not ((taken[:, :2] < high) & (taken[:, 2:] > low)).all(axis=1).any():
            (x0, y0), (x1, y1) = low.astype(int), high.astype(int)
            picture = cv2.resize(pixels[y0:y1, x0:x1], size[::-1], interpolation=cv2.INTER_AREA)
            picture = picture[:, ::-1] if random.random() < 0.5 else picture
            nobody = Labels(_boxes([]), np.zeros(0, np.float32), _boxes([]))
            return change_pixels(np.ascontiguousarray(picture), COLOUR, random), nobody
    return None


def draw(photos: list[Photo], number: int, order: np.ndarray, size: tuple[int, int], mosaic_p: float, seed: int):
    """Training picture number n and its labels: one photo, or four around a random cross."""
    random = np.random.default_rng([seed, number])
    first = photos[order[number % len(order)]]
    if random.random() >= mosaic_p:
        return place(first, size, 0.6, 1.7, random)
    height, width = size
    cy, cx = (random.uniform(0.3, 0.7, 2) * size).astype(int)
    canvas = np.full((height, width, 3), GREY, np.uint8)
    parts = []
    for k, (y0, x0, y1, x1) in enumerate(
        [(0, 0, cy, cx), (0, cx, cy, width), (cy, 0, height, cx), (cy, cx, height, width)]
    ):
        photo = first if k == 0 else photos[int(random.integers(len(photos)))]
        empty = empty_part(photo, (y1 - y0, x1 - x0), random) if k and random.random() < 0.3 else None
        picture, labels = empty or place(photo, (y1 - y0, x1 - x0), 0.9, 2.2, random)
        canvas[y0:y1, x0:x1] = picture
        shift = np.array([x0, y0, x0, y0], np.float32)
        parts.append(Labels(labels.boxes + shift, labels.weights, labels.ignored + shift))
    return canvas, Labels(
        np.concatenate([p.boxes for p in parts]),
        np.concatenate([p.weights for p in parts]),
        np.concatenate([p.ignored for p in parts]),
    )


def batches(photos, start: int, total: int, batch_size: int, sides, seed: int, weak_from: int) -> Iterator:
    """Batches of (pictures, labels), prepared one ahead in another thread."""

    def prepare(first: int):
        items = []
        size = (sides[first // batch_size % len(sides)],) * 2
        for number in range(first, first + batch_size):
            order = np.random.default_rng([seed, 7, number // len(photos)]).permutation(len(photos))
            items.append(draw(photos, number, order, size, 0.0 if number >= weak_from else 0.5, seed))
        return torch.from_numpy(np.stack([i[0] for i in items])), [i[1] for i in items]

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(prepare, start)
        for first in range(start, total, batch_size):
            ready, ahead = ahead, pool.submit(prepare, first + batch_size)
            yield ready.result()


def assign(labels: Labels, centres: Tensor, sizes: Tensor):
    """Which box each location answers for, as in FCOS: centre sampling, a range of sizes a level.

    Returns the box index (A,), -1 for background and -2 where nothing is asked.
    """
    boxes = torch.from_numpy(labels.boxes)
    index = torch.full((len(centres),), -1)
    if len(labels.ignored):
        corners = torch.from_numpy(labels.ignored)
        inside = (centres[:, None] >= corners[None, :, :2]) & (centres[:, None] <= corners[None, :, 2:])
        index[inside.all(-1).any(1)] = -2
    if len(boxes):
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        near = (centres[:, None] - middle[None]).abs().amax(-1) < 1.5 * sizes[:, None]
        sides = torch.cat([centres[:, None] - boxes[None, :, :2], boxes[None, :, 2:] - centres[:, None]], -1)
        near &= sides.amin(-1) > 0
        lower = torch.where(sizes == STRIDES[0], 0.0, sizes * 4)
        upper = torch.where(sizes == STRIDES[-1], math.inf, sizes * 8)
        reach = sides.amax(-1)
        near &= (reach > lower[:, None]) & (reach <= upper[:, None])
        area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
        cost = torch.where(near, area[None], math.inf)
        best, which = cost.min(1)
        index = torch.where(best < math.inf, which, index)
    return index


def losses(outputs: dict[str, Tensor], labels: list[Labels], centres: Tensor, sizes: Tensor):
    """Focal, GIoU weighted by centreness, and quality: averaged over positives.

    Where FCOS learns centreness, this learns the overlap of the box itself, which ranks boxes better.
    """
    device = outputs["cls_logits"].device
    index = torch.stack([assign(item, centres, sizes) for item in labels])
    positive = index >= 0
    boxes = torch.zeros(*index.shape, 4)
    weights = torch.ones(index.shape)
    for i, item in enumerate(labels):
        if len(item.boxes):
            rows = positive[i]
            boxes[i, rows] = torch.from_numpy(item.boxes)[index[i, rows]]
            weights[i, rows] = torch.from_numpy(item.weights)[index[i, rows]]
    weights[index == -2] = 0
    index, positive, boxes, weights = (t.to(device) for t in (index, positive, boxes, weights))
    centres, sizes = centres.to(device), sizes.to(device)
    count = positive.sum().clamp_min(1)
    logits = outputs["cls_logits"][..., 0].float()
    focal = (sigmoid_focal_loss(logits, positive.float(), 0.25, 2.0) * weights).sum() / count

    points = centres.expand(*index.shape, 2)[positive]
    scale = sizes.expand(index.shape)[positive][:, None]
    truth = boxes[positive]
    sides = torch.cat([points - truth[:, :2], truth[:, 2:] - points], dim=-1)
    distances = outputs["bbox_regression"].float()[positive] * scale
    predicted = torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=-1)
    lr, tb = sides[:, [0, 2]], sides[:, [1, 3]]
    centreness = (lr.amin(-1) / lr.amax(-1) * tb.amin(-1) / tb.amax(-1)).clamp_min(0).sqrt()
    share = centreness * weights[positive]
    giou = (generalized_box_iou_loss(predicted, truth) * share).sum() / share.sum().clamp_min(1)
    overlap = pair_iou(predicted.detach(), truth)
    quality = functional.binary_cross_entropy_with_logits(
        outputs["bbox_ctrness"].float()[positive][:, 0], overlap, weights[positive], reduction="sum"
    )
    return focal, giou, quality / count


def pair_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of each box with its partner: (N, 4), (N, 4) → (N,)."""
    inner = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp_min(0)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(-1) for boxes in (first, second)]
    shared = inner.prod(-1)
    return shared / (areas[0] + areas[1] - shared).clamp_min(1e-6)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--init", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--images", default=44_000, help="Pictures seen in all.")
@click.option("--batch-size", default=16)
@click.option("--size", "sides", multiple=True, default=(320,), help="Sides of the training pictures, batches in turn.")
@click.option("--run-size", default=416, help="Side that the weights are run at.")
@click.option("--rate", default=1.2e-3)
@click.option("--freeze", default=7, help="Leading blocks of the backbone that stay as they are.")
@click.option("--threads", default=1)
@click.option("--device", default="cpu")
@click.option("--negatives", default=1, help="How often photos of nobody are shown for each time that others are.")
@click.option("--seed", default=0)
def main(data, init, out, images, batch_size, sides, run_size, rate, freeze, threads, device, negatives, seed) -> None:
    """Train, with a checkpoint every two minutes; started again it goes on."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    photos = [photo for photo in read_photos(data, out / "photos") if not photo.held_out]
    photos += [p for p in photos if not len(p.labels.boxes) and not len(p.labels.ignored)] * (negatives - 1)
    config = PersonConfig(input_size=(run_size, run_size))
    model = build_fcos(config)
    body = model.backbone.body
    if init.suffix == ".safetensors":
        tensors, _ = load_weights(init)
        model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    else:
        trunk = {k.removeprefix("features."): v for k, v in torch.load(init, weights_only=True).items()}
        body.load_state_dict({k: v for k, v in trunk.items() if k in body.state_dict()})
    model.to(device, memory_format=torch.channels_last).train()
    for number, block in enumerate(body.children()):
        if number < freeze:
            block.requires_grad_(False)
    groups: dict[tuple[bool, bool], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(("body" in name, parameter.ndim > 1), []).append(parameter)
    optimiser = torch.optim.AdamW(
        [
            {"params": p, "weight_decay": 0.05 * decays, "factor": 0.5 if in_trunk else 1.0}
            for (in_trunk, decays), p in sorted(groups.items(), key=lambda item: item[0])
        ],
        lr=rate,
    )
    average = {k: v.clone() for k, v in model.state_dict().items()}
    places = {side: locations((side, side), STRIDES) for side in sides}
    seen, updates = 0, 0
    state = out / "state.pt"
    if state.is_file():
        saved = torch.load(state, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average, seen, updates = saved["average"], saved["seen"], saved["updates"]

    def save() -> None:
        part = state.with_suffix(".part")
        torch.save(
            {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "average": average}
            | {"seen": seen, "updates": updates},
            part,
        )
        part.replace(state)
        header = {
            "kind": "detector",
            "architecture": "fcos_mobilenet_v2",
            "config": asdict(config),
            "licence": "research and measurement: see weights/README.md",
            "source": "recipes/train_detector.py",
            "training": {
                "images": seen,
                "of": images,
                "sizes": list(sides),
                "rate": rate,
                "freeze": freeze,
                "negatives": negatives,
                "init": init.name,
                "init_sha256": sha256(init),
                "seed": seed,
            },
        }
        half = {k: v.half() if v.is_floating_point() else v for k, v in average.items()}
        save_weights(out / "person.safetensors", half, header)

    clock, last, logged = time.monotonic(), time.monotonic(), []
    weak_from = int(0.85 * images)
    for pictures, labels in batches(photos, seen, images, batch_size, sides, seed, weak_from):
        for number, block in enumerate(body.children()):
            block.train(number >= freeze)
        fall = max(0.0, (seen / images - 0.4) / 0.6)
        now_rate = rate * min(1.0, (seen + 1) / 1600) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, fall))))
        for group in optimiser.param_groups:
            group["lr"] = now_rate * group["factor"]
        mean = torch.tensor(config.mean, device=device).view(1, 3, 1, 1)
        std = torch.tensor(config.std, device=device).view(1, 3, 1, 1)
        pixels = (pictures.to(device).permute(0, 3, 1, 2).float() - mean) / std
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            outputs = model.head(list(model.backbone(pixels.contiguous(memory_format=torch.channels_last)).values()))
        parts = losses(outputs, labels, *places[pictures.shape[1]])
        loss = sum(parts)
        if not torch.isfinite(loss):
            raise click.ClickException(f"loss is {float(loss)} after {seen} pictures")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seen, updates = seen + len(labels), updates + 1
        # The average reaches back over a tenth of the run.
        decay = min(1 - 10 * batch_size / images, (1 + updates) / (10 + updates))
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if tensor.is_floating_point():
                    average[name].lerp_(tensor, 1 - decay)
                else:
                    average[name].copy_(tensor)
        logged.append([float(part.detach()) for part in parts])
        if len(logged) == 25:
            now = time.monotonic()
            focal, giou, quality = np.mean(logged, axis=0)
            row = {"images": seen, "focal": focal, "giou": giou, "quality": quality, "rate": now_rate}
            row["per_second"] = 25 * batch_size / (now - clock)
            print(json.dumps({k: round(float(v), 5) for k, v in row.items()}), flush=True)
            clock, logged = now, []
        if time.monotonic() - last > 120:
            save()
            last = time.monotonic()
    save()


if __name__ == "__main__":
    main()
