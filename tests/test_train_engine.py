"""The training engine on a small network: steps, resuming, accumulation, metrics, what ends a training."""

import csv
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from posecli.errors import DataError, PosecliError
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


@dataclass(frozen=True)
class Numbers:
    """A batch of vectors and what a linear map makes of them."""

    x: Tensor
    y: Tensor

    @property
    def ids(self) -> Sequence[str]:
        return [str(row) for row in self.x.tolist()]

    @property
    def samples(self) -> int:
        return len(self.x)

    def parts(self, count: int) -> list["Numbers"]:
        return [Numbers(x, y) for x, y in zip(self.x.chunk(count), self.y.chunk(count), strict=True)]


def stream(first: int, end: int, size: int = 8) -> Iterator[Numbers]:
    for number in range(first, end, size):
        x = torch.randn(size, 4, generator=torch.Generator().manual_seed(number))
        yield Numbers(x, x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]]))


def loss(network: nn.Module, part: Numbers) -> Mapping[str, Tensor]:
    apart = network(part.x) - part.y
    return {"square": (apart**2).sum() / 8, "absolute": 0.1 * apart.abs().sum() / 8}


def new_engine(**options: object) -> Engine:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    groups = parameter_groups(network, weight_decay=0.01, backbone_prefix="0.", backbone_lr_factor=0.5)
    return Engine(network, torch.optim.AdamW(groups), MovingAverage(network, 0.9), **options)  # type: ignore[arg-type]


SCHEDULE = Schedule(0.02, samples=400, warmup_samples=40, constant_fraction=0.5)


def run(engine: Engine, end: int, folder: Path, callbacks: Callbacks | None = None) -> None:
    run_steps(engine, stream(engine.samples, end), end, loss, SCHEDULE.at, folder, callbacks)


def test_it_learns_and_reports_each_loss(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    run(new_engine(), 800, tmp_path, Callbacks(report=rows.append, values={"stage": 3}))
    assert [row["samples"] for row in rows] == [400, 800] and rows[1]["loss"] < 0.7 * rows[0]["loss"]
    assert all(row["loss"] == pytest.approx(row["loss_square"] + row["loss_absolute"]) for row in rows)
    written = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [float(row["loss"]) for row in written] == [row["loss"] for row in rows] and written[0]["stage"] == "3"


def test_resumed_from_a_checkpoint_it_ends_in_the_same_weights(tmp_path: Path) -> None:
    whole = new_engine()
    run(whole, 400, tmp_path)
    first = new_engine()
    run(first, 160, tmp_path)
    write_checkpoint(tmp_path / "state.pt", first.state_dict())
    found = read_checkpoint(tmp_path / "state.pt")
    second = new_engine()
    assert found is not None
    second.load_state_dict(found)
    run(second, 400, tmp_path)
    assert second.samples == 400
    for name, tensor in whole.average.state.items():
        assert torch.equal(tensor, second.average.state[name]), name
    assert read_checkpoint(tmp_path / "none.pt") is None
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(DataError, match="not a checkpoint"):
        read_checkpoint(tmp_path / "junk.pt")


def test_parts_of_a_batch_make_the_step_of_the_whole(tmp_path: Path) -> None:
    engines = [new_engine(), new_engine(accumulate=4)]
    for engine in engines:
        run(engine, 80, tmp_path)
    for name, tensor in engines[0].model.state_dict().items():
        assert torch.allclose(tensor, engines[1].model.state_dict()[name], atol=1e-5), name


def test_groups_of_the_backbone_and_of_norms() -> None:
    groups = parameter_groups(new_engine().model, weight_decay=0.1, backbone_prefix="0.", backbone_lr_factor=0.5)
    assert [(g["factor"], g["weight_decay"], g["params"][0].ndim) for g in groups] == [
        (1.0, 0.0, 1),
        (1.0, 0.1, 2),
        (0.5, 0.0, 1),
        (0.5, 0.1, 2),
    ]


def test_a_loss_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    engine = new_engine()
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    with pytest.raises(PosecliError, match="loss is nan after 0 samples"):
        run_steps(engine, [Numbers(torch.full((2, 4), torch.nan), torch.zeros(2, 1))], 8, loss, SCHEDULE.at, tmp_path)
    assert len((tmp_path / "bad_batch.csv").read_text().splitlines()) == 2
    assert all(torch.equal(before[name], tensor) for name, tensor in engine.model.state_dict().items())
    assert engine.consistent and engine.samples == 0


def test_a_signal_waits_for_the_end_of_the_step(tmp_path: Path) -> None:
    engine, saved = new_engine(), []

    def interrupted(network: nn.Module, part: Numbers) -> Mapping[str, Tensor]:
        if engine.samples == 16:
            signal.raise_signal(signal.SIGINT)
        return loss(network, part)

    callbacks = Callbacks(save=lambda: saved.append(engine.samples), checkpoint_seconds=-1)
    with pytest.raises(KeyboardInterrupt):
        run_steps(engine, stream(0, 400), 400, interrupted, SCHEDULE.at, tmp_path, callbacks)
    assert engine.samples == 24 and engine.consistent and saved == [8, 16]


def test_rows_after_a_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("samples,loss\n8,1\n16,2\n24,3\n")
    truncate_rows(path, 16)
    assert path.read_text().splitlines() == ["samples,loss", "8,1", "16,2"]
