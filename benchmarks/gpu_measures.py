"""The measurements of gpu.py: agreement with the CPU path, networks, stages, whole predictions, training."""

import csv
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from posecli import geometry
from posecli.detect import load_detector
from posecli.detect.embedded import canvas_shape
from posecli.detect.resident import letterbox_places
from posecli.device.images import upload
from posecli.device.sampling import sample_crops
from posecli.keypoints import COCO17
from posecli.pose.config import PoseConfig
from posecli.pose.crops import cut_crops
from posecli.pose.estimator import load_estimator
from posecli.pose.loading import load_network
from posecli.pose.network import PixelNetwork, SimCC, for_inference
from posecli.predict import Predictor
from posecli.runtime.fixed_batch import CapturedFunction
from posecli.runtime.lanes import working
from posecli.runtime.prepare import prepare
from posecli.train.data import People
from posecli.train.loop import train
from posecli.train.packing import Crops
from posecli.train.recipe import Recipe, Stage
from posecli.types import Poses
from posecli.weights.files import find_weights

Row = dict[str, Any]
Pixels = NDArray[np.uint8]
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Setting:
    """device: torch's name. quick: tiny sizes, which show that everything runs. samples: folder of photos."""

    device: str
    quick: bool
    samples: Path

    @property
    def where(self) -> torch.device:
        """The device as torch has it."""
        return torch.device(self.device)

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.where.type == "cuda":
            torch.cuda.synchronize(self.where)

    def seconds(self, work: Callable[[], object]) -> float:
        """Median time of a call, with the device's work."""
        least_time, found = 0.02 if self.quick else 1.0, list[float]()
        for _ in range(1 if self.quick else 3):
            work()
        self.synchronise()
        while sum(found) < least_time or len(found) < 2:
            start = time.perf_counter()
            work()
            self.synchronise()
            found.append(time.perf_counter() - start)
        return float(np.median(found))

    def photos(self) -> list[Pixels]:
        """The samples, RGB."""
        found = [cv2.imread(str(path)) for path in sorted(self.samples.glob("*.jpg"))]
        return [np.ascontiguousarray(image[..., ::-1]) for image in found if image is not None]

    def scenes(self, count: int) -> list[Pixels]:
        """Pictures of 1920x1080 with the samples' people in many places."""
        photos, random = self.photos(), np.random.default_rng(0)
        height, width = (270, 480) if self.quick else (1080, 1920)
        scenes = []
        for _ in range(count):
            scene = np.full((height, width, 3), 90, np.uint8)
            for column in range(3):
                photo = photos[int(random.integers(len(photos)))]
                scale = random.uniform(0.6, 1) * min(height / photo.shape[0], width / 3 / photo.shape[1])
                small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                top = int(random.integers(height - small.shape[0] + 1))
                scene[top : top + small.shape[0], column * width // 3 :][:, : small.shape[1]] = small
            scenes.append(scene)
        return scenes


# ---- agreement ------------------------------------------------------------------------------------------


def agreement(setting: Setting) -> Iterator[Row]:
    """The path on the device against numpy and OpenCV on the CPU: levels of crops, pixels of keypoints."""
    photos = setting.photos()
    if setting.quick:
        photos = [photos[0][::2, ::2].copy()]
    yield _crops_agreement(setting, photos)
    names = ("pose-fast",) if setting.quick else ("pose", "pose-fast")
    for name in names:
        on_cpu = Predictor(
            load_detector(device="cpu", runtime="torch"), load_estimator(name, device="cpu", runtime="torch")
        )
        expected = on_cpu(photos)
        for precision in ("fp32",) if setting.quick else PRECISIONS:
            options: dict[str, Any] = {"device": setting.device, "precision": _name(setting, precision)}
            resident = Predictor(
                load_detector(**options, resident=True), load_estimator(name, **options, resident=True)
            )
            found = resident(photos)
            alone = [resident(photo) for photo in photos]
            yield {
                "of": f"{name}, {precision}",
                **_apart(expected, found),
                "same bytes alone": all(_bytes(a) == _bytes(b) for a, b in zip(found, alone, strict=True)),
            }


def _name(setting: Setting, precision: str) -> str:
    """The value of --precision; float16 is what "auto" is on a GPU."""
    return "auto" if precision == "fp16" else precision


def _crops_agreement(setting: Setting, photos: Sequence[Pixels]) -> Row:
    random = np.random.default_rng(0)
    boxes = []
    for photo in photos:
        size = np.array(photo.shape[1::-1])
        corner = random.uniform(-0.1, 0.6, (16, 2)) * size
        boxes.append(np.concatenate([corner, corner + random.uniform(0.1, 0.9, (16, 2)) * size], 1).astype(np.float32))
    expected, matrices = cut_crops(photos, boxes, (256, 192), 1.25)
    places = [place for place in upload(photos, setting.where) for _ in range(16)]
    apart = np.abs(expected.astype(int) - sample_crops(places, matrices, (256, 192)).cpu().numpy().astype(int))
    return {
        "of": "crops",
        "largest difference in levels": int(apart.max()),
        "share of pixels": float((apart > 0).mean()),
    }


def _apart(expected: Sequence[Poses], found: Sequence[Poses]) -> Row:
    """Keypoints with a score above 0.3 of people that both have."""
    pixels, matched = [], 0
    for a, b in zip(expected, found, strict=True):
        overlap = geometry.iou(a.boxes, b.boxes)
        for row in range(len(a)):
            if len(b) and overlap[row].max() > 0.5:
                matched += 1
                distance = np.linalg.norm(a.keypoints[row] - b.keypoints[int(overlap[row].argmax())], axis=-1)
                pixels.append(distance[a.scores[row] > 0.3])
    every = np.concatenate(pixels) if pixels else np.zeros(1)
    return {
        "people on the CPU": sum(map(len, expected)),
        "on the device": sum(map(len, found)),
        "in both": matched,
        "median px": float(np.median(every)),
        "95 % px": float(np.quantile(every, 0.95)),
        "largest px": float(every.max(initial=0)),
    }


def _bytes(poses: Poses) -> bytes:
    return poses.keypoints.tobytes() + poses.boxes.tobytes() + poses.scores.tobytes()


# ---- networks -------------------------------------------------------------------------------------------


def networks(setting: Setting, peaks: dict[str, float], batches: Sequence[int]) -> Iterator[Row]:
    """People/s of networks alone, as they run in a prediction, against float32 in eager mode one person a call."""
    for name, network, config in _models(setting):
        module = PixelNetwork(for_inference(network), config).eval()
        flops = _flops(module, config)
        random = torch.randint(0, 256, (max(batches), *config.input_size, 3), dtype=torch.uint8)
        eager = module.to(setting.where)
        one = random[:1].to(setting.where)
        with torch.inference_mode():
            base = 1 / setting.seconds(lambda eager=eager, one=one: eager(one))  # type: ignore[misc]
        yield {"network": name, "precision": "fp32, eager", "batch": 1, "people/s": base, "GFLOP a person": flops / 1e9}
        eager.cpu()
        for precision, kind in PRECISIONS.items():
            if setting.quick and precision == "fp16":
                continue
            prepared = prepare(module, setting.where, kind)
            for batch in batches:
                try:
                    speed = batch / _captured_seconds(setting, prepared, random[:batch])
                except torch.OutOfMemoryError:
                    yield {"network": name, "precision": precision, "batch": batch, "error": "out of memory"}
                    break
                yield {
                    "network": name,
                    "precision": precision,
                    "batch": batch,
                    "people/s": speed,
                    "times eager": speed / base,
                    "TFLOP/s": speed * flops / 1e12,
                    "share of peak": speed * flops / 1e9 / peaks[kind] if peaks.get(kind) else None,
                }


def compiled_network(setting: Setting, peaks: dict[str, float], batch: int) -> Iterator[Row]:
    """The first network by torch.compile: what its fused kernels would bring."""
    name, network, config = next(iter(_models(setting)))
    module = PixelNetwork(network, config).eval()
    flops, random = _flops(module, config), torch.randint(0, 256, (batch, *config.input_size, 3), dtype=torch.uint8)
    for precision in ("bf16", "fp16"):
        kind = PRECISIONS[precision]
        prepared = prepare(module, setting.where, kind, compiled=True)
        speed = batch / _captured_seconds(setting, prepared, random)
        share = speed * flops / 1e9 / peaks[kind] if peaks.get(kind) else None
        yield {
            "network": f"{name}, torch.compile",
            "precision": precision,
            "batch": batch,
            "people/s": speed,
            "TFLOP/s": speed * flops / 1e12,
            "share of peak": share,
        }


def _models(setting: Setting) -> Iterator[tuple[str, SimCC, PoseConfig]]:
    """Networks of random weights, and the embedded one of Lite-HRNet."""
    size, deconv = ((64, 64), (16,)) if setting.quick else ((256, 192), (256, 256, 256))
    for backbone, channels in (("resnet18" if setting.quick else "resnet50", deconv), ("mobilenet_v2", deconv)):
        config = PoseConfig(backbone=backbone, deconv_channels=channels, input_size=size, sigma=(6.0, 6.0))
        yield f"{backbone}, {len(channels)} deconvolutions, {size[0]}x{size[1]}", SimCC(config), config
        if setting.quick:
            return
    network, config = load_network(find_weights("pose"))
    yield f"pose (lite_hrnet), {config.input_size[0]}x{config.input_size[1]}", network, config


def _flops(module: torch.nn.Module, config: PoseConfig) -> float:
    """Floating-point operations of one crop: twice the products of convolutions and linear layers."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(torch.zeros((1, *config.input_size, 3), dtype=torch.uint8))
    return float(counter.get_total_flops())


def _captured_seconds(setting: Setting, prepared: Callable[..., Any], crops: torch.Tensor) -> float:
    with working(setting.where):
        inputs = (crops.to(setting.where),)
        captured = CapturedFunction(lambda pixels: torch.cat([v.flatten(1) for v in prepared(pixels)[:2]], 1), inputs)
        return setting.seconds(lambda: captured(inputs))


# ---- stages and whole predictions -----------------------------------------------------------------------


def stages(setting: Setting) -> Iterator[Row]:
    """Images or people a second by stage, one thread, and of the whole prediction."""
    scenes = setting.scenes(1 if setting.quick else 8)
    precision = "fp32" if setting.where.type == "cpu" else "auto"
    options: dict[str, Any] = {"device": setting.device, "precision": precision, "resident": True}
    name = "pose-fast" if setting.quick else "pose"
    predictor = Predictor(load_detector(**options), load_estimator(name, **options))
    poses = predictor(scenes)
    boxes = np.concatenate([found.boxes for found in poses])
    owners = np.repeat(np.arange(len(scenes)), [len(found) for found in poses])
    shape, config = canvas_shape(scenes[0].shape[:2], (448, 448)), predictor.estimator.config
    places = upload(scenes, setting.where)
    matrices = geometry.crop_matrices(boxes, config.input_size, 1.25)
    people = [places[owner] for owner in owners]
    with torch.inference_mode():
        for stage, unit, count, work in (
            ("upload", "frames", len(scenes), lambda: upload(scenes, setting.where)),
            ("letterbox", "frames", len(scenes), lambda: letterbox_places(places, shape)),
            ("crops", "people", len(people), lambda: sample_crops(people, matrices, config.input_size)),
        ):
            if count:
                yield {"stage": stage, "of": unit, "a second": count / setting.seconds(work)}
    seconds = setting.seconds(lambda: predictor.detector.find(predictor_frames(scenes), [""] * len(scenes)))
    yield {"stage": "detector with letterbox and NMS", "of": "frames", "a second": len(scenes) / seconds}
    seconds = setting.seconds(lambda: predictor(scenes))
    yield {"stage": "whole prediction", "of": "frames", "a second": len(scenes) / seconds}
    yield {"stage": "whole prediction", "of": "people", "a second": len(boxes) / seconds}
    on_cpu = Predictor(
        load_detector(device="cpu", runtime="torch"), load_estimator(name, device="cpu", runtime="torch")
    )
    seconds = setting.seconds(lambda: on_cpu(scenes[:1]))
    yield {"stage": "whole prediction on this CPU, torch", "of": "frames", "a second": 1 / seconds}


def predictor_frames(scenes: Sequence[Pixels]) -> list[Any]:
    """New frames, so that each call uploads them."""
    from posecli.types import Frame

    return [Frame(scene) for scene in scenes]


# ---- training -------------------------------------------------------------------------------------------


def training(setting: Setting, workers: int) -> Iterator[Row]:
    """Samples/s of a training, its rows after the first, with crops on the device or made by numpy."""
    crops = _people(setting, 24 if setting.quick else 2048)
    steps, batch, size = (3, 4, (64, 64)) if setting.quick else (301, 128, (256, 192))
    for backbone, deconv in (("mobilenet_v2", (128,)), ("resnet50", (256, 256, 256))):
        for on_device in (True, False) if backbone == "mobilenet_v2" else (True,):
            model = PoseConfig(
                backbone=backbone, deconv_channels=deconv if not setting.quick else (8,), input_size=size
            )
            precision = "bf16" if setting.where.type == "cuda" else "fp32"
            recipe = Recipe(model, (Stage(size, steps * batch, batch),), precision=precision)
            with tempfile.TemporaryDirectory() as folder:
                train(
                    recipe, crops, Path(folder), device=setting.device, workers=workers, device_augmentation=on_device
                )
                with (Path(folder) / "metrics.csv").open() as file:
                    rows = list(csv.DictReader(file))
            speeds = [float(row["samples_per_s"]) for row in rows[1:] or rows]
            yield {
                "training": f"{backbone}, {size[0]}x{size[1]}, batch {batch}, {precision}",
                "augmentation": "device" if on_device else f"numpy, {workers} processes",
                "samples/s": float(np.median(speeds)),
                "waiting": float(np.median([float(row["waiting"]) for row in rows[1:] or rows])),
            }
            if setting.quick:
                return


def _people(setting: Setting, count: int) -> Crops:
    """People at random places in the samples, packed as JPEG."""
    photos, random = setting.photos(), np.random.default_rng(0)
    height, width = (96, 72) if setting.quick else (384, 288)
    box = np.array([0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height])
    jpegs = []
    for _ in range(count):
        photo = photos[int(random.integers(len(photos)))]
        top, left = (
            int(random.integers(max(1, side - least)))
            for side, least in zip(photo.shape, (height, width), strict=False)
        )
        part = cv2.resize(photo[top : top + height, left : left + width], (width, height))
        jpegs.append(cv2.imencode(".jpg", part[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].ravel())
    names = tuple(str(i) for i in range(count))
    points = random.uniform(box[:2], box[2:], (count, 17, 2))
    people = People(COCO17, tuple(map(Path, names)), names, np.tile(box, (count, 1)), points, np.ones((count, 17)))
    ends = np.cumsum([len(jpeg) for jpeg in jpegs])
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    return Crops(people, np.concatenate(jpegs), spans, np.zeros((count, 5), np.uint8))
