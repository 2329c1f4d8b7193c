"""Time of `posecli eval` relative to `posecli run` on the same boxes, both commands alternating.

Both process all people that the annotation file has boxes for, and `run` writes no media. The reported seconds of
processing the images are compared; the time of scoring, which `run` does not have, and the CPU time of the whole
commands, with imports and report, are printed, too.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click


def processor_seconds(*arguments: object) -> float:
    """Processor seconds of a posecli command that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-m", "posecli", *map(str, arguments)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@click.command()
@click.argument("annotations", type=click.Path(path_type=Path, exists=True))
@click.argument("images", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rounds", default=5, show_default=True)
def main(annotations: Path, images: Path, rounds: int) -> None:
    print("| round | run s | eval s | ratio | scoring s | run, processor s | eval, processor s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            out = Path(folder) / str(number)
            run = (
                "run",
                images,
                "--detector",
                f"boxes:{annotations}",
                "--no-media",
                "--precision",
                "fp32",
                "-o",
                out / "run",
            )
            evaluate = ("eval", "--ann", annotations, "--images", images, "--boxes", annotations, "-o", out / "eval")
            used = [processor_seconds(*command) for command in (run, evaluate)]
            if number == 0:
                continue  # fills caches
            ran = json.loads((out / "run/run.json").read_bytes())["seconds"]
            metrics = json.loads((out / "eval/metrics.json").read_bytes())
            predicting, scoring = metrics["predict_seconds"], metrics["scoring_seconds"]
            ratios.append(predicting / ran)
            seconds = f"{ran:.1f} | {predicting:.1f} | {ratios[-1]:.2f} | {scoring:.1f}"
            print(f"| {number} | {seconds} | {used[0]:.1f} | {used[1]:.1f} |", flush=True)
    print(f"\nMedian ratio of eval to run: {statistics.median(ratios):.2f}.")


if __name__ == "__main__":
    main()
