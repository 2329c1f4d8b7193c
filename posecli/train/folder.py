"""The folder of a run: what is written there, and whether it may be."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from posecli.errors import UsageError
from posecli.results.protect import Protected, refuse_harm
from posecli.text import printed
from posecli.train.data import People
from posecli.weights.files import sha256

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


def data_keys(people: People, nobody: People | None, init: str | None) -> dict[str, str | None]:
    """Fingerprints of what a run learns from, wherever it lies: its labels, and the weights it starts from."""
    path = Path(init) if init else None
    return {
        "people": _key(people),
        "nobody": None if nobody is None else _key(nobody),
        "init": sha256(path) if path is not None and path.is_file() else init,
    }


def _key(people: People) -> str:
    key = hashlib.blake2b(digest_size=16)
    key.update("\0".join(people.ids).encode("utf-8", "surrogatepass"))
    for array in (people.boxes, people.keypoints, people.weights):
        key.update(np.ascontiguousarray(array).tobytes())
    return key.hexdigest()
