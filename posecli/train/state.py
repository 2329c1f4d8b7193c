"""State of a pose model's training: stages, freezing, checkpoints, export of weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC, resample_classifiers
from posecli.train.distributed import Distributed
from posecli.train.engine import Engine, MovingAverage, parameter_groups, read_checkpoint, write_checkpoint
from posecli.train.init import Init, build_model
from posecli.train.objective import HeadsOnly
from posecli.train.recipe import Recipe, Stage
from posecli.weights.files import save_weights

HEADS = ("person_score", "box_head")


@dataclass(frozen=True)
class Placement:
    """Device of this process, its rank among all processes, and whether the network is compiled (torch.compile)."""

    device: torch.device
    distributed: Distributed = field(default_factory=Distributed)
    compiled: bool = False


@dataclass
class State:
    """What a checkpoint holds.

    stage: number of the current stage. config: of its model. best: highest AP so far, -1 before the first evaluation.
    evaluated: samples at the last evaluation.
    """

    stage: int
    config: PoseConfig
    engine: Engine
    best: float = -1.0
    evaluated: int = 0

    @property
    def samples(self) -> int:
        """Number of samples seen so far."""
        return self.engine.samples

    def averaged_model(self) -> SimCC:
        """The network with the moving average of the weights, in evaluation mode."""
        model = SimCC(self.config).to(self.engine.device)
        model.load_state_dict(self.engine.average.state)
        return model.eval()


def stage_config(recipe: Recipe, stage: Stage) -> PoseConfig:
    """The model's configuration in a stage; the label's width relative to the crop is constant."""
    ratio = stage.input_size[0] / recipe.model.input_size[0]
    sigma_x, sigma_y = (stage.sigma, stage.sigma) if stage.sigma else (s * ratio for s in recipe.model.sigma)
    return replace(recipe.model, input_size=stage.input_size, sigma=(sigma_x, sigma_y))


def freeze(model: SimCC, blocks: int) -> None:
    """Freeze the first blocks of the backbone, with the running statistics of batch norms."""
    for i, block in enumerate(model.backbone.children()):
        block.requires_grad_(i >= blocks)
        block.train(i >= blocks and model.training)


def freeze_all_but_heads(model: SimCC) -> None:
    """Freeze everything but person score and box head, with the running statistics of batch norms."""
    for name, child in model.named_children():
        trained = name in HEADS
        child.requires_grad_(trained)
        child.train(trained and model.training)


def first_state(recipe: Recipe, init: Init | None, placement: Placement) -> State:
    """The state before the first sample."""
    config = stage_config(recipe, recipe.stages[0])
    model, _ = build_model(config, init, marginal=recipe.marginal_start, seed=recipe.seed)
    return State(0, config, _engine(recipe, 0, model, placement))


def next_stage(state: State, recipe: Recipe, placement: Placement) -> State:
    """The state of the next stage: initialised with the average, with classifiers resampled to the new input size."""
    number = state.stage + 1
    config = stage_config(recipe, recipe.stages[number])
    model = SimCC(config)
    model.load_state_dict(resample_classifiers(state.engine.average.state, state.config, config))
    engine = _engine(recipe, number, model, placement)
    engine.samples = state.samples
    return State(number, config, engine, state.best, state.evaluated)


def save(state: State, folder: Path, header: Mapping[str, Any] | None) -> None:
    """Write state.pt, for resuming, and last.safetensors."""
    document = {"stage": state.stage, "best": state.best, "evaluated": state.evaluated}
    write_checkpoint(folder / "state.pt", {**document, **state.engine.state_dict()})
    export(folder / "last.safetensors", state, header)


def restore(recipe: Recipe, folder: Path, placement: Placement) -> State | None:
    """The saved state, None without one. Raises DataError for a file that is not a checkpoint."""
    saved = read_checkpoint(folder / "state.pt")
    if saved is None:
        return None
    number = cast(int, saved["stage"])
    config = stage_config(recipe, recipe.stages[number])
    engine = _engine(recipe, number, SimCC(config), placement)
    engine.load_state_dict(saved)
    return State(number, config, engine, saved["best"], saved["evaluated"])


def export(path: Path, state: State, header: Mapping[str, Any] | None) -> None:
    """Write the averaged weights in half precision."""
    document = {"kind": "pose", "config": state.config.to_json(), **(header or {})}
    document["training"] = {**document.get("training", {}), "samples": state.samples}
    save_weights(path, state.engine.average.half(), document)


def _engine(recipe: Recipe, number: int, model: SimCC, placement: Placement) -> Engine:
    """The engine at the start of a stage."""
    model.to(placement.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    freeze(model, recipe.stages[number].freeze)
    if recipe.heads_only:
        freeze_all_but_heads(model)
    if model.person_score is not None and not recipe.negatives_share:
        model.person_score.requires_grad_(False)  # there are no negatives to train it
    groups = parameter_groups(
        model,
        weight_decay=recipe.weight_decay,
        backbone_prefix="backbone.",
        backbone_lr_factor=recipe.backbone_lr_factor,
    )
    return Engine(
        model,
        # One kernel for all parameters on a GPU.
        torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True if placement.device.type == "cuda" else None),
        MovingAverage(model, recipe.ema),
        clip=recipe.clip,
        accumulate=recipe.accumulate,
        network=HeadsOnly(model) if recipe.heads_only else None,
        distributed=placement.distributed,
        compiled=placement.compiled,
    )
