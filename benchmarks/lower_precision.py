"""What a lower precision does to keypoints on the path for GPUs: python benchmarks/lower_precision.py [--device cpu]

The networks of detector and pose model in float16 and bfloat16 against float32, on the photos of samples/. Printed are
distances in pixels of keypoints with a score above 0.3, of people that are found in both.
"""

from dataclasses import replace
from pathlib import Path

import click
import cv2
import numpy as np

from posecli.detect import embedded, load_detector
from posecli.detect.resident import ResidentDetector
from posecli.geometry import iou
from posecli.pose.estimator import load_estimator
from posecli.pose.loading import load_network
from posecli.pose.resident import ResidentPose
from posecli.pose.runner import module_spec
from posecli.predict import Predictor
from posecli.weights.files import find_weights

SAMPLES = Path(__file__).parents[1] / "samples"


def predictor(name: str, device: str, precision: str) -> Predictor:
    """A predictor on the device, in any precision of torch's autocast."""
    estimator = load_estimator(name, device=device, resident=True)
    spec = module_spec(lambda: load_network(find_weights(name))[0], estimator.config)
    resident = ResidentPose(spec, estimator.config, device, precision)
    spec, config = embedded.module_spec()
    detector, locate = (
        load_detector(device=device, resident=True),
        ResidentDetector(spec, config, device, precision, 100),
    )
    lowest = min(config.proposal, detector.verified)
    return Predictor(
        replace(detector, propose=lambda frames, names: embedded.search_views(locate, config, frames, lowest, 100)),
        replace(estimator, runner=replace(estimator.runner, resident=resident)),
    )


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--samples", type=click.Path(path_type=Path, exists=True), default=SAMPLES)
def main(device: str, samples: Path) -> None:
    """Print a Markdown table."""
    found = [cv2.imread(str(path)) for path in sorted(samples.glob("*.jpg"))]
    photos = [np.ascontiguousarray(image[..., ::-1], np.uint8) for image in found if image is not None]
    click.echo(
        "| model | precision | people, float32 | people | median px | 95 % px | largest px |\n" + "|---" * 7 + "|"
    )
    for name in ("pose", "pose-fast"):
        exact = predictor(name, device, "float32")(photos)
        for precision in ("float16", "bfloat16"):
            lower = predictor(name, device, precision)(photos)
            apart = []
            for a, b in zip(exact, lower, strict=True):
                overlap = iou(a.boxes, b.boxes)
                for row in range(len(a)):
                    if len(b) and overlap[row].max() > 0.5:
                        other = b.keypoints[int(overlap[row].argmax())]
                        apart.append(np.linalg.norm(a.keypoints[row] - other, axis=-1)[a.scores[row] > 0.3])
            every = np.concatenate(apart)
            numbers = " | ".join(f"{np.quantile(every, q):.2f}" for q in (0.5, 0.95, 1))
            counts = f"{sum(map(len, exact))} | {sum(map(len, lower))}"
            click.echo(f"| {name} | {precision} | {counts} | {numbers} |")


if __name__ == "__main__":
    main()
