"""Training on a machine that has a GPU and little else: from packed crops, with checkpoints in parts.

    python recipes/gpu_train.py pack --data SHARED --out packs --height 192 --file-mib 40
    python recipes/gpu_train.py train flagship --packs packs --runs runs [--samples 3000000] [--from DIR]
    python recipes/gpu_train.py collect runs/flagship/parts --out DIR [--skip 4]
    python recipes/gpu_train.py join runs/flagship/last.safetensors --parts DIR

`pack` needs the data; `train` needs torch, torchvision, numpy, OpenCV, safetensors and click only. A run that is ended
(by a signal, or after --minutes) saves first; the same command resumes it, on another machine from the parts in --from.
"""

import os
import shutil
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click

from posecli.pose.config import PoseConfig
from posecli.train.recipe import Recipe, Stage

MIB = 2**20
# Of a larger state the weights alone are written in parts.
LARGEST_STATE = 60 * MIB


def recipe_of(kind: str, samples: int, precision: str, size: tuple[int, int] = (256, 192)) -> Recipe:
    """The recipe of a run: "flagship", SimCC's own network, or "pose", Lite-HRNet with the flagship as its teacher."""
    if kind == "tiny":  # of the test
        model = PoseConfig(deconv_channels=(8,), input_size=(64, 64), sigma=(3.0, 3.0))
        return Recipe(model, (Stage((64, 64), samples, 8),), warmup_samples=16, precision=precision)
    if kind == "flagship":
        model = PoseConfig("resnet50", deconv_channels=(256, 256, 256), input_size=size, sigma=(6.0, 6.0))
        stages = (Stage((128, 96), samples // 3, 256), Stage(size, samples - samples // 3, 256, lr_factor=0.5))
        return Recipe(
            model, stages, learning_rate=2e-3, backbone_lr_factor=1.0, warmup_samples=50_000, precision=precision
        )
    model = PoseConfig("lite_hrnet", deconv_channels=(), input_size=size, sigma=(6.0, 6.0))
    model = replace(model, person_score=True, box_head=True)
    return Recipe(
        model, (Stage(size, samples, 256),), learning_rate=1e-3, backbone_lr_factor=0.3, warmup_samples=20_000,
        precision=precision,
        negatives_share=0.0, teacher_weight=1.0,
    )  # fmt: skip


@click.group()
def main() -> None:
    """Pack, train, join."""


@main.command()
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the training data."
)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--height", default=192, show_default=True, help="Largest height of a crop in pixels.")
@click.option("--quality", default=80, show_default=True, help="Of the crops' JPEG.")
@click.option("--file-mib", default=40.0, show_default=True, help="Largest size of a file.")
@click.option("--files", default=0, help="Largest number of files; 0 for all.")
@click.option("--without", default="econ,icon,bsds500,multi_hmr,alphapose", show_default=True, help="Sources left out.")
@click.option("--cache", type=click.Path(path_type=Path), default=Path("runs/crops"), show_default=True)
def pack(
    data: Path, out: Path, height: int, quality: int, file_mib: float, files: int, without: str, cache: Path
) -> None:
    """Pack the people of all training sets into files, in random order: each file is a sample of all."""
    import json

    import numpy as np

    from posecli.train.data import Source, read_people
    from posecli.train.packing import Crops, pack_crops
    from posecli.train.portable import save_crops

    everyday = data / "everyday" / "person_keypoints_everyday.json"
    left_out = set(without.split(","))
    document = json.loads(everyday.read_bytes())
    barred = {i["file_name"] for i in document["images"] if str(i.get("source", "")).partition("/")[0] in left_out}
    sources = (
        Source(everyday, data / "everyday" / "images", 0.5),
        Source(data / "street" / "person_keypoints_street.json", data / "street" / "images", 0.5),
        Source(data / "lspet" / "person_keypoints_lspet.json", data / "lspet" / "images", 1.0),
        Source(data / "coco" / "annotations" / "person_keypoints_train2017.json", data / "coco" / "train2017", 3.0),
    )
    people = read_people(sources)
    folder = data / "everyday" / "images"
    kept = [i for i, path in enumerate(people.images) if path.parent != folder or path.name not in barred]
    crops = pack_crops(people.subset(kept), cache, height, quality)
    order = np.random.default_rng(0).permutation(len(crops))
    mixed = Crops(crops.people.subset(order), crops.data, crops.spans[order], crops.hashes[order])
    written = save_crops(mixed, out, int(file_mib * MIB))
    for path in written[files:] if files else ():
        path.unlink()
    for path in written[: files or None]:
        click.echo(f"{path}: {path.stat().st_size / MIB:.1f} MiB")


@main.command()
@click.argument("kind", type=click.Choice(["flagship", "pose", "tiny"]))
@click.option(
    "--packs", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the packed crops."
)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--from", "parts", type=click.Path(path_type=Path), help="Folder of parts to resume from.")
@click.option("--samples", default=3_000_000, show_default=True)
@click.option("--minutes", type=float, help="End after this time, resumable.")
@click.option("--init", type=click.Path(path_type=Path), help="Weights to begin with.")
@click.option("--teacher", type=click.Path(path_type=Path), help="Weights of the teacher.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--workers", default=8, show_default=True)
@click.option("--compile", "compiled", is_flag=True)
@click.option("--file-mib", default=15.0, show_default=True, help="Largest size of a part.")
def train(
    kind: str, packs: Path, runs: Path, parts: Path | None, samples: int, minutes: float | None,
    init: Path | None, teacher: Path | None, device: str, workers: int, compiled: bool, file_mib: float,
) -> None:  # fmt: skip
    """Train or resume a run; its state and weights are written in parts."""
    import torch

    from posecli.runtime import resolve_device
    from posecli.train.init import read_init
    from posecli.train.loop import PoseCallbacks
    from posecli.train.loop import train as train_pose
    from posecli.train.portable import join_files, load_crops
    from posecli.train.precision import resolve_precision
    from posecli.train.teacher import load_teacher

    device = resolve_device(device)
    folder = runs / kind
    folder.mkdir(parents=True, exist_ok=True)
    begun = folder / "state.pt"
    # Without a state, the averaged weights begin a new run.
    if parts is not None and not begun.is_file() and not join_files(parts, begun.name, begun):
        resumed = folder / "resumed.safetensors"
        if init is None and join_files(parts, "last.safetensors", resumed):
            init = resumed
    crops = load_crops(sorted(packs.glob("crops-*.safetensors")))
    recipe = recipe_of(kind, samples, resolve_precision("auto", torch.device(device)))
    master = None
    if teacher is not None:
        master = load_teacher(teacher, crops.people.keypoint_set, device)
        recipe = replace(recipe, teacher=master.sha256)
    click.echo(
        f"{len(crops)} people, {recipe.samples:,} samples on {device} in {recipe.precision} → {folder}", err=True
    )
    timer = threading.Timer(60 * (minutes or 0), os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    if minutes:
        timer.start()
    try:
        with suppress(KeyboardInterrupt):
            train_pose(
                recipe, crops, folder, teacher=master, init=None if init is None else read_init(str(init), ""),
                device=device, compiled=compiled, workers=workers,
                callbacks=PoseCallbacks(report=lambda row: click.echo(str(row), err=True)),
            )  # fmt: skip
    finally:
        timer.cancel()
        write_parts(folder, int(file_mib * MIB))


def write_parts(folder: Path, largest: int) -> None:
    """The run's files in parts: weights and metrics, and the state where it is small enough."""
    from posecli.train.portable import split_file

    for name in ("state.pt", "last.safetensors", "metrics.csv"):
        path = folder / name
        if path.is_file() and (name != "state.pt" or path.stat().st_size <= LARGEST_STATE):
            split_file(path, folder / "parts", largest)


@main.command()
@click.argument("parts", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--skip", default=0, help="Parts that were collected before.")
@click.option("--mib", default=60.0, show_default=True, help="Largest size of all.")
@click.option("--most", default=7, show_default=True, help="Largest number of them.")
def collect(parts: Path, out: Path, skip: int, mib: float, most: int) -> None:
    """Copy the next parts, in the order of their names, into a folder that only takes so much."""
    out.mkdir(parents=True, exist_ok=True)
    size = 0
    for number, path in enumerate(sorted(parts.iterdir())[skip:]):
        size += path.stat().st_size
        if size > mib * MIB or number == most:
            click.echo(f"left: from part {skip + number} on (--skip {skip + number})")
            break
        shutil.copyfile(path, out / path.name)
        click.echo(f"{path.name}: {path.stat().st_size / MIB:.1f} MiB")


@main.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--parts", type=click.Path(path_type=Path, exists=True), required=True)
def join(target: Path, parts: Path) -> None:
    """Write the file TARGET from its parts."""
    from posecli.train.portable import join_files

    if not join_files(parts, target.name, target):
        raise click.ClickException(f"{parts}: no parts of {target.name}")


if __name__ == "__main__":
    main()
