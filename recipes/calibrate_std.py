"""Fit the factor on a pose model's predicted standard deviations (std_scale) to people that no model was trained on.

    posecli eval WEIGHTS --ann ANN --images DIR --out OUT
    python recipes/calibrate_std.py WEIGHTS OUT/metrics.json

On training people with labels of a teacher the errors of labels and model agree, and the factor would be too small.
"""

import json
from pathlib import Path

import click

from posecli.weights.files import load_weights, save_weights


@click.command()
@click.argument("weights", type=click.Path(path_type=Path, exists=True))
@click.argument("metrics", type=click.Path(path_type=Path, exists=True))
def main(weights: Path, metrics: Path) -> None:
    """Multiply the factor in the header of WEIGHTS by the one that METRICS, of an evaluation of them, asks for."""
    tensors, header = load_weights(weights)
    found = json.loads(metrics.read_bytes())["keypoint_std"]["scale"]
    header["config"]["std_scale"] *= found
    save_weights(weights, tensors, header)
    click.echo(f"{weights}: std_scale {header['config']['std_scale']:.3f}")


if __name__ == "__main__":
    main()
