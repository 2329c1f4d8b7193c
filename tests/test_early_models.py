"""The models of a command are not freed before the process ends."""

from pathlib import Path

import pytest

from posecli.cli import early_models
from tests.entry_points import posecli
from tests.media_factory import write_photo


def test_models_are_kept_until_those_of_the_next_command(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photo, kept = write_photo(tmp_path / "in" / "a.png"), []
    for name in ("one", "two"):
        done = posecli(capfd, "run", photo, "--out", tmp_path / name, "--weights", tiny_weights, "--detector", "whole")
        assert done.code == 0, done.err
        assert len(early_models._KEPT) == 1
        kept.append(early_models._KEPT[0])
    assert kept[0] is not kept[1] and kept[1].estimator.weights == tiny_weights
