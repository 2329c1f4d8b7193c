"""The training loop: stages, optimiser, averaging, checkpoints."""

import csv
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posecli.errors import DataError, PosecliError
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
        pending = [pool.submit(prepare, first) for first in islice(starts, 2)]
        while pending:
            batch = pending.pop(0).result()
            following = next(starts, None)
            if following is not None:
                pending.append(pool.submit(prepare, following))
            yield batch


@dataclass
class State:
    """Where a run is: all that resuming needs."""

    stage: int
    seen: int
    best: float
    config: PoseConfig
    model: SimCC
    optimiser: torch.optim.AdamW
    average: "Average"


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


def train(
    recipe: Recipe,
    crops: Crops,
    folder: Path,
    *,
    trunk_state: Mapping[str, Tensor] | None = None,
    device: str = "cpu",
    evaluate: Evaluate | None = None,
    evaluate_every: int = 50_000,
    checkpoint_seconds: float = 120,
    report: Callable[[dict[str, float]], None] = lambda row: None,
    header: Mapping[str, Any] | None = None,
) -> Path:
    """Train through all stages, resuming where folder holds a state; the path of the last weights.

    Writes metrics.csv, evaluations.csv, state.pt (for resuming), last.safetensors and best.safetensors (by
    AP) into folder. Ctrl-C saves before it leaves. Raises PosecliError on a loss that is not finite, with the
    batch's people named in bad_batch.csv.
    """
    folder.mkdir(parents=True, exist_ok=True)
    where = torch.device(device)
    state = _restore(recipe, folder / "state.pt", where)
    if state is None:
        model = build_model(stage_config(recipe, recipe.stages[0]), trunk_state, recipe.marginal_start, recipe.seed)
        state = _begin(recipe, 0, 0, -1.0, model, where)
    try:
        while True:
            _run_stage(
                state, recipe, crops, folder, where, evaluate, evaluate_every, checkpoint_seconds, report, header
            )
            if state.stage + 1 == len(recipe.stages):
                break
            state = _next_stage(state, recipe, where)
    finally:
        _save(state, folder, header)
    return folder / "last.safetensors"


def stage_config(recipe: Recipe, stage: Stage) -> PoseConfig:
    """The model's configuration in a stage: the label keeps its width relative to the crop."""
    ratio = stage.input_size[0] / recipe.model.input_size[0]
    sigma_x, sigma_y = (stage.sigma, stage.sigma) if stage.sigma else (s * ratio for s in recipe.model.sigma)
    return replace(recipe.model, input_size=stage.input_size, sigma=(sigma_x, sigma_y))


def build_model(config: PoseConfig, trunk_state: Mapping[str, Tensor] | None, marginal: bool, seed: int) -> SimCC:
    """A new model, its trunk from a torchvision state where given. Raises DataError if that does not fit."""
    torch.manual_seed(seed)
    model = SimCC(config)
    if trunk_state is not None:
        own = model.trunk.state_dict()
        found = {name.removeprefix("features."): tensor for name, tensor in trunk_state.items()}
        missing = [name for name in own if name not in found or found[name].shape != own[name].shape]
        if missing:
            raise DataError(f"the trunk's weights lack {len(missing)} tensors of {config.backbone}, first {missing[0]}")
        model.trunk.load_state_dict({name: found[name] for name in own})
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


def normalise(crops: Tensor, config: PoseConfig, device: torch.device) -> Tensor:
    """uint8 RGB (N, H, W, 3) → normalised float (N, 3, H, W), channels last in memory."""
    preprocessing = config.preprocessing
    pixels = crops.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    if preprocessing.channels == "BGR":
        pixels = pixels.flip(1)
    mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


def _begin(recipe: Recipe, number: int, seen: int, best: float, model: SimCC, where: torch.device) -> State:
    stage = recipe.stages[number]
    model.to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    freeze(model, stage.freeze)
    optimiser = torch.optim.AdamW(parameter_groups(model, recipe), lr=recipe.learning_rate)
    return State(number, seen, best, stage_config(recipe, stage), model, optimiser, Average(model, recipe.ema))


def _next_stage(state: State, recipe: Recipe, where: torch.device) -> State:
    """The next stage starts from the average, its classifiers resampled to the new input size."""
    config = stage_config(recipe, recipe.stages[state.stage + 1])
    model = SimCC(config)
    model.load_state_dict(resample_classifiers(state.average.state, state.config, config))
    return _begin(recipe, state.stage + 1, state.seen, state.best, model, where)


def _run_stage(
    state: State,
    recipe: Recipe,
    crops: Crops,
    folder: Path,
    where: torch.device,
    evaluate: Evaluate | None,
    evaluate_every: int,
    checkpoint_seconds: float,
    report: Callable[[dict[str, float]], None],
    header: Mapping[str, Any] | None,
) -> None:
    stage = recipe.stages[state.stage]
    start = sum(earlier.samples for earlier in recipe.stages[: state.stage])
    end = start + stage.samples
    last_save = clock = time.monotonic()
    clock_seen, losses = state.seen, []
    for batch in batches(crops, recipe, stage, state.seen, end):
        # A new optimiser warms up again.
        warm = min(1.0, (state.seen - start + 1) / max(1, recipe.warmup_samples / 2))
        rate = recipe.rate_at(state.seen) * stage.rate * warm
        losses.append(_step(state, batch, recipe, rate, where))
        if not np.isfinite(losses[-1]):
            bad = folder / "bad_batch.csv"
            bad.write_text("\n".join(crops.people.ids[row] for row in batch.rows) + "\n")
            raise PosecliError(f"loss is {losses[-1]} after {state.seen} samples; the batch's people are in {bad}")
        state.seen += len(batch.rows)
        now = time.monotonic()
        if len(losses) == 50 or state.seen >= end:
            speed = (state.seen - clock_seen) / (now - clock)
            row = {"samples": state.seen, "stage": state.stage, "loss": float(np.mean(losses)), "rate": rate}
            _append_row(folder / "metrics.csv", row | {"samples_per_s": round(speed, 1)})
            report(row | {"samples_per_s": speed})
            clock, clock_seen, losses = now, state.seen, []
        passed = state.seen // evaluate_every > (state.seen - len(batch.rows)) // evaluate_every
        if evaluate is not None and (passed or state.seen >= recipe.samples):
            _evaluate(state, evaluate, folder, where, report, header)
            clock, clock_seen = time.monotonic(), state.seen
        if now - last_save > checkpoint_seconds:
            _save(state, folder, header)
            last_save = now


def _step(state: State, batch: Batch, recipe: Recipe, rate: float, where: torch.device) -> float:
    """One update; the loss, which is applied only where it is finite."""
    config = state.config
    for group in state.optimiser.param_groups:
        group["lr"] = rate * group["factor"]
    with torch.autocast(where.type, torch.bfloat16):
        logits = state.model(normalise(batch.crops, config, where))
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
    if np.isfinite(value):
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip)
        state.optimiser.step()
        state.optimiser.zero_grad(set_to_none=True)
        state.average.update(state.model)
    return value


def _evaluate(
    state: State,
    evaluate: Evaluate,
    folder: Path,
    where: torch.device,
    report: Callable[[dict[str, float]], None],
    header: Mapping[str, Any] | None,
) -> None:
    judged = SimCC(state.config).to(where)
    judged.load_state_dict(state.average.state)
    scores = evaluate(judged.eval(), state.config)
    row = {"samples": state.seen, "stage": state.stage, **scores}
    _append_row(folder / "evaluations.csv", row)
    report(row)
    if scores["AP"] > state.best:
        state.best = scores["AP"]
        _export(folder / "best.safetensors", state, header)


def _save(state: State, folder: Path, header: Mapping[str, Any] | None) -> None:
    target = folder / "state.pt"
    part = target.with_suffix(".part")
    document = {
        "stage": state.stage,
        "seen": state.seen,
        "best": state.best,
        "model": state.model.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "average": state.average.state,
        "updates": state.average.updates,
    }
    torch.save(document, part)
    part.replace(target)
    _export(folder / "last.safetensors", state, header)


def _restore(recipe: Recipe, path: Path, where: torch.device) -> State | None:
    if not path.is_file():
        return None
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model = SimCC(stage_config(recipe, recipe.stages[saved["stage"]]))
    model.load_state_dict(saved["model"])
    state = _begin(recipe, saved["stage"], saved["seen"], saved["best"], model, where)
    state.optimiser.load_state_dict(saved["optimiser"])
    state.average.state = {name: tensor.to(where) for name, tensor in saved["average"].items()}
    state.average.updates = saved["updates"]
    return state


def _append_row(path: Path, row: Mapping[str, float]) -> None:
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def _export(path: Path, state: State, header: Mapping[str, Any] | None) -> None:
    """The averaged weights in half precision."""
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.average.state.items()}
    document = {"kind": "pose", "config": state.config.to_json(), **(header or {})}
    document["training"] = {**document.get("training", {}), "samples": state.seen}
    save_weights(path, half, document)
