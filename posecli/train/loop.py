"""The training loop: stages, optimiser, averaging, checkpoints."""

import csv
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posecli.errors import PosecliError
from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC, initialise_head, resample_classifiers
from posecli.train.augment import draw_sample
from posecli.train.data import Crops
from posecli.train.loss import kl_sums
from posecli.train.recipe import Recipe, Stage
from posecli.weights.files import save_weights

Evaluate = Callable[[SimCC, PoseConfig], dict[str, float]]


@dataclass(frozen=True)
class Batch:
    """crops (N, H, W, 3) uint8, points (N, K, 2) in crop pixels, weights (N, K)."""

    crops: Tensor
    points: Tensor
    weights: Tensor
    rows: tuple[int, ...]


def sample_order(count: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of samples in an epoch: a pure function of seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def batches(crops: Crops, recipe: Recipe, stage: Stage, start: int, end: int) -> Iterator[Batch]:
    """Batches for samples start to end of the run, prepared one ahead in another thread.

    Sample number n is always the same crop under the same augmentation, wherever a run is resumed.
    """
    order: dict[int, Any] = {}

    def sample(number: int) -> tuple[Any, Any, Any, int]:
        epoch, place = divmod(number, len(crops))
        if epoch not in order:
            order.clear()
            order[epoch] = sample_order(len(crops), recipe.seed, epoch)
        row = int(order[epoch][place])
        people = crops.people
        crop, points, weights = draw_sample(
            crops.pixels(row),
            people.boxes[row],
            people.keypoints[row],
            people.weights[row],
            people.keypoint_set,
            stage.input_size,
            recipe.augmentation_at(number),
            np.random.default_rng([recipe.seed, 1, number]),
            recipe.model.preprocessing.padding,
        )
        return crop, points, weights, row

    def prepare(first: int) -> Batch:
        numbers = range(first, min(first + stage.batch_size, end))
        pixels, points, weights, rows = zip(*map(sample, numbers), strict=True)
        return Batch(
            torch.from_numpy(np.stack(pixels)),
            torch.from_numpy(np.stack(points)).float(),
            torch.from_numpy(np.stack(weights)).float(),
            rows,
        )

    with ThreadPoolExecutor(1) as pool:
        starts = iter(range(start, end, stage.batch_size))
        pending = [pool.submit(prepare, first) for first, _ in zip(starts, range(2), strict=False)]
        while pending:
            batch = pending.pop(0).result()
            following = next(starts, None)
            if following is not None:
                pending.append(pool.submit(prepare, following))
            yield batch


def stage_config(recipe: Recipe, stage: Stage) -> PoseConfig:
    """The model's configuration in a stage: the label keeps its width relative to the crop."""
    ratio = stage.input_size[0] / recipe.model.input_size[0]
    sigma = (
        (stage.sigma, stage.sigma)
        if stage.sigma is not None
        else (recipe.model.sigma[0] * ratio, recipe.model.sigma[1] * ratio)
    )
    return replace(recipe.model, input_size=stage.input_size, sigma=sigma)


def build_model(config: PoseConfig, trunk_state: dict[str, Tensor] | None, marginal: bool, seed: int) -> SimCC:
    """A new model, its trunk from an ImageNet state where given. Raises PosecliError if that does not fit."""
    torch.manual_seed(seed)
    model = SimCC(config)
    if trunk_state is not None:
        names = set(model.trunk.state_dict())
        found = {}
        for name, tensor in trunk_state.items():
            short = name.removeprefix("features.")
            if short in names:
                found[short] = tensor
        if missing := names - set(found):
            raise PosecliError(
                f"the trunk's weights lack {len(missing)} tensors of {config.backbone}, first {min(missing)}"
            )
        model.trunk.load_state_dict(found)
    initialise_head(model, config, marginal)
    return model


def freeze(model: SimCC, blocks: int) -> None:
    """Keep the first blocks of the trunk as they are, running statistics of batch norms too."""
    for i, block in enumerate(model.trunk.children()):
        block.requires_grad_(i >= blocks)
        block.train(i >= blocks and model.training)


def parameter_groups(model: SimCC, recipe: Recipe) -> list[dict[str, Any]]:
    """Trunk and head, with and without weight decay (none on norms and biases)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("trunk."), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "factor": recipe.trunk_rate if trunk else 1.0,
        }
        for (trunk, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


class Average:
    """Exponential moving average of a model's state."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model; young averages move faster."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.state[name].lerp_(tensor, 1 - decay)
            else:
                self.state[name].copy_(tensor)


def normalise(crops: Tensor, config: PoseConfig, device: torch.device) -> Tensor:
    """uint8 RGB (N, H, W, 3) → normalised float (N, 3, H, W), channels last in memory."""
    preprocessing = config.preprocessing
    pixels = crops.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    if preprocessing.channels == "BGR":
        pixels = pixels.flip(1)
    mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def train(
    recipe: Recipe,
    crops: Crops,
    folder: Path,
    *,
    trunk_state: dict[str, Tensor] | None = None,
    device: str = "cpu",
    evaluate: Evaluate | None = None,
    evaluate_every: int = 50_000,
    checkpoint_seconds: float = 120,
    report: Callable[[dict[str, float]], None] = lambda row: None,
    header: dict[str, Any] | None = None,
) -> Path:
    """Train through all stages, resuming where folder holds a state; the path of the last weights.

    Writes metrics.csv, state.pt (resume), last.safetensors and best.safetensors (by AP) into folder.
    Raises PosecliError on a loss that is not finite, with the batch's rows saved in bad_batch.csv.
    """
    folder.mkdir(parents=True, exist_ok=True)
    where = torch.device(device)
    state_file = folder / "state.pt"
    saved = torch.load(state_file, map_location="cpu", weights_only=True) if state_file.is_file() else None
    model_state: dict[str, Tensor] | None = None
    seen, best = 0, -1.0
    if saved is not None:
        seen, best = saved["seen"], saved["best"]
    stage_start = 0
    previous: PoseConfig | None = None
    for number, stage in enumerate(recipe.stages):
        stage_end = stage_start + stage.samples
        config = stage_config(recipe, stage)
        if seen >= stage_end and number + 1 < len(recipe.stages):
            stage_start, previous = stage_end, config
            continue
        model = build_model(config, trunk_state, recipe.marginal_start, recipe.seed)
        if saved is not None and saved["stage"] == number:
            model.load_state_dict(saved["model"])
        elif saved is not None and previous is not None:
            model.load_state_dict(resample_classifiers(saved["average"], previous, config))
        elif model_state is not None and previous is not None:
            model.load_state_dict(resample_classifiers(model_state, previous, config))
        model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.train()
        freeze(model, stage.freeze)
        optimiser = torch.optim.AdamW(parameter_groups(model, recipe), lr=recipe.learning_rate)
        average = Average(model, recipe.ema)
        if saved is not None and saved["stage"] == number:
            optimiser.load_state_dict(saved["optimiser"])
            average.state = {k: v.to(where) for k, v in saved["average"].items()}
            average.updates = saved["updates"]
        saved = None

        def save(
            number: int = number,
            model: SimCC = model,
            optimiser: Any = optimiser,
            average: Average = average,
            config: PoseConfig = config,
        ) -> None:
            part = state_file.with_suffix(".part")
            torch.save(
                {
                    "stage": number,
                    "seen": seen,
                    "best": best,
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "average": average.state,
                    "updates": average.updates,
                },
                part,
            )
            part.replace(state_file)
            _export(folder / "last.safetensors", average.state, config, seen, header)

        last_save = time.monotonic()
        clock, clock_seen, losses = time.monotonic(), seen, []
        next_evaluation = (seen // evaluate_every + 1) * evaluate_every
        for batch in batches(crops, recipe, stage, seen, stage_end):
            rate = recipe.rate_at(seen) * stage.rate
            warm = min(1.0, (seen - stage_start + 1) / max(1, recipe.warmup_samples / 2))
            for group in optimiser.param_groups:
                group["lr"] = rate * warm * group["factor"]
            with torch.autocast(where.type, torch.bfloat16):
                logits = model(normalise(batch.crops, config, where))
            loss_sum, weight_sum = kl_sums(
                logits,
                batch.points.to(where),
                batch.weights.to(where),
                split_ratio=config.split_ratio,
                sigma=config.sigma,
                temperature=config.temperature,
                smoothing=recipe.smoothing,
            )
            loss = loss_sum / weight_sum.clamp_min(1e-6)
            value = float(loss.detach())
            if not np.isfinite(value):
                (folder / "bad_batch.csv").write_text("\n".join(crops.people.ids[row] for row in batch.rows))
                raise PosecliError(
                    f"loss is {value} after {seen} samples; its people are in {folder / 'bad_batch.csv'}"
                )
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            average.update(model)
            seen += len(batch.rows)
            losses.append(value)
            if len(losses) == 50 or seen >= stage_end:
                now = time.monotonic()
                row = {
                    "samples": seen,
                    "stage": number,
                    "loss": float(np.mean(losses)),
                    "rate": rate,
                    "samples_per_s": (seen - clock_seen) / (now - clock),
                }
                clock, clock_seen, losses = now, seen, []
                _append_row(folder / "metrics.csv", row)
                report(row)
            if evaluate is not None and (seen >= next_evaluation or seen >= recipe.samples):
                next_evaluation += evaluate_every
                judged = SimCC(config).to(where)
                judged.load_state_dict(average.state)
                scores = evaluate(judged.eval(), config)
                _append_row(folder / "evaluations.csv", {"samples": seen, "stage": number, **scores})
                report({"samples": seen, **scores})
                if scores["AP"] > best:
                    best = scores["AP"]
                    _export(folder / "best.safetensors", average.state, config, seen, header)
                clock, clock_seen = time.monotonic(), seen
            if time.monotonic() - last_save > checkpoint_seconds:
                save()
                last_save = time.monotonic()
        save()
        model_state, stage_start, previous = average.state, stage_end, config
    return folder / "last.safetensors"


def _append_row(path: Path, row: dict[str, float]) -> None:
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def _export(path: Path, state: dict[str, Tensor], config: PoseConfig, seen: int, header: dict[str, Any] | None) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    document = {"kind": "pose", "config": config.to_json(), **(header or {})}
    document["training"] = {**document.get("training", {}), "samples": seen}
    save_weights(path, half, document)
