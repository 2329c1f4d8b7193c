"""Time of the pose networks alone: milliseconds for each person, several networks side by side.

python benchmarks/networks.py pose pose-fast [--rounds 9]

The networks take turns on 64 random crops; printed are the least and the median of the rounds, and the ratio of the
medians to the first network's. Use an idle machine.
"""

import time

import click
import numpy as np

from posecli.pose.estimator import load_estimator

CROPS = 64


@click.command()
@click.argument("weights", nargs=-1, required=True)
@click.option("--rounds", default=9, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--runtime", default="auto", show_default=True)
def main(weights: tuple[str, ...], rounds: int, device: str, runtime: str) -> None:
    """Print a Markdown table."""
    random = np.random.default_rng(0)
    networks = {}
    for name in weights:
        estimator = load_estimator(name, device=device, runtime=runtime)
        crops = random.integers(0, 256, (CROPS, *estimator.config.input_size, 3), np.uint8)
        estimator.runner(crops)
        networks[name] = (estimator, crops)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds):
        for name, (estimator, crops) in networks.items():
            start = time.perf_counter()
            estimator.runner(crops)
            seconds[name].append(time.perf_counter() - start)
    first = float(np.median(seconds[weights[0]]))
    click.echo("| network | input | runtime | ms a person, least | median | ratio |\n|---|---|---|---|---|---|")
    for name, (estimator, _) in networks.items():
        height, width = estimator.config.input_size
        least, median = 1000 * min(seconds[name]) / CROPS, 1000 * float(np.median(seconds[name])) / CROPS
        ran = f"{estimator.runner.runtime}, {estimator.runner.precision}"
        ratio = median * CROPS / 1000 / first
        click.echo(f"| {name} | {height}×{width} | {ran} | {least:.2f} | {median:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
