"""Time of a 720p frame: the embedded detector against torchvision's ssdlite320 in eager torch, side by side.

python benchmarks/detector.py --out results/detector_speed.md

Both get the same frames, RGB in memory, and return boxes in the frame's pixels. ssdlite320 has random weights, as its
official ones need a download: the network costs the same, but with random scores NMS gets all boxes. It is therefore
timed twice: with high background scores, so that NMS gets no box (a lower bound), and with random scores (an upper
bound). The ratio is relative to the first.
"""

import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import click
import numpy as np
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from posecli.detect import Detector, load_detector
from posecli.types import Frame

SOURCE = Path(__file__).parents[1] / "samples" / "garden_walk.mp4"


def read_frames(count: int) -> list[Frame]:
    """The first frames of the sample clip, 1280×720."""
    frames = []
    with av.open(str(SOURCE)) as source:
        for frame in source.decode(video=0):
            frames.append(Frame(np.asarray(frame.reformat(1280, 720, "rgb24").to_ndarray(), np.uint8)))
            if len(frames) == count:
                break
    return frames


def ssdlite(*, empty: bool) -> Callable[[list[Frame]], object]:
    """torchvision's ssdlite320 with random weights; empty: all boxes are classified as background."""
    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    if empty:
        for layers in model.head.classification_head.module_list:
            with torch.no_grad():
                layers[-1].bias.view(-1, 91)[:, 0] = 50.0

    def find(frames: list[Frame]) -> object:
        with torch.inference_mode():
            return model([torch.from_numpy(f.pixels).permute(2, 0, 1).float() / 255 for f in frames])

    return find


def detect(detector: Detector, frames: list[Frame]) -> object:
    """Detections of frames that belong to no input."""
    return detector(frames, [""] * len(frames))


@click.command()
@click.option("--threads", default=2, help="Of torch; OpenVINO takes the cores that the process may use.")
@click.option("--batch", default=8, help="Frames a call.")
@click.option("--rounds", default=15)
@click.option("--out", type=click.Path(path_type=Path))
def main(threads: int, batch: int, rounds: int, out: Path | None) -> None:
    """Print medians and their ratios as a table."""
    torch.set_num_threads(threads)
    frames = read_frames(batch)
    finders: dict[str, Callable[[list[Frame]], object]] = {
        "ssdlite320, eager torch, nothing to suppress": ssdlite(empty=True),
        "ssdlite320, eager torch, random scores": ssdlite(empty=False),
    }
    for runtime in ("openvino", "torch"):
        finders[f"person, {runtime}"] = partial(detect, load_detector("person", device="cpu", runtime=runtime))
    seconds: dict[str, list[float]] = {name: [] for name in finders}
    for number in range(rounds + 2):
        for name, find in finders.items():
            start = time.perf_counter()
            find(frames)
            if number >= 2:
                seconds[name].append((time.perf_counter() - start) / batch)
    against = next(iter(finders))
    lines = [f"| detector | times as fast as {against} | middle half of the rounds |", "|---|---|---|"]
    for name, values in seconds.items():
        # A ratio for each round: other load of the machine slows down both.
        ratios = [first / own for first, own in zip(seconds[against], values, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        lines.append(f"| {name} | {statistics.median(ratios):.2f} | {low:.2f} to {high:.2f} |")
        click.echo(f"{name}: {1e3 * float(np.median(values)):.1f} ms a frame", err=True)
    command = f"python benchmarks/detector.py --threads {threads} --batch {batch} --rounds {rounds}"
    text = (
        f"# Time of a 720p frame\n\n    {command}\n\n"
        f"{platform.machine()}, {threads} threads, torch {torch.__version__.split('+')[0]}.\n"
        f"ssdlite320 has random weights: see the script.\n\n" + "\n".join(lines) + "\n"
    )
    click.echo(text)
    if out is not None:
        out.write_text(text)


if __name__ == "__main__":
    main()
