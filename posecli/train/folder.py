"""The folder of a run: what is written there, and whether it may be."""

from collections.abc import Iterable
from pathlib import Path

from posecli.errors import UsageError
from posecli.output.protect import Protected, refuse_harm
from posecli.text import printed

# All that a run writes into its folder.
FILES = (
    "options.json",
    "state.pt",
    "metrics.csv",
    "evaluations.csv",
    "last.safetensors",
    "best.safetensors",
    "curves.png",
    "predictions.jpg",
    "preview.jpg",
    "bad_batch.csv",
    "tensorboard",
)
# Names of temporary files, which are written over.
_PARTS = ("options.part", "state.part", "last.safetensors.part", "best.safetensors.part")


def refuse_harm_by_run(folder: Path, cache: Path, reads: Iterable[Path]) -> None:
    """Raise UsageError, before any work, where a run would write a file that is read, or into somebody's folder.

    cache: the folder of packed crops. reads: annotations, images, weights.
    """
    protected = Protected(dict.fromkeys(reads))
    refuse_harm(protected, (folder / name for name in (*FILES, *_PARTS)), "--runs, --name")
    refuse_harm(protected, sorted(cache.glob("crops-*")), "--cache")
    foreign = [name for name in FILES if (folder / name).exists()]
    if foreign and foreign != ["preview.jpg"] and "options.json" not in foreign:
        raise UsageError(
            f"--runs, --name: {printed(folder / foreign[0])} is not of a run of posecli train: choose another --name"
        )
