"""Training engine for any network: parameter groups, steps, moving average, checkpoints, metrics.

A training of any network:

    groups = parameter_groups(network, weight_decay=0.05, backbone_prefix="backbone.", backbone_lr_factor=0.5)
    optimiser = torch.optim.AdamW(groups, lr=1e-3)
    engine = Engine(network, optimiser, MovingAverage(network, 0.998), clip=5.0)
    if (found := read_checkpoint(folder / "state.pt")) is not None:
        engine.load_state_dict(found)
    schedule = Schedule(1e-3, samples=100_000, warmup_samples=4000, constant_fraction=0.6)
    callbacks = Callbacks(report=print, save=lambda: write_checkpoint(folder / "state.pt", engine.state_dict()))
    run_steps(engine, batches_from(engine.samples), 100_000, loss, schedule.at, folder, callbacks)

`loss(network, part)` gives the named losses of a part of a batch, normalised over the whole batch (of all processes);
their sum is minimised. A batch has `ids`, `samples` and `parts(count)`, see `Batch`. A training resumed from its
checkpoint, with the batches from `engine.samples` on, ends in the same bytes as an uninterrupted one.
"""

import csv
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from posecli.errors import DataError, PosecliError
from posecli.interrupt import deferred
from posecli.train.distributed import Distributed
from posecli.train.schedule import Schedule

__all__ = [
    "Batch",
    "Callbacks",
    "Engine",
    "Losses",
    "MovingAverage",
    "Schedule",
    "append_row",
    "parameter_groups",
    "read_checkpoint",
    "run_steps",
    "truncate_rows",
    "write_checkpoint",
]

STEPS_A_ROW = 50


class Batch(Protocol):
    """The batch of one step. ids: texts that name this process's samples. samples: number in all processes."""

    @property
    def ids(self) -> Sequence[str]:
        """One text for each sample."""

    @property
    def samples(self) -> int:
        """Number of samples of all processes in this step."""

    def parts(self, count: int) -> Sequence[Self]:
        """Up to count parts of nearly equal size for gradient accumulation."""


B = TypeVar("B", bound=Batch)
Losses = Mapping[str, Tensor]
Loss = Callable[[nn.Module, B], Losses]


def parameter_groups(
    model: nn.Module, *, weight_decay: float, backbone_prefix: str = "backbone.", backbone_lr_factor: float = 1.0
) -> list[dict[str, Any]]:
    """Groups of trainable parameters: backbone and others, with and without weight decay (none on norms and biases).

    backbone_prefix: prefix of the names of the backbone's parameters. Each group's "factor" multiplies the learning
    rate: backbone_lr_factor, or 1.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(backbone_prefix), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decays else 0.0,
            "factor": backbone_lr_factor if backbone else 1.0,
        }
        for (backbone, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


class MovingAverage:
    """Exponential moving average of a model's state (parameters and buffers), the weights that are written."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update with the model; the decay is smaller in the first updates."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        found = model.state_dict()
        moved = [name for name, tensor in found.items() if tensor.is_floating_point()]
        # On a GPU few kernels for all of them.
        torch._foreach_lerp_([self.state[name] for name in moved], [found[name] for name in moved], 1 - decay)
        for name in found.keys() - set(moved):
            self.state[name].copy_(found[name])

    def half(self) -> dict[str, Tensor]:
        """The averaged state with floating-point tensors in half precision."""
        return {name: t.half() if t.is_floating_point() else t for name, t in self.state.items()}


class Engine:
    """A model in training with its optimiser and moving average; performs steps and has the state for resuming.

    model: on its device and in its training mode. optimiser: its groups have a "factor" on the learning rate, see
    parameter_groups. clip: largest norm of the gradients. accumulate: number of parts of a batch for gradient
    accumulation. network: the module that the loss calls, by default the model itself. compiled: use torch.compile.

    samples: number seen so far, by all processes. consistent: false during a step, when weights, running statistics and
    samples do not belong together and must not be saved.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        average: MovingAverage,
        *,
        clip: float = 5.0,
        accumulate: int = 1,
        network: nn.Module | None = None,
        distributed: Distributed | None = None,
        compiled: bool = False,
    ) -> None:
        self.model, self.optimiser, self.average = model, optimiser, average
        self.clip, self.accumulate = clip, accumulate
        self.distributed = distributed or Distributed()
        self.device = next(model.parameters()).device
        wrapped = self.distributed.wrap(model if network is None else network, self.device)
        self.network: nn.Module = torch.compile(wrapped) if compiled else wrapped  # type: ignore[assignment]
        self.samples = 0
        self.consistent = True
        self.signals: list[int] = []

    def step(self, batch: B, loss: Loss[B], learning_rate: float) -> tuple[dict[str, float], bool]:
        """One update of weights, average and number of samples, not interrupted by signals.

        Returns the losses by name, summed over all processes, and whether any process has received a signal. Where the
        sum is not finite nothing is updated.
        """
        with deferred(self.signals):
            self.consistent = False
            for group in self.optimiser.param_groups:
                group["lr"] = learning_rate * group["factor"]
            losses, stop = self._all_processes(self._backward(batch, loss))
            finite = math.isfinite(sum(losses.values()))
            if finite:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
                self.optimiser.step()
                self.average.update(self.model)
                self.samples += batch.samples
            self.optimiser.zero_grad(set_to_none=True)
            self.consistent = True
        return losses, stop

    def _backward(self, batch: B, loss: Loss[B]) -> dict[str, Tensor]:
        """Compute the gradients of all parts; returns this process's part of each loss."""
        totals: dict[str, Tensor] = {}
        parts = batch.parts(self.accumulate)
        for part in parts:
            last = part is parts[-1]
            # Gradients are synchronised between processes with the last part only.
            with nullcontext() if last or self.distributed.size == 1 else self.network.no_sync():  # type: ignore[operator]
                found = loss(self.network, part)
                # DDP averages gradients over processes; here they are summed.
                (torch.stack(list(found.values())).sum() * self.distributed.size).backward()  # type: ignore[no-untyped-call]
            for name, value in found.items():
                totals[name] = totals.get(name, 0.0) + value.detach()
        return totals

    def _all_processes(self, losses: dict[str, Tensor]) -> tuple[dict[str, float], bool]:
        """Sums over all processes, and whether one of them has received a signal."""
        pressed = torch.tensor(float(bool(self.signals)), device=self.device)
        *values, leaving = self.distributed.sum(torch.stack([*losses.values(), pressed]).float()).tolist()
        return dict(zip(losses, values, strict=True)), leaving > 0 or (
            self.distributed.size == 1 and bool(self.signals)
        )

    def state_dict(self) -> dict[str, Any]:
        """Model, optimiser, average and counters, for torch.save."""
        return {
            "samples": self.samples,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state,
            "updates": self.average.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of state_dict."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.state = {name: tensor.to(self.device) for name, tensor in state["average"].items()}
        self.average.updates = state["updates"]
        self.samples = state["samples"]


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called between steps; report and save only in the main process.

    report: receives a row of metrics. after_step: also called before the first step; returns whether it took time (an
    evaluation), which is excluded from the speed. save: writes a checkpoint, every checkpoint_seconds. values: further
    values for each row.
    """

    report: Callable[[dict[str, float]], None] = lambda row: None
    after_step: Callable[[], bool] = lambda: False
    save: Callable[[], None] = lambda: None
    checkpoint_seconds: float = 120
    values: Mapping[str, float] | None = None


def run_steps(
    engine: Engine,
    stream: Iterable[B],
    end: int,
    loss: Loss[B],
    learning_rate: Callable[[int], float],
    folder: Path,
    callbacks: Callbacks | None = None,
) -> None:
    """Train until the engine has seen end samples.

    stream: the batches from engine.samples on. learning_rate: a function of the samples seen. Rows go to
    callbacks.report and into metrics.csv in folder. Raises KeyboardInterrupt between two steps after a signal;
    PosecliError on a loss that is not finite, with the ids of the batch in bad_batch.csv.
    """
    callbacks = callbacks or Callbacks()
    batches, meter = iter(stream), _Meter(engine.samples)
    last_save = time.monotonic()
    if callbacks.after_step():
        meter.restart(engine.samples)
    while engine.samples < end:
        batch = _next_batch(engine, batches, meter)
        rate = learning_rate(engine.samples)
        losses, stop = engine.step(batch, loss, rate)
        if not math.isfinite(sum(losses.values())):
            raise _diverged(engine, losses, batch, folder)
        meter.add(losses)
        if stop:
            raise KeyboardInterrupt
        if engine.distributed.is_main and (meter.steps == STEPS_A_ROW or engine.samples >= end):
            row = meter.row(engine.samples, rate, callbacks.values or {})
            append_row(folder / "metrics.csv", row)
            callbacks.report(row)
        if callbacks.after_step():
            meter.restart(engine.samples)
        if engine.distributed.is_main and time.monotonic() - last_save > callbacks.checkpoint_seconds:
            callbacks.save()
            last_save = time.monotonic()


def _next_batch(engine: Engine, batches: Iterator[B], meter: "_Meter") -> B:
    before = time.monotonic()
    # A process that stops alone would block the others in their step.
    with deferred(engine.signals) if engine.distributed.size > 1 else nullcontext():
        batch = next(batches)
    meter.waited += time.monotonic() - before
    return batch


def _diverged(engine: Engine, losses: Mapping[str, float], batch: Batch, folder: Path) -> PosecliError:
    bad = folder / (f"bad_batch_{engine.distributed.rank}.csv" if engine.distributed.size > 1 else "bad_batch.csv")
    bad.write_text("\n".join(batch.ids) + "\n")
    total = sum(losses.values())
    return PosecliError(f"loss is {total} after {engine.samples} samples; the batch's samples are in {bad}")


class _Meter:
    """Mean losses, speed, and the share of time spent waiting for batches."""

    def __init__(self, samples: int) -> None:
        self.waited, self.steps = 0.0, 0
        self._losses: dict[str, float] = {}
        self._samples, self._clock = samples, time.monotonic()

    def add(self, losses: Mapping[str, float]) -> None:
        self.steps += 1
        for name, value in losses.items():
            self._losses[name] = self._losses.get(name, 0.0) + value

    def row(self, samples: int, rate: float, values: Mapping[str, float]) -> dict[str, float]:
        """A row of metrics since the last row; with the losses by name if there are several."""
        now = time.monotonic()
        means = {name: value / self.steps for name, value in self._losses.items()}
        row = {
            "samples": samples,
            **values,
            "loss": sum(means.values()),
            **({f"loss_{name}": value for name, value in means.items()} if len(means) > 1 else {}),
            "learning_rate": rate,
            "samples_per_s": round((samples - self._samples) / (now - self._clock), 1),
            "waiting": round(self.waited / (now - self._clock), 4),
        }
        self.waited, self.steps, self._losses = 0.0, 0, {}
        self.restart(samples)
        return row

    def restart(self, samples: int) -> None:
        """Restart the measurement of the speed."""
        self._samples, self._clock = samples, time.monotonic()


# ---- files ----------------------------------------------------------------------------------------------


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state (see Engine.state_dict) atomically."""
    part = path.with_suffix(".part")
    torch.save(dict(state), part)
    part.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What write_checkpoint wrote, None where there is no file.

    Raises DataError for a file that is no checkpoint. No code in it is executed.
    """
    if not path.is_file():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # The unpickler meets strange bytes with errors of every kind.
        raise DataError(f"{path}: not a checkpoint of a training: delete it, or take another --name") from error
    if not isinstance(saved, dict):
        raise DataError(f"{path}: not a checkpoint of a training: delete it, or take another --name")
    return saved


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Add a line to a CSV file, with a header where it is new."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def truncate_rows(path: Path, samples: int) -> None:
    """Delete the lines after a checkpoint's samples, which a resumed run writes again."""
    if path.is_file():
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        kept = rows[:1] + [row for row in rows[1:] if row and int(row[0]) <= samples]
        part = path.with_name(f"{path.name}.part")
        with part.open("w", newline="") as file:
            csv.writer(file).writerows(kept)
        part.replace(path)
