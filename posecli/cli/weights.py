"""`posecli weights`: lists weights and shows their headers."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from posecli.cli.parameters import INPUT_SIZE, OFFLINE
from posecli.errors import ExitCode


@click.group()
def weights_command() -> None:
    """List, show and fetch weights."""


@weights_command.command("list")
def list_command() -> int:
    """The embedded weights, your own, and the published ones that can be fetched (with their publisher's figures)."""
    from posecli.errors import MachineError
    from posecli.text import printed
    from posecli.weights.files import EMBEDDED, find_weights, user_folder
    from posecli.weights.graphs import HEADER_SUFFIX
    from posecli.weights.zoo import LICENCE, published

    for name in EMBEDDED:
        try:
            path = find_weights(name)
        except MachineError as error:
            click.echo(f"{name:28} missing: {error}")
        else:
            click.echo(f"{name:28} {path.stat().st_size / 1e6:6.1f} MB  {path}")
    for path in sorted(user_folder().glob("*.safetensors")):
        click.echo(f"{printed(path.stem):28} {path.stat().st_size / 1e6:6.1f} MB  {printed(str(path))}")
    for path in sorted(user_folder().glob(f"*{HEADER_SUFFIX}")):
        click.echo(f"{printed(path.name.removesuffix(HEADER_SUFFIX)):28} {'graph':>9}  {printed(str(path))}")
    click.echo(f"\nTo fetch with `posecli weights pull NAME`, from OpenMMLab; licence: {LICENCE}")
    for model in dict.fromkeys(published().values()):
        size = f"{model.millions} M" if model.millions else ""
        about = f"{model.task:9} {model.keypoints:14} {model.input:8} {model.metric:14} {model.on:22} {size:8}"
        click.echo(f"{model.short:28} {about} {'' if model.short == model.name else model.name}".rstrip())
    return ExitCode.OK


@weights_command.command("show")
@click.argument("name")
def show_command(name: str) -> int:
    """The header of a weights file, as JSON."""
    from posecli.weights.files import find_weights, load_weights, sha256
    from posecli.weights.graphs import is_graph, read_header

    path: Path = find_weights(name)
    document: dict[str, Any] = {"path": str(path), "sha256": sha256(path)}
    if is_graph(path):
        document |= read_header(path)
    else:
        tensors, header = load_weights(path)
        document |= {"values": sum(tensor.numel() for tensor in tensors.values()), **header}
    # A lone surrogate, of a header or of a name that is not UTF-8, is printed as JSON's escape.
    text = json.dumps(document, indent=2, ensure_ascii=False)
    click.echo(text.encode("utf-8", "backslashreplace").decode())
    return ExitCode.OK


@weights_command.command("pull")
@click.argument("name")
@click.option("--offline", **OFFLINE)
def pull_command(name: str) -> int:
    """Fetch weights ahead of a run: a published pose model's (see list), or a torchvision detector's.

    A pose model's are resumed where they broke off, checked by the hash in their name and converted.
    """
    from posecli.detect import DETECTORS
    from posecli.detect.torchvision_zoo import official_weights
    from posecli.errors import UsageError
    from posecli.pose.pull import pull
    from posecli.weights.zoo import published

    detectors = [known for known in DETECTORS if known not in ("person", "boxes", "whole")]
    if name in detectors:
        click.echo(str(official_weights(name)))
        return ExitCode.OK
    if name not in published():
        models = "a published pose model (`posecli weights list`)"
        raise UsageError(f"weights pull {name}: choose from {', '.join(detectors)}, or {models}")
    with click.progressbar(length=100, label=name, file=sys.stderr) as bar:

        def progress(done: int, whole: int) -> None:
            bar.update((100 * done // whole if whole else 0) - bar.pos)

        path = pull(name, progress)
    click.echo(str(path))
    return ExitCode.OK


@weights_command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name to keep it under, for --weights NAME. Default: the file's name.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write instead.")
@click.option("--keypoints", help="Keypoint set: coco17, halpe26, coco_wholebody, hand21, face106, ap10k, …")
@click.option("--input-size", type=INPUT_SIZE, help="HEIGHTxWIDTH, where it does not follow from the tensors.")
@click.option("--split-ratio", type=click.FloatRange(0.25, 32), help="Bins per pixel, likewise.")
@click.option("--sigma", type=click.FloatRange(0.01, 1000), help="Standard deviation of the labels in bins.")
@click.option("--temperature", type=click.FloatRange(0.001, 1000), help="Factor of the logits before the softmax.")
@click.option("--source", help="Where the file comes from, for the header.")
@click.option("--licence", help="Its licence, for the header.")
def import_command(
    file: Path, name: str | None, out: Path | None, source: str | None, licence: str | None, **given: Any
) -> int:
    """Convert a checkpoint of MMPose's, mmengine's or SimCC's, or a plain state dict (.pth, .safetensors).

    Nothing in the file is executed. Backbone, head, sizes and keypoints are read off the tensors' shapes and the file's
    meta. A graph (.onnx, .xml with its .bin, or a .zip of one) is kept as it is, with a header file beside it; it is
    run by OpenVINO on the CPU, and cannot be trained.
    """
    from posecli.errors import UsageError
    from posecli.pose.foreign import Given
    from posecli.pose.importing import import_weights
    from posecli.weights.files import named_file
    from posecli.weights.graphs import holds_graph

    if name is not None and out is not None:
        raise UsageError("--name and --out: give one of them")
    target = named_file(name or file.stem) if out is None else out
    sigma = given.pop("sigma")
    fields = Given(**given, sigma=None if sigma is None else (sigma, sigma))
    if holds_graph(file):
        from posecli.pose.graphs import import_graph

        target, config = import_graph(file, target, fields, origin=source, licence=licence)
        network = f"graph, sigma {config.sigma[0]:.3g}, temperature {config.temperature:g}"
    else:
        config = import_weights(file, target, fields, origin=source, licence=licence)
        network = f"{config.backbone}, head {config.head}"
    height, width = config.input_size
    keypoints = f"{len(config.keypoints)} keypoints ({config.keypoints.name})"
    click.echo(f"{target}: {network}, {keypoints}, input {height}x{width}")
    return ExitCode.OK
