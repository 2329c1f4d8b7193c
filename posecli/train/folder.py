"""The folder of a training run: its files, and checks before writing into it."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from posecli.errors import UsageError
from posecli.results.protect import Protected, refuse_replacing
from posecli.text import printed
from posecli.train.best import numbered_files
from posecli.train.data import People
from posecli.train.packing import TrainingData
from posecli.train.recipe import Recipe
from posecli.weights.files import sha256

# Files that a run writes into its folder.
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
    "comparison.json",
    "comparison.md",
)
# Names of temporary files, which are overwritten.
_PARTS = ("options.part", "state.part", "last.safetensors.part", "best.safetensors.part")


def refuse_replacing_by_run(folder: Path, cache: Path, reads: Iterable[Path]) -> None:
    """Raise UsageError where a run would overwrite a file that it reads, or write into a folder of another program.

    cache: the folder of packed crops. reads: annotations, images, weights.
    """
    protected = Protected(dict.fromkeys(reads))
    written = (*(folder / name for name in (*FILES, *_PARTS)), *numbered_files(folder))
    refuse_replacing(protected, written, "--runs, --name")
    refuse_replacing(protected, sorted((*cache.glob("crops-*"), *cache.glob("unlabelled-*"))), "--cache")
    foreign = [name for name in FILES if (folder / name).exists()]
    if foreign and foreign != ["preview.jpg"] and "options.json" not in foreign:
        raise UsageError(
            f"--runs, --name: {printed(folder / foreign[0])} is not of a run of posecli train: choose another --name"
        )


def check_resumable(folder: Path, recipe: Recipe, data: TrainingData, init: str | None) -> None:
    """Write options.json. Raises UsageError where folder has an unfinished run with other options or data."""
    path = folder / "options.json"
    keys = data_keys(data, init)
    mine = json.loads(json.dumps({**recipe.to_json(), **keys}))
    if path.is_file() and (folder / "state.pt").is_file():
        began = json.loads(path.read_bytes())
        # What older runs did not write had its default.
        defaults = {**json.loads(json.dumps(Recipe().to_json())), **{key: mine[key] for key in keys}}
        changed = sorted(key for key in mine if mine[key] != began.get(key, defaults.get(key)))
        if changed:
            raise UsageError(f"{folder} began with other {', '.join(changed)}: take another --name, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(mine, indent=2) + "\n")
    part.replace(path)


def weights_header(recipe: Recipe, data: TrainingData, init: str | None) -> dict[str, Any]:
    """The entries about the training in the header of a run's weights."""
    training = {
        "recipe": recipe.to_json(),
        "people": len(data.crops),
        "unlabelled": 0 if data.unlabelled is None else len(data.unlabelled),
        "init": Path(init).name if init else None,
        "images": data.fingerprint,
    }
    return {"source": "posecli train", "training": training}


def data_keys(data: TrainingData, init: str | None) -> dict[str, str | None]:
    """Fingerprints of the labels and initial weights of a run, independent of their paths."""
    path = Path(init) if init else None
    return {
        "people": _key(data.crops.people),
        "negatives": None if data.negatives is None else _key(data.negatives.people),
        "unlabelled": None if data.unlabelled is None else _key(data.unlabelled.people),
        "init": sha256(path) if path is not None and path.is_file() else init,
    }


def _key(people: People) -> str:
    key = hashlib.blake2b(digest_size=16)
    key.update("\0".join(people.ids).encode("utf-8", "surrogatepass"))
    for array in (people.boxes, people.keypoints, people.weights):
        key.update(np.ascontiguousarray(array).tobytes())
    return key.hexdigest()
