"""--keep-best: the N best weights by validation AP."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posecli.pose.loading import load_network
from posecli.train.best import best_names, numbered_files, read_evaluations
from posecli.train.loop import PoseCallbacks, train
from posecli.train.packing import Crops
from posecli.weights.files import load_weights
from tests.dotted_people import crops, dataset, tiny_recipe
from tests.entry_points import posecli

__all__ = ["crops", "dataset"]  # fixtures

# AP of the evaluations after 8, 16, 24 … samples.
SCORES = (0.2, 0.5, 0.3, 0.5, 0.1, 0.4)


def scoring(scores: tuple[float, ...] = SCORES) -> Callable[..., dict[str, float]]:
    left = list(scores)
    return lambda model, config: {"AP": left.pop(0), "AP50": 0.0, "AP75": 0.0}


@given(st.lists(st.floats(0, 1) | st.sampled_from([-1.0, float("nan")]), max_size=12), st.integers(1, 5))
def test_the_best_are_named_in_order(scores: list[float], count: int) -> None:
    rows = [{"AP": score, "samples": 8 * (i + 1)} for i, score in enumerate(scores)]
    found = best_names(rows, count)
    scored = sorted((-s, 8 * (i + 1)) for i, s in enumerate(scores) if s >= 0)
    expected = [f"best-{-negative:.4f}-{samples}.safetensors" for negative, samples in scored[:count]]
    assert found == ([] if count == 1 else expected)


def test_the_best_files_are_kept_and_the_others_deleted(crops: Crops, tmp_path: Path) -> None:
    callbacks = PoseCallbacks(scoring(), evaluate_every=8, keep_best=3, calibrate=lambda network, config: 0.7)
    (tmp_path / "best-of-mine.safetensors").write_bytes(b"")
    (tmp_path / "best-0.9000-8.safetensors").write_bytes(b"of an earlier run")
    train(tiny_recipe(48), crops, tmp_path, callbacks=callbacks)
    kept = [path.name for path in numbered_files(tmp_path)]
    assert kept == ["best-0.4000-48.safetensors", "best-0.5000-16.safetensors", "best-0.5000-32.safetensors"]
    # Of equal ones the earlier is the best.
    assert (tmp_path / "best.safetensors").read_bytes() == (tmp_path / kept[1]).read_bytes()
    assert (tmp_path / "best-of-mine.safetensors").is_file() and not list(tmp_path.glob("*.part"))
    for name, samples in zip(kept, (48, 16, 32), strict=True):
        assert load_weights(tmp_path / name)[1]["training"]["samples"] == samples
        assert load_network(tmp_path / name)[1].std_scale == 0.7


def test_one_best_is_best_safetensors_alone(crops: Crops, tmp_path: Path) -> None:
    train(tiny_recipe(32), crops, tmp_path, callbacks=PoseCallbacks(scoring((0.2, 0.5, 0.3, 0.5)), evaluate_every=8))
    assert not numbered_files(tmp_path)
    assert load_weights(tmp_path / "best.safetensors")[1]["training"]["samples"] == 16


def test_a_resumed_run_keeps_the_same_files(crops: Crops, tmp_path: Path) -> None:
    """The first run is stopped before it evaluates a second time, after which its state is at 16 samples."""
    scores = scoring()

    def stopped(model: object, config: object) -> dict[str, float]:
        if (tmp_path / "parts" / "evaluations.csv").is_file():
            raise KeyboardInterrupt
        return scores(model, config)

    with pytest.raises(KeyboardInterrupt):
        train(
            tiny_recipe(48), crops, tmp_path / "parts", callbacks=PoseCallbacks(stopped, evaluate_every=8, keep_best=2)
        )
    assert [path.name for path in numbered_files(tmp_path / "parts")] == ["best-0.2000-8.safetensors"]
    # What a killed process left behind, after its last checkpoint.
    (tmp_path / "parts" / "best-0.9000-40.safetensors").write_bytes(b"")
    with (tmp_path / "parts" / "evaluations.csv").open("a") as file:
        file.write("40,0,0.9,0,0\n")
    train(
        tiny_recipe(48),
        crops,
        tmp_path / "parts",
        callbacks=PoseCallbacks(scoring(SCORES[1:]), evaluate_every=8, keep_best=2),
    )
    train(tiny_recipe(48), crops, tmp_path / "whole", callbacks=PoseCallbacks(scoring(), evaluate_every=8, keep_best=2))
    for name in ("best-0.5000-16.safetensors", "best-0.5000-32.safetensors", "best.safetensors", "evaluations.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert len(numbered_files(tmp_path / "parts")) == 2


def test_the_command_keeps_the_best(dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--data", dataset, "--runs", tmp_path, "--stages", "32x32:24", "--deconv", "8", "--freeze", 19]
    command += ["--batch-size", 4, "--device", "cpu", "--threads", 1, "--evaluate-every", 8]
    assert posecli(capfd, *command, "--keep-best", 2).code == 0
    rows = read_evaluations(tmp_path / "simcc" / "evaluations.csv")
    assert len(rows) == 3
    files = numbered_files(tmp_path / "simcc")
    assert sorted(best_names(rows, 2)) == [path.name for path in files] and len(files) == 2
    refused = posecli(capfd, *command, "--keep-best", 2, "--init", files[0])
    assert refused.code == 2 and str(files[0]) in refused.err
    assert posecli(capfd, *command, "--keep-best", 0).code == 2
    with (tmp_path / "simcc" / "metrics.csv").open() as file:
        assert len(list(csv.reader(file))) > 1
