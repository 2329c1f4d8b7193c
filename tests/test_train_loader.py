"""Batches made in processes: the same as in a thread, errors of one line, no process left behind."""

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from posecli.cli import train as command
from posecli.errors import DataError, MachineError
from posecli.pose.config import PoseConfig
from posecli.train.batches import batches
from posecli.train.data import Source, read_people
from posecli.train.loader import prefetch
from posecli.train.packing import Crops, pack_crops
from posecli.train.precision import PRECISIONS, resolve_precision
from posecli.train.recipe import Recipe, Stage
from tests.test_train_negatives import data

__all__ = ["data"]  # a fixture


def square(number: int) -> np.ndarray:
    if number < 0:
        raise DataError(f"{number} has no root")
    if number > 99:
        os._exit(9)
    return np.full(3, number**2)


def test_results_come_in_order_and_errors_as_they_are() -> None:
    for workers in (0, 2):
        made = [int(found[0]) for found in prefetch(square, range(20), workers)]
        assert made == [number**2 for number in range(20)]
    with pytest.raises(DataError, match=r"^-1 has no root$"):
        list(prefetch(square, [2, 1, -1], 1))
    with pytest.raises(MachineError, match="fewer --workers"):
        list(prefetch(square, [2, 1, 100], 1))


@pytest.fixture
def crops(data: Path, tmp_path: Path) -> Crops:
    return pack_crops(read_people([Source(data / "people.json", data)]), tmp_path, height=96)


def test_processes_make_the_same_batches_and_end_with_the_consumer(crops: Crops) -> None:
    recipe = Recipe(model=PoseConfig(deconv_channels=(), input_size=(64, 64)), stages=(Stage((64, 64), 40, 8),))
    alone = list(batches(crops, recipe, recipe.stages[0], 0, 40))
    shared = batches(crops, recipe, recipe.stages[0], 0, 40, workers=2)
    for expected in alone[:4]:
        found = next(shared)
        assert found.ids == expected.ids and found.samples == 8
        for name in ("crops", "points", "weights", "present", "sides", "sides_weights"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
    shared.close()
    end = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < end:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_the_precision_of_a_cpu_is_float32_unless_asked() -> None:
    cpu = torch.device("cpu")
    assert [resolve_precision(name, cpu) for name in ("auto", "bf16", "fp32")] == ["fp32", "bf16", "fp32"]
    assert command.PRECISION_NAMES == PRECISIONS
