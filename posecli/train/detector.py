"""Training of a person detector: its settings, batches and the run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection import FCOS

from posecli import interrupt
from posecli.detect.person import build_fcos, locations
from posecli.detect.person_config import PersonConfig
from posecli.errors import DataError
from posecli.train.detector_augment import augmented_image
from posecli.train.detector_data import Labels, Photo
from posecli.train.detector_loss import detector_losses
from posecli.train.engine import (
    Callbacks,
    Engine,
    MovingAverage,
    Schedule,
    parameter_groups,
    read_checkpoint,
    run_steps,
    truncate_rows,
    write_checkpoint,
)
from posecli.weights.files import fitting, load_weights, read_config, save_weights

_CLIP = 10.0
# Length of the moving average, as a fraction of the run.
_AVERAGED_FRACTION = 0.1


@dataclass(frozen=True)
class DetectorRecipe:
    """Everything but the data and initial weights that the result of a detector's training depends on.

    model: the configuration for the weights' header. samples: training images in all. sizes: sides of the square
    training images, one for each batch in turn, multiples of 32. mosaic_p: probability of a mosaic of four photos;
    there are none in the last plain_fraction of the run.
    """

    model: PersonConfig = field(default_factory=PersonConfig)
    samples: int = 20_000
    batch_size: int = 16
    sizes: tuple[int, ...] = (320,)
    learning_rate: float = 2e-4
    backbone_lr_factor: float = 0.5
    weight_decay: float = 0.05
    warmup_samples: int = 1600
    constant_fraction: float = 0.3
    mosaic_p: float = 0.4
    plain_fraction: float = 0.15
    seed: int = 0

    def schedule(self) -> Schedule:
        """Learning rate over the samples."""
        return Schedule(self.learning_rate, self.samples, self.warmup_samples, self.constant_fraction)

    def to_json(self) -> dict[str, Any]:
        """JSON values for the weights' header."""
        values = asdict(self)
        return {**values, "sizes": list(self.sizes)}


@dataclass(frozen=True)
class DetectionBatch:
    """images (N, side, side, 3) uint8 RGB, labels of each, ids: file of each one's first photo."""

    images: Tensor
    labels: tuple[Labels, ...]
    ids: tuple[str, ...]

    @property
    def samples(self) -> int:
        """Number of images."""
        return len(self.ids)

    def parts(self, count: int) -> "list[DetectionBatch]":
        """The batch as one part: its losses are normalised over all of its images."""
        return [self]


def detection_batches(photos: Sequence[Photo], recipe: DetectorRecipe, start: int) -> Iterator[DetectionBatch]:
    """The batches from sample number `start` on, each prefetched in a thread."""
    photos = list(photos)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(make_batch, photos, recipe, start)
        for first in range(start, recipe.samples, recipe.batch_size):
            ready, ahead = ahead, pool.submit(make_batch, photos, recipe, first + recipe.batch_size)
            yield ready.result()


def make_batch(photos: list[Photo], recipe: DetectorRecipe, first: int) -> DetectionBatch:
    """The batch from sample number `first` on, a pure function of the recipe."""
    side = recipe.sizes[first // recipe.batch_size % len(recipe.sizes)]
    plain = first >= (1 - recipe.plain_fraction) * recipe.samples
    drawn, ids = [], []
    for number in range(first, first + recipe.batch_size):
        index = int(_order(recipe.seed, number // len(photos), len(photos))[number % len(photos)])
        mosaic_p = 0.0 if plain else recipe.mosaic_p
        drawn.append(augmented_image(photos, index, (side, side), mosaic_p, [recipe.seed, number]))
        ids.append(str(photos[index].path))
    images = torch.from_numpy(np.stack([image for image, _ in drawn]))
    return DetectionBatch(images, tuple(labels for _, labels in drawn), tuple(ids))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 7, epoch]).permutation(count)


class Outputs(nn.Module):
    """A detector's backbone and head, with the state of the weights file: normalised images → the head's outputs."""

    def __init__(self, model: FCOS) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) → class logits, distances and quality over all locations."""
        outputs: dict[str, Tensor] = self.head(list(self.backbone(pixels).values()))
        return outputs


def read_init_tensors(path: Path, model: PersonConfig) -> dict[str, Tensor]:
    """Initial tensors from a detector's weights. Raises DataError where they are of another network."""
    tensors, header = load_weights(path)
    try:
        PersonConfig.from_json(read_config(path, header, "detector"))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    with torch.device("meta"):
        expected = build_fcos(model).state_dict()
    return fitting(path, tensors, expected)


def train_detector(
    recipe: DetectorRecipe,
    photos: Sequence[Photo],
    folder: Path,
    *,
    init: Mapping[str, Tensor] | None = None,
    device: str = "cpu",
    header: Mapping[str, Any] | None = None,
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> Path:
    """Train, resuming where folder holds a state; the path of the weights.

    init: tensors of read_init_tensors, by default random ones. header: further entries of the weights' header. Writes
    metrics.csv, state.pt and person.safetensors (the moving average, float16) into folder, also when interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    where = torch.device(device)
    engine = _new_engine(recipe, init, where)
    state, weights = folder / "state.pt", folder / "person.safetensors"
    if (saved := read_checkpoint(state)) is not None:
        engine.load_state_dict(saved)
        truncate_rows(folder / "metrics.csv", engine.samples)

    def save() -> None:
        write_checkpoint(state, engine.state_dict())
        training = {"recipe": recipe.to_json(), "samples": engine.samples}
        document = {"kind": "detector", "config": asdict(recipe.model), **(header or {})}
        document["training"] = {**document.get("training", {}), **training}
        save_weights(weights, engine.average.half(), document)

    loss = _loss(recipe.model, where)
    stream = detection_batches(photos, recipe, engine.samples)
    with interrupt.interruptible():
        try:
            callbacks = Callbacks(report=report, save=save)
            run_steps(engine, stream, recipe.samples, loss, recipe.schedule().at, folder, callbacks)
        finally:
            if engine.consistent:
                save()
    return weights


def _new_engine(recipe: DetectorRecipe, init: Mapping[str, Tensor] | None, where: torch.device) -> Engine:
    torch.manual_seed(recipe.seed)
    model = build_fcos(recipe.model)
    if init is not None:
        model.load_state_dict(dict(init))
    network = Outputs(model).to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    groups = parameter_groups(
        network,
        weight_decay=recipe.weight_decay,
        backbone_prefix="backbone.body.",
        backbone_lr_factor=recipe.backbone_lr_factor,
    )
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    decay = max(0.0, 1 - recipe.batch_size / (_AVERAGED_FRACTION * recipe.samples))
    return Engine(network, optimiser, MovingAverage(network, decay), clip=_CLIP)


def _loss(model: PersonConfig, where: torch.device) -> Callable[[nn.Module, DetectionBatch], dict[str, Tensor]]:
    mean, std = (torch.tensor(values, device=where).view(1, 3, 1, 1) for values in (model.mean, model.std))

    def loss(network: nn.Module, batch: DetectionBatch) -> dict[str, Tensor]:
        pixels = (batch.images.to(where).permute(0, 3, 1, 2).float() - mean) / std
        outputs = network(pixels.contiguous(memory_format=torch.channels_last))
        centres, strides = locations((pixels.shape[2], pixels.shape[3]), model.strides)
        return detector_losses(outputs, batch.labels, centres.to(where), strides.to(where))

    return loss
