"""What keeping freed memory saves a training step on the CPU.

python benchmarks/allocator.py --out results/allocator.md

Each way runs in a process of its own, in turns; processor time of user and kernel a step, lowest of the rounds.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import click

STEPS, WARM = 6, 2


def measure(keep: bool, batch: int) -> dict[str, float]:
    """Steps of MobileNetV2 SimCC at 256×192 in this process."""
    import torch

    from posecli.pose.config import PoseConfig
    from posecli.pose.network import SimCC
    from posecli.train.allocator import keep_freed_memory
    from posecli.train.loss import kl_sums

    if keep:
        keep_freed_memory()
    torch.manual_seed(0)
    network = SimCC(PoseConfig()).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    crops = torch.randn(batch, 3, 256, 192).contiguous(memory_format=torch.channels_last)
    points, weights = torch.rand(batch, 17, 2) * 180, torch.ones(batch, 17)
    for step in range(WARM + STEPS):
        if step == WARM:
            before, clock = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(crops)
        total, count = kl_sums(logits, points, weights, split_ratio=2.0, sigma=(6.0, 6.0))
        (total / count).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "user": (after.ru_utime - before.ru_utime) / STEPS,
        "kernel": (after.ru_stime - before.ru_stime) / STEPS,
        "wall": (time.monotonic() - clock) / STEPS,
        "peak": after.ru_maxrss / 1024,
    }


@click.command()
@click.option("--rounds", default=3)
@click.option("--batch", default=64)
@click.option("--one", type=click.Choice(["kept", "given back"]), help="Measure this way here, and print JSON.")
@click.option("--out", type=click.Path(path_type=Path))
def main(rounds: int, batch: int, one: str | None, out: Path | None) -> None:
    """Print a table."""
    if one is not None:
        click.echo(json.dumps(measure(one == "kept", batch)))
        return
    ways: dict[str, list[dict[str, float]]] = {"given back": [], "kept": []}
    for _ in range(rounds):
        for way, found in ways.items():
            command = [sys.executable, __file__, "--one", way, "--batch", str(batch)]
            found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    lines = ["| freed memory is | user s | kernel s | wall s | peak MiB |", "|---|---|---|---|---|"]
    for way, found in ways.items():
        best = {name: min(row[name] for row in found) for name in found[0]}
        lines.append(
            f"| {way} | "
            + " | ".join(f"{best[n]:.2f}" for n in ("user", "kernel", "wall"))
            + f" | {best['peak']:.0f} |"
        )
    text = "\n".join(
        [
            "# Memory of training steps",
            "",
            f"    python benchmarks/allocator.py --rounds {rounds} --batch {batch}",
            "",
            *lines,
        ]
    )
    click.echo(text)
    if out is not None:
        out.write_text(text + "\n")


if __name__ == "__main__":
    main()
