"""The training loop: stages, steps, evaluations, checkpoints."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from posecli import interrupt
from posecli.errors import PosecliError
from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC
from posecli.train.batches import Batch, batches
from posecli.train.heads import box_loss_sum
from posecli.train.interrupt import whole_step
from posecli.train.loss import distillation_sum, kl_sums, presence_sum
from posecli.train.packing import Crops
from posecli.train.parallel import World
from posecli.train.recipe import Recipe
from posecli.train.start import Start
from posecli.train.state import (
    State,
    append_row,
    averaged_model,
    cut_rows,
    export,
    first_state,
    next_stage,
    normalise,
    restore,
    save,
)
from posecli.train.teacher import Teacher

Evaluate = Callable[[SimCC, PoseConfig], dict[str, float]]
STEPS_A_ROW = 50


@dataclass(frozen=True)
class Watch:
    """What happens beside the steps. report sees each row of metrics.csv and evaluations.csv.

    evaluate_every: samples between two evaluations. calibrate gives the std_scale of a network that is judged or
    finished. header goes into the weights.
    """

    evaluate: Evaluate | None = None
    calibrate: Callable[[SimCC, PoseConfig], float] | None = None
    evaluate_every: int = 50_000
    checkpoint_seconds: float = 120
    report: Callable[[dict[str, float]], None] = lambda row: None
    header: Mapping[str, Any] | None = None


def train(
    recipe: Recipe,
    crops: Crops,
    folder: Path,
    *,
    nobody: Crops | None = None,
    teacher: Teacher | None = None,
    start: Start | None = None,
    device: str = "cpu",
    world: World | None = None,
    compiled: bool = False,
    watch: Watch | None = None,
) -> Path:
    """Train through all stages, resuming where folder holds a state; the path of the last weights.

    nobody: crops without a person, for a model that says if there is one (recipe.model.person_score). teacher: a
    trained model whose distributions on the same crops are learned too (recipe.teacher_weight).

    Writes metrics.csv, evaluations.csv, state.pt (for resuming), last.safetensors and best.safetensors (by
    AP) into folder. Ctrl-C saves before it leaves; a resumed run does again what was cut off, and ends in the same
    bytes as an undisturbed one. Raises PosecliError on a loss that is not finite, with the batch's people named in
    bad_batch.csv.
    """
    world, watch = world or World(), watch or Watch()
    folder.mkdir(parents=True, exist_ok=True)
    where = torch.device(device)
    state = restore(recipe, folder, where)
    if state is None:
        state = first_state(recipe, start, where)
    elif world.leads:
        for name in ("metrics.csv", "evaluations.csv"):
            cut_rows(folder / name, state.seen)
    world.wait()
    with interrupt.working():
        _run_stages(state, recipe, crops, nobody, teacher, folder, where, world, compiled, watch)
    world.wait()
    return folder / "last.safetensors"


def _run_stages(
    state: State,
    recipe: Recipe,
    crops: Crops,
    nobody: Crops | None,
    teacher: Teacher | None,
    folder: Path,
    where: torch.device,
    world: World,
    compiled: bool,
    watch: Watch,
) -> None:
    """All stages from the state on; however they end, the state is saved."""
    try:
        while True:
            _run_stage(state, recipe, crops, nobody, teacher, folder, where, world, compiled, watch)
            if state.stage + 1 == len(recipe.stages):
                break
            state = next_stage(state, recipe, where)
        if world.leads and watch.calibrate is not None:
            state.config = _calibrated(state, averaged_model(state, where), watch.calibrate)
    finally:
        if world.leads and state.whole:
            save(state, folder, watch.header)


def _run_stage(
    state: State,
    recipe: Recipe,
    crops: Crops,
    nobody: Crops | None,
    teacher: Teacher | None,
    folder: Path,
    where: torch.device,
    world: World,
    compiled: bool,
    watch: Watch,
) -> None:
    stage = recipe.stages[state.stage]
    start = sum(earlier.samples for earlier in recipe.stages[: state.stage])
    end = start + stage.samples
    network = world.wrap(state.model, where)
    if compiled:
        network = torch.compile(network)  # type: ignore[assignment]
    last_save = clock = time.monotonic()
    waited, clock_seen, losses = 0.0, state.seen, []
    pressed: list[int] = []
    size = None if teacher is None else teacher.config.input_size
    stream = iter(batches(crops, recipe, stage, state.seen, end, world, nobody, size))

    def evaluate_if_due() -> None:
        nonlocal clock, clock_seen
        due = state.seen // watch.evaluate_every > state.judged // watch.evaluate_every
        if watch.evaluate is None or not (due or (state.seen >= recipe.samples and state.judged < state.seen)):
            return
        if world.leads:
            _evaluate(state, watch.evaluate, folder, where, watch)
        state.judged = state.seen
        world.wait()
        clock, clock_seen = time.monotonic(), state.seen

    evaluate_if_due()  # where a signal cut it off
    while state.seen < end:
        before = time.monotonic()
        # A process that leaves alone would cut off the other ones' step.
        with whole_step(pressed) if world.size > 1 else nullcontext():
            batch = next(stream)
        waited += time.monotonic() - before
        # A new optimiser warms up again.
        warm = min(1.0, (state.seen - start + 1) / max(1, recipe.warmup_samples / 2))
        rate = recipe.rate_at(state.seen) * stage.rate * warm
        with whole_step(pressed):
            state.whole = False
            loss, leaves = _step(state, network, batch, recipe, rate, where, world, pressed, teacher)
            losses.append(loss)
            state.whole = True
            if np.isfinite(losses[-1]):
                state.seen += batch.samples
        if not np.isfinite(losses[-1]):
            bad = folder / (f"bad_batch_{world.rank}.csv" if world.size > 1 else "bad_batch.csv")
            bad.write_text("\n".join(batch.ids) + "\n")
            raise PosecliError(f"loss is {losses[-1]} after {state.seen} samples; the batch's people are in {bad}")
        if leaves:
            raise KeyboardInterrupt
        now = time.monotonic()
        if world.leads and (len(losses) == STEPS_A_ROW or state.seen >= end):
            row = {
                "samples": state.seen,
                "stage": state.stage,
                "loss": float(np.mean(losses)),
                "rate": rate,
                "samples_per_s": round((state.seen - clock_seen) / (now - clock), 1),
                "waiting": round(waited / (now - clock), 4),
            }
            append_row(folder / "metrics.csv", row)
            watch.report(row)
            waited, clock, clock_seen, losses = 0.0, now, state.seen, []
        evaluate_if_due()
        if world.leads and now - last_save > watch.checkpoint_seconds:
            save(state, folder, watch.header)
            last_save = now


def _step(
    state: State,
    network: nn.Module,
    batch: Batch,
    recipe: Recipe,
    rate: float,
    where: torch.device,
    world: World,
    pressed: list[int],
    teacher: Teacher | None = None,
) -> tuple[float, bool]:
    """One update: the loss over all processes, which is applied only where it is finite; whether a signal ends them.

    pressed: signals that came to this process.
    """
    for group in state.optimiser.param_groups:
        group["lr"] = rate * group["factor"]
    weight_sum = world.sum(batch.weights.sum().to(where)).clamp_min(1e-6)
    loss = torch.zeros((), device=where)
    parts = batch.parts(recipe.accumulate)
    for part in parts:
        last = part is parts[-1]
        # Only the last part's gradients travel.
        with nullcontext() if last or world.size == 1 else network.no_sync():  # type: ignore[operator]
            part_loss = _part_loss(state, network, part, batch.samples, weight_sum, recipe, where, teacher)
            # Gradients are averaged over processes; their sum is wanted.
            (part_loss * world.size).backward()  # type: ignore[no-untyped-call]
        loss += part_loss.detach()
    value, leaving = world.sum(torch.stack([loss, loss.new_tensor(float(bool(pressed)))])).tolist()
    if np.isfinite(value):
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip)
        state.optimiser.step()
        state.average.update(state.model)
    state.optimiser.zero_grad(set_to_none=True)
    return value, leaving > 0 or (world.size == 1 and bool(pressed))


def _part_loss(
    state: State,
    network: nn.Module,
    part: Batch,
    samples: int,
    weight_sum: torch.Tensor,
    recipe: Recipe,
    where: torch.device,
    teacher: Teacher | None,
) -> torch.Tensor:
    """The loss of a part of a batch of so many samples, whose labels weigh weight_sum in all processes."""
    config = state.config
    crops = normalise(part.crops, config, where)
    with torch.autocast(where.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        if recipe.heads_only:
            heads = state.model.heads(crops)
        else:
            outputs = network(crops)
            heads = outputs[2:]
    loss = torch.zeros((), device=where)
    if config.person_score and recipe.nobody_share:
        loss = (
            loss
            + recipe.presence_weight * presence_sum(heads[0], part.present.to(where), recipe.nobody_share) / samples
        )
    if config.box_head:
        told = box_loss_sum(heads[1], part.sides.to(where), part.sides_weights.to(where))
        loss = loss + recipe.box_weight * told / samples
    if recipe.heads_only:
        return loss
    part_sum, _ = kl_sums(
        outputs[:2],
        part.points.to(where),
        part.weights.to(where),
        split_ratio=config.split_ratio,
        sigma=config.sigma,
        temperature=config.temperature,
        smoothing=recipe.smoothing,
    )
    loss = loss + part_sum / weight_sum
    if teacher is not None:
        taught = teacher.distributions(part, where)
        temperatures = config.temperature, teacher.config.temperature
        counted = (part.present > 0).float().to(where)
        distance = distillation_sum(outputs[:2], taught, temperatures, counted, teacher.places(config))
        loss = loss + recipe.teacher_weight / (samples * len(config.keypoints)) * distance
    return loss


def _evaluate(state: State, evaluate: Evaluate, folder: Path, where: torch.device, watch: Watch) -> None:
    network = averaged_model(state, where)
    scores = evaluate(network, state.config)
    row = {"samples": state.seen, "stage": state.stage, **scores}
    better = scores["AP"] > state.best
    config = _calibrated(state, network, watch.calibrate) if better else state.config
    with whole_step():
        append_row(folder / "evaluations.csv", row)
        state.judged = state.seen
        if better:
            state.best, state.config = scores["AP"], config
            export(folder / "best.safetensors", state, watch.header)
    watch.report(row)


def _calibrated(state: State, network: SimCC, fit: Callable[[SimCC, PoseConfig], float] | None) -> PoseConfig:
    return state.config if fit is None else replace(state.config, std_scale=fit(network, state.config))
