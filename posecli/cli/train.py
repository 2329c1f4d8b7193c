"""`posecli train`: a SimCC model from COCO-format keypoints."""

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from posecli.errors import DataError, ExitCode, UsageError

if TYPE_CHECKING:
    from posecli.train.data import Source
    from posecli.train.recipe import Recipe


def _stages(text: str, batch_size: int, freeze: int) -> tuple[Any, ...]:
    from posecli.train.recipe import Stage

    stages = []
    for part in text.split(","):
        size, _, samples = part.strip().partition(":")
        height, _, width = size.partition("x")
        if not (height.isdigit() and width.isdigit() and samples.replace("_", "").isdigit()):
            raise UsageError(f"--stages {part!r}: HEIGHTxWIDTH:SAMPLES, e.g. 128x96:200000,256x192:100000")
        small = int(height) <= 128
        stages.append(
            Stage(
                (int(height), int(width)),
                int(samples),
                batch_size if small else max(1, batch_size // 2),
                rate=1.0 if small else 0.7,
                freeze=freeze,
            )
        )
    return tuple(stages)


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Folder with annotations/ and train2017/."
)
@click.option(
    "--ann", multiple=True, type=click.Path(path_type=Path), help="COCO keypoints; with --images; repeatable."
)
@click.option("--images", multiple=True, metavar="DIR[:WEIGHT]", help="Images of each --ann, and its weight.")
@click.option("--val-ann", type=click.Path(path_type=Path), help="COCO keypoints to judge by.")
@click.option("--val-images", type=click.Path(path_type=Path), help="Their images.")
@click.option("--name", default="simcc", help="The run's folder under --runs.")
@click.option("--runs", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"))
@click.option("--backbone", default="mobilenet_v2", help="A torchvision backbone.")
@click.option("--deconv", default="128", help="Channels of the transposed convolutions, e.g. 256,256,256, or none.")
@click.option("--split-ratio", default=2.0, help="Bins per pixel, k.")
@click.option("--sigma", default=6.0, help="Label's standard deviation in bins, at the last stage's size.")
@click.option("--temperature", default=1.0, help="Factor on the logits (RTMPose's beta).")
@click.option("--stages", default="128x96:200000,256x192:100000", help="Input sizes and samples of each.")
@click.option("--batch-size", default=64, help="At 128x96; half of it at larger sizes.")
@click.option("--rate", default=1.5e-3, help="Learning rate.")
@click.option("--freeze", default=0, help="Leading blocks of the trunk that stay as they are.")
@click.option("--smoothing", default=0.0, help="Label smoothing.")
@click.option(
    "--random-head", is_flag=True, help="Start the classifiers at random instead of as a heatmap's marginals."
)
@click.option("--flip-p", default=0.5)
@click.option("--scale", default=0.35)
@click.option("--rotation", default=45.0, help="Degrees to either side.")
@click.option("--rotation-p", default=0.5)
@click.option("--half-body-p", default=0.15)
@click.option("--colour", default=0.3)
@click.option("--dropout-p", default=0.2)
@click.option(
    "--init", type=click.Path(path_type=Path, dir_okay=False), help="torchvision's ImageNet weights of the backbone."
)
@click.option("--seed", default=0)
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=int, help="CPU threads of torch.")
@click.option("--evaluate-every", default=50_000, help="Samples between two evaluations.")
@click.option("--preview", type=int, help="Write a contact sheet of so many augmented samples, and stop.")
@click.option("--cache", type=click.Path(path_type=Path, file_okay=False), help="Folder of packed crops.")
def train_command(**options: Any) -> int:
    """Train a SimCC pose model on COCO-format keypoints.

    Without --ann, --data DIR (or $POSECLI_DATA, or this folder, or data/) holds
    annotations/person_keypoints_train2017.json with train2017/, and the same of val2017 to judge by. The same
    command resumes an unfinished run of the same name; Ctrl-C saves first.
    """
    import torch

    from posecli.pose.config import PoseConfig
    from posecli.pose.runtimes import resolve_device
    from posecli.train.augment import Augmentation
    from posecli.train.data import pack_crops, read_people
    from posecli.train.loop import train
    from posecli.train.recipe import Recipe

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    sources, validation = _sources(options)
    people = read_people(sources)
    stages = _stages(options["stages"], options["batch_size"], options["freeze"])
    deconv = () if options["deconv"] == "none" else tuple(int(c) for c in options["deconv"].split(","))
    recipe = Recipe(
        model=PoseConfig(
            backbone=options["backbone"],
            deconv_channels=deconv,
            input_size=stages[-1].input_size,
            split_ratio=options["split_ratio"],
            sigma=(options["sigma"], options["sigma"]),
            temperature=options["temperature"],
            keypoints=people.keypoint_set,
        ),
        stages=stages,
        learning_rate=options["rate"],
        smoothing=options["smoothing"],
        marginal_start=not options["random_head"],
        seed=options["seed"],
        augmentation=Augmentation(
            flip_p=options["flip_p"],
            scale=options["scale"],
            rotation=options["rotation"],
            rotation_p=options["rotation_p"],
            half_body_p=options["half_body_p"],
            colour=options["colour"],
            dropout_p=options["dropout_p"],
        ),
    )
    folder = options["runs"] / options["name"]
    crops = pack_crops(people, options["cache"] or options["runs"] / "crops")
    click.echo(
        f"{len(people)} people in {len(set(people.images))} images, {recipe.samples} samples → {folder}", err=True
    )
    if options["preview"]:
        sheet = folder / "preview.jpg"
        _write_preview(sheet, crops, recipe, options["preview"])
        click.echo(str(sheet))
        return ExitCode.OK
    check_resumable(folder, recipe)
    trunk = _trunk_state(options["init"]) if options["init"] else None
    evaluate = _evaluator(validation, people.images) if validation else None
    device = str(resolve_device(options["device"]))
    header = {"source": "posecli train", "training": {"recipe": recipe.to_json(), "people": len(people)}}
    last = train(
        recipe,
        crops,
        folder,
        trunk_state=trunk,
        device=device,
        evaluate=evaluate,
        evaluate_every=options["evaluate_every"],
        report=_report(recipe.samples),
        header=header,
    )
    click.echo(f"done → {last}", err=True)
    return ExitCode.OK


def _sources(options: dict[str, Any]) -> "tuple[list[Source], tuple[Path, Path] | None]":
    from posecli.train.data import Source

    validation = (options["val_ann"], options["val_images"]) if options["val_ann"] else None
    if bool(options["val_ann"]) != bool(options["val_images"]):
        raise UsageError("--val-ann and --val-images belong together")
    if options["ann"]:
        if len(options["ann"]) != len(options["images"]):
            raise UsageError("each --ann needs its --images, in the same order")
        sources = []
        for annotations, images in zip(options["ann"], options["images"], strict=True):
            path, separator, weight = images.rpartition(":")
            weighted = bool(separator) and weight.replace(".", "", 1).isdigit() and not Path(images).exists()
            sources.append(Source(annotations, Path(path if weighted else images), float(weight) if weighted else 1.0))
        return sources, validation
    folder = find_layout(options["data"])
    truth = folder / "annotations" / "person_keypoints_val2017.json"
    if validation is None and truth.is_file():
        validation = (truth, folder / "val2017")
    return [Source(folder / "annotations" / "person_keypoints_train2017.json", folder / "train2017")], validation


def find_layout(given: Path | None) -> Path:
    """The folder that holds annotations/person_keypoints_train2017.json. Raises DataError where none does."""
    places = [given] if given else [Path(os.environ.get("POSECLI_DATA", ".")), Path(), Path("data")]
    for place in places:
        if (place / "annotations" / "person_keypoints_train2017.json").is_file():
            return place
    looked = ", ".join(str(place / "annotations") for place in dict.fromkeys(places))
    raise DataError(f"no person_keypoints_train2017.json in {looked}: give --data, or --ann with --images")


def check_resumable(folder: Path, recipe: "Recipe") -> None:
    """Write the run's options; an unfinished run is resumed only with the options it began with."""
    path = folder / "options.json"
    mine = json.loads(json.dumps(recipe.to_json()))
    if path.is_file() and (folder / "state.pt").is_file():
        began = json.loads(path.read_bytes())
        changed = sorted(key for key in mine if mine[key] != began.get(key))
        if changed:
            raise UsageError(f"{folder} began with other {', '.join(changed)}: take another --name, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(mine, indent=2) + "\n")


def _trunk_state(path: Path) -> Any:
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise DataError(
            f"--init {path}: not a torch state of a backbone ({str(error).splitlines()[0][:100]})"
        ) from error


def _evaluator(validation: tuple[Path, Path], training_images: tuple[Path, ...]) -> Any:
    from posecli.evaluate.people import read_truth, results_on_true_boxes
    from posecli.evaluate.scoring import score_keypoints
    from posecli.pose.estimator import Estimator
    from posecli.pose.runtimes import load_runner

    truth = read_truth(*validation)
    shared = {path.name for path in truth.files.values()} & {path.name for path in training_images}
    if shared:
        raise DataError(f"{len(shared)} validation images are trained on, first {min(shared)}: separate them")

    def evaluate(network: Any, config: Any) -> dict[str, float]:
        device = str(next(network.parameters()).device)
        estimator = Estimator(config, load_runner(network, config, device=device, runtime="torch"))
        scores = score_keypoints(truth.dataset, results_on_true_boxes(estimator, truth), truth.keypoint_set)
        return {name: round(scores.values[name], 4) for name in ("AP", "AP50", "AP75", "AR")}

    return evaluate


def _report(total: int) -> Any:
    def report(row: dict[str, float]) -> None:
        if "AP" in row:
            click.echo(f"{row['samples']:>9,} samples  AP {row['AP']:.3f}  AP50 {row['AP50']:.3f}", err=True)
            return
        left = (total - row["samples"]) / max(row["samples_per_s"], 1e-9)
        click.echo(
            f"{row['samples']:>9,} samples  loss {row['loss']:.4f}  {row['samples_per_s']:.0f}/s  "
            f"{left / 60:.0f} min left at this speed",
            err=True,
        )

    return report


def _write_preview(path: Path, crops: Any, recipe: "Recipe", count: int) -> None:
    import numpy as np

    from posecli.output.draw import draw_poses
    from posecli.output.images import write_image
    from posecli.train.loop import batches
    from posecli.types import Poses

    stage = dataclasses.replace(recipe.stages[-1], batch_size=count)
    batch = next(iter(batches(crops, recipe, stage, 0, count)))
    tiles: list[np.ndarray[Any, Any]] = []
    for crop, points, weights in zip(batch.crops.numpy(), batch.points.numpy(), batch.weights.numpy(), strict=True):
        height, width = crop.shape[:2]
        poses = Poses(
            keypoints=points[None],
            std=np.zeros_like(points)[None],
            scores=weights[None],
            boxes=np.array([[0, 0, width, height]], np.float32),
            box_scores=np.ones(1, np.float32),
            person_scores=np.ones(1, np.float32),
        )
        tiles.append(draw_poses(crop, poses, recipe.model.keypoints, keypoint_threshold=1e-6))
    columns = min(8, count)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    write_image(path, np.vstack(rows))
