"""Training of a pose model: stages, evaluations, checkpoints."""

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from posecli import interrupt
from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC
from posecli.train import engine
from posecli.train.batches import Batch, batches, counted_together
from posecli.train.best import best_names, numbered_name, read_evaluations, remove_others
from posecli.train.distributed import Distributed
from posecli.train.engine import append_row, run_steps, truncate_rows
from posecli.train.init import Init
from posecli.train.objective import PoseLoss
from posecli.train.packing import Crops
from posecli.train.pixel_store import PixelStore
from posecli.train.recipe import Recipe
from posecli.train.state import Placement, State, export, first_state, next_stage, restore, save
from posecli.train.teacher import Teacher

Evaluate = Callable[[SimCC, PoseConfig], dict[str, float]]


@dataclass(frozen=True)
class PoseCallbacks:
    """Functions that are called between steps, and their intervals.

    evaluate: gives the figures of a network. evaluate_every: samples between two evaluations. keep_best: number of best
    weights to keep; above 1 also under names with their AP (best.numbered_name). calibrate: gives the std_scale of a
    network that is evaluated or finished. report: receives each row of metrics.csv and evaluations.csv. header: entries
    of the weights' header.
    """

    evaluate: Evaluate | None = None
    calibrate: Callable[[SimCC, PoseConfig], float] | None = None
    evaluate_every: int = 50_000
    keep_best: int = 1
    checkpoint_seconds: float = 120
    report: Callable[[dict[str, float]], None] = lambda row: None
    header: Mapping[str, Any] | None = None


def train(
    recipe: Recipe,
    crops: Crops,
    folder: Path,
    *,
    negatives: Crops | None = None,
    unlabelled: Crops | None = None,
    teacher: Teacher | None = None,
    init: Init | None = None,
    device: str = "cpu",
    distributed: Distributed | None = None,
    compiled: bool = False,
    workers: int = 0,
    callbacks: PoseCallbacks | None = None,
    device_augmentation: bool | None = None,
) -> Path:
    """Train through all stages, resuming where folder holds a state; the path of the last weights.

    negatives: crops without a person, for a model with a person score (recipe.model.person_score). teacher: a trained
    model for distillation on the same crops (recipe.teacher_weight). unlabelled: people without labels, only for
    distillation. workers: processes that make batches, 0 for a thread; the results do not depend on them.
    device_augmentation: whether crops are augmented on the device, None for on a GPU.

    Writes metrics.csv, evaluations.csv, state.pt (for resuming), last.safetensors and best.safetensors (by AP; see
    callbacks.keep_best) into folder. Ctrl-C saves first; a resumed run ends in the same bytes as an uninterrupted one.
    Raises PosecliError for a loss that is not finite, with the batch's people in bad_batch.csv.
    """
    placement = Placement(torch.device(device), distributed or Distributed(), compiled)
    callbacks = callbacks or PoseCallbacks()
    store = None
    if placement.device.type == "cuda" if device_augmentation is None else device_augmentation:
        sources = {"people": crops, "negatives": negatives, "unlabelled": unlabelled}
        store = PixelStore(placement.device, sources)
    run = _Run(recipe, crops, folder, placement, negatives, unlabelled, teacher, workers, callbacks, store)
    folder.mkdir(parents=True, exist_ok=True)
    state = restore(recipe, folder, placement)
    if placement.distributed.is_main:
        run.prepare_folder(None if state is None else state.samples)
    if state is None:
        state = first_state(recipe, init, placement)
    placement.distributed.barrier()
    with interrupt.interruptible():
        run.all_stages(state)
    placement.distributed.barrier()
    return folder / "last.safetensors"


@dataclass(frozen=True)
class _Run:
    """The constants of a training, see train."""

    recipe: Recipe
    crops: Crops
    folder: Path
    placement: Placement
    negatives: Crops | None
    unlabelled: Crops | None
    teacher: Teacher | None
    workers: int
    callbacks: PoseCallbacks
    store: PixelStore | None

    @property
    def is_main(self) -> bool:
        return self.placement.distributed.is_main

    def prepare_folder(self, samples: int | None) -> None:
        """Delete what a run resumed after this many samples writes again; None: what a new run writes."""
        for name in ("metrics.csv", "evaluations.csv"):
            if samples is None:
                (self.folder / name).unlink(missing_ok=True)
            else:
                truncate_rows(self.folder / name, samples)
        evaluations = read_evaluations(self.folder / "evaluations.csv")
        remove_others(self.folder, best_names(evaluations, self.callbacks.keep_best))

    def all_stages(self, state: State) -> None:
        """Run all stages from the state on; the state is saved in any case."""
        try:
            while True:
                self.stage(state)
                if state.stage + 1 == len(self.recipe.stages):
                    break
                state = next_stage(state, self.recipe, self.placement)
            if self.is_main and self.callbacks.calibrate is not None:
                state.config = self.calibrated(state.config, state.averaged_model())
        finally:
            if self.is_main and state.engine.consistent:
                save(state, self.folder, self.callbacks.header)

    def stage(self, state: State) -> None:
        """Run the rest of a state's stage."""
        recipe, device = self.recipe, self.placement.device
        end = sum(each.samples for each in recipe.stages[: state.stage + 1])
        loss = PoseLoss(recipe, state.config, device, self.teacher)
        with closing(self.stream(state, end)) as stream:
            run_steps(state.engine, stream, end, loss, recipe.learning_rate_at, self.folder, self.step_callbacks(state))

    def stream(self, state: State, end: int) -> Generator[Batch, None, None]:
        """The remaining batches of a state's stage, which ends after end samples."""
        found = batches(
            self.crops,
            self.recipe,
            self.recipe.stages[state.stage],
            state.samples,
            end,
            self.placement.distributed,
            self.negatives,
            None if self.teacher is None else self.teacher.config.input_size,
            unlabelled=self.unlabelled,
            workers=self.workers,
            device=self.placement.device,
            store=self.store,
        )
        with closing(found):
            yield from counted_together(found, self.placement.distributed, self.placement.device)

    def step_callbacks(self, state: State) -> engine.Callbacks:
        """The engine's callbacks for a state's stage."""
        return engine.Callbacks(
            report=self.callbacks.report,
            after_step=lambda: self.evaluate_if_due(state),
            save=lambda: save(state, self.folder, self.callbacks.header),
            checkpoint_seconds=self.callbacks.checkpoint_seconds,
            values={"stage": state.stage},
        )

    def evaluate_if_due(self, state: State) -> bool:
        """Evaluate every evaluate_every samples and at the end; returns whether it did."""
        evaluate, every = self.callbacks.evaluate, self.callbacks.evaluate_every
        due = state.samples // every > state.evaluated // every
        last = state.samples >= self.recipe.samples and state.evaluated < state.samples
        if evaluate is None or not (due or last):
            return False
        if self.is_main:
            self.evaluate(state, evaluate)
        state.evaluated = state.samples
        self.placement.distributed.barrier()
        return True

    def evaluate(self, state: State, evaluate: Evaluate) -> None:
        network = state.averaged_model()
        scores = evaluate(network, state.config)
        row = {"samples": state.samples, "stage": state.stage, **scores}
        table, header = self.folder / "evaluations.csv", self.callbacks.header
        better, best = scores["AP"] > state.best, best_names([*read_evaluations(table), row], self.callbacks.keep_best)
        numbered = numbered_name(row) in best
        config = self.calibrated(state.config, network) if better or numbered else state.config
        with interrupt.deferred():
            append_row(table, row)
            state.evaluated = state.samples
            if better:
                state.best, state.config = scores["AP"], config
                export(self.folder / "best.safetensors", state, header)
            if numbered:
                export(self.folder / numbered_name(row), replace(state, config=config), header)
            remove_others(self.folder, best)
        self.callbacks.report(row)

    def calibrated(self, config: PoseConfig, network: SimCC) -> PoseConfig:
        """The configuration with the std_scale that fits the network."""
        fit = self.callbacks.calibrate
        return config if fit is None else replace(config, std_scale=fit(network, config))
