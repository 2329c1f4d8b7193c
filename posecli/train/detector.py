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
from posecli.detect.person import PersonConfig, build_fcos, locations
from posecli.errors import DataError
from posecli.train.detector_augment import draw_picture
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
# The moving average reaches back over a tenth of the run.
_AVERAGED_FRACTION = 0.1


@dataclass(frozen=True)
class DetectorRecipe:
    """All that decides the outcome of a detector's training besides its data and its start.

    model: what the weights' header will say. samples: pictures seen in all. sizes: sides of the square training
    pictures, a batch each in turn, multiples of 32. mosaic_p: chance of four photos in one picture, until
    plain_fraction of the run is left.
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
        """Plain values for the weights' header."""
        values = asdict(self)
        return {**values, "sizes": list(self.sizes)}


@dataclass(frozen=True)
class DetectionBatch:
    """pictures (N, side, side, 3) uint8 RGB, labels of each, ids: the files that they began with."""

    pictures: Tensor
    labels: tuple[Labels, ...]
    ids: tuple[str, ...]

    @property
    def samples(self) -> int:
        """How many pictures."""
        return len(self.ids)

    def parts(self, count: int) -> "list[DetectionBatch]":
        """The batch whole: its losses are divided by what all of its pictures learn."""
        return [self]


def detection_batches(photos: Sequence[Photo], recipe: DetectorRecipe, start: int) -> Iterator[DetectionBatch]:
    """The batches after `start` samples, each prepared in another thread while the one before is learned."""
    photos = list(photos)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(draw_batch, photos, recipe, start)
        for first in range(start, recipe.samples, recipe.batch_size):
            ready, ahead = ahead, pool.submit(draw_batch, photos, recipe, first + recipe.batch_size)
            yield ready.result()


def draw_batch(photos: list[Photo], recipe: DetectorRecipe, first: int) -> DetectionBatch:
    """The batch from sample number `first` on: a function of the recipe alone."""
    side = recipe.sizes[first // recipe.batch_size % len(recipe.sizes)]
    plain = first >= (1 - recipe.plain_fraction) * recipe.samples
    drawn, ids = [], []
    for number in range(first, first + recipe.batch_size):
        index = int(_order(recipe.seed, number // len(photos), len(photos))[number % len(photos)])
        mosaic_p = 0.0 if plain else recipe.mosaic_p
        drawn.append(draw_picture(photos, index, (side, side), mosaic_p, [recipe.seed, number]))
        ids.append(str(photos[index].path))
    pictures = torch.from_numpy(np.stack([picture for picture, _ in drawn]))
    return DetectionBatch(pictures, tuple(labels for _, labels in drawn), tuple(ids))


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 7, epoch]).permutation(count)


class Outputs(nn.Module):
    """A detector's backbone and head, whose state is the weights file's: normalised pictures → the head's outputs."""

    def __init__(self, model: FCOS) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) → class logits, distances and quality over all locations."""
        outputs: dict[str, Tensor] = self.head(list(self.backbone(pixels).values()))
        return outputs


def read_start(path: Path, model: PersonConfig) -> dict[str, Tensor]:
    """Tensors of a detector's weights to start from. Raises DataError where they are of another network."""
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
    start: Mapping[str, Tensor] | None = None,
    device: str = "cpu",
    header: Mapping[str, Any] | None = None,
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> Path:
    """Train, resuming where folder holds a state; the path of the weights.

    start: tensors of read_start, else random ones. header: further values of the weights' header. Writes metrics.csv,
    state.pt and person.safetensors (the moving average, float16) into folder; so does an interruption before it leaves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    where = torch.device(device)
    engine = _begin(recipe, start, where)
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
    with interrupt.working():
        try:
            callbacks = Callbacks(report=report, save=save)
            run_steps(engine, stream, recipe.samples, loss, recipe.schedule().at, folder, callbacks)
        finally:
            if engine.consistent:
                save()
    return weights


def _begin(recipe: DetectorRecipe, start: Mapping[str, Tensor] | None, where: torch.device) -> Engine:
    torch.manual_seed(recipe.seed)
    model = build_fcos(recipe.model)
    if start is not None:
        model.load_state_dict(dict(start))
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
        pixels = (batch.pictures.to(where).permute(0, 3, 1, 2).float() - mean) / std
        outputs = network(pixels.contiguous(memory_format=torch.channels_last))
        centres, strides = locations((pixels.shape[2], pixels.shape[3]), model.strides)
        return detector_losses(outputs, batch.labels, centres.to(where), strides.to(where))

    return loss
