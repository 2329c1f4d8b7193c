"""Where a run is, and its way to disk and back."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC, resample_classifiers
from posecli.train.recipe import Recipe, Stage
from posecli.train.start import Start, build_model
from posecli.weights.files import save_weights
from posecli.weights.old_names import current_tensors


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


@dataclass
class State:
    """All that resuming needs.

    seen: samples so far. best: highest AP so far, -1 before the first. judged: samples at the last evaluation. whole:
    not in the middle of a step, whose batch norms, weights and samples seen do not fit together.
    """

    stage: int
    seen: int
    best: float
    config: PoseConfig
    model: SimCC
    optimiser: torch.optim.AdamW
    average: Average
    judged: int = 0
    whole: bool = True


def stage_config(recipe: Recipe, stage: Stage) -> PoseConfig:
    """The model's configuration in a stage: the label keeps its width relative to the crop."""
    ratio = stage.input_size[0] / recipe.model.input_size[0]
    sigma_x, sigma_y = (stage.sigma, stage.sigma) if stage.sigma else (s * ratio for s in recipe.model.sigma)
    return replace(recipe.model, input_size=stage.input_size, sigma=(sigma_x, sigma_y))


def freeze(model: SimCC, blocks: int) -> None:
    """Keep the first blocks of the backbone as they are, running statistics of batch norms too."""
    for i, block in enumerate(model.backbone.children()):
        block.requires_grad_(i >= blocks)
        block.train(i >= blocks and model.training)


HEADS = ("person_score", "box_head")


def freeze_all_but_heads(model: SimCC) -> None:
    """Keep everything but the person score and the box head as it is, running statistics of batch norms too."""
    for name, child in model.named_children():
        trained = name in HEADS
        child.requires_grad_(trained)
        child.train(trained and model.training)


def parameter_groups(model: SimCC, recipe: Recipe) -> list[dict[str, Any]]:
    """Backbone and head, with and without weight decay (none on norms and biases)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if decays else 0.0,
            "factor": recipe.trunk_rate if backbone else 1.0,
        }
        for (backbone, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def first_state(recipe: Recipe, start: Start | None, where: torch.device) -> State:
    """The state before the first sample."""
    config = stage_config(recipe, recipe.stages[0])
    model, _ = build_model(config, start, marginal=recipe.marginal_start, seed=recipe.seed)
    return _begin(recipe, 0, 0, -1.0, model, where)


def next_stage(state: State, recipe: Recipe, where: torch.device) -> State:
    """The next stage starts from the average, its classifiers resampled to the new input size."""
    config = stage_config(recipe, recipe.stages[state.stage + 1])
    model = SimCC(config)
    model.load_state_dict(resample_classifiers(state.average.state, state.config, config))
    following = _begin(recipe, state.stage + 1, state.seen, state.best, model, where)
    following.judged = state.judged
    return following


def save(state: State, folder: Path, header: Mapping[str, Any] | None) -> None:
    """Write state.pt, from which the run resumes, and last.safetensors."""
    target = folder / "state.pt"
    part = target.with_suffix(".part")
    document = {
        "stage": state.stage,
        "seen": state.seen,
        "best": state.best,
        "judged": state.judged,
        "model": state.model.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "average": state.average.state,
        "updates": state.average.updates,
    }
    torch.save(document, part)
    part.replace(target)
    export(folder / "last.safetensors", state, header)


def restore(recipe: Recipe, folder: Path, where: torch.device) -> State | None:
    """The state that save wrote, or None."""
    path = folder / "state.pt"
    if not path.is_file():
        return None
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model = SimCC(stage_config(recipe, recipe.stages[saved["stage"]]))
    model.load_state_dict(current_tensors(saved["model"]))
    state = _begin(recipe, saved["stage"], saved["seen"], saved["best"], model, where)
    state.optimiser.load_state_dict(saved["optimiser"])
    state.average.state = {name: tensor.to(where) for name, tensor in current_tensors(saved["average"]).items()}
    state.average.updates = saved["updates"]
    state.judged = saved.get("judged", state.seen)
    return state


def export(path: Path, state: State, header: Mapping[str, Any] | None) -> None:
    """The averaged weights in half precision."""
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.average.state.items()}
    document = {"kind": "pose", "config": state.config.to_json(), **(header or {})}
    document["training"] = {**document.get("training", {}), "samples": state.seen}
    save_weights(path, half, document)


def averaged_model(state: State, where: torch.device) -> SimCC:
    """The network that is judged and written: the average, ready to run."""
    model = SimCC(state.config).to(where)
    model.load_state_dict(state.average.state)
    return model.eval()


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Add a line to a CSV file, with a header where it is new."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def cut_rows(path: Path, seen: int) -> None:
    """Drop the lines after the state that a killed run resumes from, so that none stands there twice."""
    if path.is_file():
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        kept = rows[:1] + [row for row in rows[1:] if row and int(row[0]) <= seen]
        part = path.with_name(f"{path.name}.part")
        with part.open("w", newline="") as file:
            csv.writer(file).writerows(kept)
        part.replace(path)


def _begin(recipe: Recipe, number: int, seen: int, best: float, model: SimCC, where: torch.device) -> State:
    stage = recipe.stages[number]
    model.to(where, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    freeze(model, stage.freeze)
    if recipe.heads_only:
        freeze_all_but_heads(model)
    optimiser = torch.optim.AdamW(parameter_groups(model, recipe), lr=recipe.learning_rate)
    return State(number, seen, best, stage_config(recipe, stage), model, optimiser, Average(model, recipe.ema))


def normalise(crops: Tensor, config: PoseConfig, device: torch.device) -> Tensor:
    """uint8 RGB (N, H, W, 3) → normalised float (N, 3, H, W), channels last in memory."""
    preprocessing = config.preprocessing
    pixels = crops.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    if preprocessing.channels == "BGR":
        pixels = pixels.flip(1)
    mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
