"""`posecli train-detector`: the weights of the detector "person" from COCO-format boxes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posecli.cli.groups import GroupedCommand, option, option_group
from posecli.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from posecli.train.detector import DetectorRecipe
    from posecli.train.detector_data import DetectionSource

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_NATURAL = click.IntRange(1)


@click.command(
    cls=GroupedCommand,
    examples=[
        ("posecli train-detector --ann people.json --images photos/ --init person", "fine-tune the embedded detector"),
        ("posecli run photos/ --detector-weights runs/person/person.safetensors", "use the result"),
    ],
)
@option_group(
    "Data",
    option("--ann", "annotations", multiple=True, required=True, type=_FILE, help="COCO boxes of people; repeatable."),
    option(
        "--images",
        multiple=True,
        metavar="DIR[:TIMES]",
        help="Images of each --ann; how often each is used in an epoch.",
    ),
)
@option_group(
    "Model",
    option("--init", metavar="NAME|FILE", help="Initial weights, of a detector.  [default: random]"),
    option("--input-size", default=416, type=click.IntRange(64, 4096), help="Longest side of images in inference."),
)
@option_group(
    "Training",
    option("--samples", default=20_000, type=_NATURAL, help="Training images in all."),
    option("--batch-size", default=16, type=_NATURAL, help="Images in a batch."),
    option(
        "--size", "sizes", default="320", metavar="SIDE,…", help="Sides of training images, one for each batch in turn."
    ),
    option("--learning-rate", default=2e-4, type=click.FloatRange(0, min_open=True), help="Highest learning rate."),
    option(
        "--backbone-lr-factor", default=0.5, type=click.FloatRange(0), help="Factor on the backbone's learning rate."
    ),
    option("--weight-decay", default=0.05, type=click.FloatRange(0), help="Of AdamW."),
    option(
        "--constant-fraction",
        default=0.3,
        type=click.FloatRange(0, 1),
        help="Part of the run before the learning rate decays.",
    ),
    option("--mosaic-p", default=0.4, type=click.FloatRange(0, 1), help="Probability of a mosaic of four photos."),
    option("--seed", default=0, help="Seed of all random numbers."),
)
@option_group(
    "Run",
    option("--name", default="person", help="The run's folder under --runs."),
    option("--runs", type=_FOLDER, default=Path("runs"), help="Folder of runs."),
    option("--license", "licence", help="License in the weights' header, such as Apache-2.0."),
    option("--device", default="auto", help="auto, cpu, cuda or cuda:N."),
    option("--threads", type=_NATURAL, help="CPU threads of torch.", show_default=False),
)
def train_detector_command(**options: Any) -> int:
    """Train the person detector on boxes in COCO format.

    Boxes with iscrowd, and whole images with "persons_complete": false, are ignored regions; images without a box are
    negatives. The same command resumes an unfinished run; Ctrl-C saves first. The result is person.safetensors in the
    run's folder.
    """
    import torch

    from posecli.results.lock import locked
    from posecli.runtime.device import resolve_device
    from posecli.train.detector import read_init_tensors, train_detector
    from posecli.train.detector_data import read_photos
    from posecli.weights.files import find_weights, sha256

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    folder: Path = options["runs"] / options["name"]
    init = find_weights(options["init"]) if options["init"] else None
    recipe = _recipe(options, init)
    initial = read_init_tensors(init, recipe.model) if init else None
    header: dict[str, Any] = {"architecture": recipe.model.architecture, "source": "posecli train-detector"}
    if options["licence"]:
        header["licence"] = options["licence"]
    sources = _sources(options)
    header["training"] = {
        "data": [[source.annotations.name, source.repeat] for source in sources],
        "init": None if init is None else {"file": init.name, "sha256": sha256(init), **_origin(init)},
    }
    with locked(folder, "--runs, --name", ".lock"):
        _check_resumable(folder, recipe, header)
        photos = read_photos(sources)
        click.echo(f"{len(photos)} images an epoch, {recipe.samples:,} samples → {folder}", err=True)
        device = str(resolve_device(options["device"]))
        weights = train_detector(
            recipe, photos, folder, init=initial, device=device, header=header, report=_reporter(recipe.samples)
        )
    click.echo(str(weights))
    return ExitCode.OK


def _reporter(total: int) -> Any:
    def report(row: dict[str, float]) -> None:
        left = (total - row["samples"]) / max(row["samples_per_s"], 1e-9)
        click.echo(
            f"{row['samples']:>9,} samples  loss {row['loss']:.4f}  {row['samples_per_s']:.1f}/s  "
            f"{left / 60:.0f} min left at this speed",
            err=True,
        )

    return report


def _sources(options: dict[str, Any]) -> "list[DetectionSource]":
    from posecli.train.detector_data import DetectionSource

    if len(options["annotations"]) != len(options["images"]):
        raise UsageError("--ann, --images: one folder of images for each file of annotations")
    sources = []
    for annotations, text in zip(options["annotations"], options["images"], strict=True):
        folder, colon, times = text.rpartition(":")
        if not colon or Path(text).is_dir():
            folder, times = text, "1"
        if not times.isdecimal() or not int(times):
            raise UsageError(f"--images {text}: {times!r} is no whole number of times from 1")
        if not Path(folder).is_dir():
            raise UsageError(f"--images {folder}: no such folder")
        sources.append(DetectionSource(annotations, Path(folder), int(times)))
    return sources


def _recipe(options: dict[str, Any], init: Path | None) -> "DetectorRecipe":
    """The run's settings; the model is that of --init, where there is one."""
    from dataclasses import replace

    from posecli.detect.person_config import PersonConfig
    from posecli.train.detector import DetectorRecipe
    from posecli.weights.files import load_weights, read_config

    sides = options["sizes"].split(",")
    wrong = [side for side in (*sides, str(options["input_size"])) if not side.strip().isdecimal() or int(side) % 32]
    if wrong or not all(int(side) for side in sides):
        raise UsageError(f"--size, --input-size: {wrong[0] if wrong else 0} is no multiple of 32")
    model = PersonConfig()
    if init is not None:
        model = PersonConfig.from_json(read_config(init, load_weights(init)[1], "detector"))
    model = replace(model, input_size=(options["input_size"],) * 2)
    names = ("samples", "batch_size", "learning_rate", "backbone_lr_factor", "weight_decay", "constant_fraction")
    chosen = {name: options[name] for name in (*names, "mosaic_p", "seed")}
    return DetectorRecipe(model, sizes=tuple(int(side) for side in sides), **chosen)


def _origin(init: Path) -> dict[str, Any]:
    """The origin of the initial weights, from their header."""
    from posecli.weights.files import load_weights

    header = load_weights(init)[1]
    return {key: header[key] for key in ("source", "start") if key in header}


def _check_resumable(folder: Path, recipe: "DetectorRecipe", header: dict[str, Any]) -> None:
    """Write the run's options. Raises UsageError where an unfinished run in folder has other ones."""
    import json

    path = folder / "options.json"
    mine = json.loads(json.dumps({**recipe.to_json(), "training": header["training"]}))
    if path.is_file() and (folder / "state.pt").is_file():
        began = json.loads(path.read_bytes())
        changed = sorted(key for key in mine if mine[key] != began.get(key))
        if changed:
            raise UsageError(f"{folder} began with other {', '.join(changed)}: take another --name, or delete it")
    path.write_text(json.dumps(mine, indent=2) + "\n")
