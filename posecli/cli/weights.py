"""`posecli weights`: lists weights and shows their headers."""

import json
from pathlib import Path
from typing import Any

import click

from posecli.errors import ExitCode


@click.group()
def weights_command() -> None:
    """List, show and fetch weights."""


@weights_command.command("list")
def list_command() -> int:
    """The embedded weights and their paths."""
    from posecli.errors import MachineError
    from posecli.weights.files import EMBEDDED, find_weights

    for name in EMBEDDED:
        try:
            path = find_weights(name)
        except MachineError as error:
            click.echo(f"{name:16} missing: {error}")
        else:
            click.echo(f"{name:16} {path.stat().st_size / 1e6:6.1f} MB  {path}")
    return ExitCode.OK


@weights_command.command("show")
@click.argument("name")
def show_command(name: str) -> int:
    """The header of a weights file, as JSON."""
    from posecli.weights.files import find_weights, load_weights, sha256

    path: Path = find_weights(name)
    tensors, header = load_weights(path)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    document: dict[str, Any] = {"path": str(path), "sha256": sha256(path), "values": parameters, **header}
    # A lone surrogate, of a header or of a name that is not UTF-8, is printed as JSON's escape.
    text = json.dumps(document, indent=2, ensure_ascii=False)
    click.echo(text.encode("utf-8", "backslashreplace").decode())
    return ExitCode.OK


@weights_command.command("pull")
@click.argument("name")
def pull_command(name: str) -> int:
    """Download an official torchvision detector's weights into torch.hub's cache before a run."""
    from posecli.detect import DETECTORS
    from posecli.detect.torchvision_zoo import official_weights
    from posecli.errors import UsageError

    names = [known for known in DETECTORS if known not in ("person", "boxes", "whole")]
    if name not in names:
        raise UsageError(f"weights pull {name}: choose from {', '.join(names)}")
    click.echo(str(official_weights(name)))
    return ExitCode.OK
