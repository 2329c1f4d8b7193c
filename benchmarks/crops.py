"""Crops that the pose model estimates for each person kept, on images and on clips.

python benchmarks/crops.py --images FOLDER --videos FOLDER [--stride 5 --every-frame] [--sheets FOLDER]

A Markdown table: one row for all images of the first folder, one for each clip of the second, and the clips' sum. Clips
are predicted as `posecli video` does by default, with box propagation; --every-frame: by detections only. Crops are the
detector's proposals and the propagated boxes; mirrored are the flip tests of those that are close to the threshold.
--sheets: write a contact sheet of each clip and of the images, 4 × 3 pictures with the poses drawn, to be looked at.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import click
import cv2
import numpy as np

from posecli import draw_poses, load_predictor, read_image, read_video
from posecli.pose.outputs import Outputs
from posecli.pose.verification import with_expected
from posecli.predict import Predictor
from posecli.tracking.propagate import BoxPropagator
from posecli.types import Detections, Frame

COLUMNS, ROWS, TILE = 4, 3, (480, 360)


class Counted:
    """A predictor that counts its proposals, all crops that its pose network runs on, frames and people."""

    def __init__(self, predictor: Predictor) -> None:
        self.proposals = self.crops = self.people = self.frames = 0
        self.found: list[Detections] = []
        propose, runner = predictor.detector.propose, predictor.estimator.runner
        if propose is None:
            raise click.UsageError("the detector makes no proposals")

        def counted_proposals(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
            found = self.found = propose(frames, names)
            self.proposals += sum(map(len, found))
            return found

        def counted_crops(crops: np.ndarray) -> Outputs:
            self.crops += len(crops)
            return runner(crops)

        detector = replace(predictor.detector, propose=counted_proposals)
        estimator = replace(predictor.estimator, runner=replace(runner, run=counted_crops))
        self.predictor = replace(predictor, detector=detector, estimator=estimator)

    def run(self, frames: Iterable[Frame], *, every: int | None) -> list[np.ndarray]:
        """Predict the frames of a clip; small pictures of some of them with their poses. every: see BoxPropagator."""
        pictures = []
        propagator = BoxPropagator(every, self.predictor.keypoints)
        for frame in frames:
            if propagator.needs_detection(frame):
                expected = propagator.expected(frame)
                poses = propagator.update(frame, self.predictor.predict([frame], [""], [expected])[0], True)
                self.proposals += len(with_expected(self.found[0], expected, 0.0)) - len(self.found[0])
            else:
                boxes = propagator.boxes(frame)
                self.proposals += len(boxes)
                poses = propagator.update(frame, self.predictor.estimate([frame], [boxes])[0], False)
            self.frames, self.people = self.frames + 1, self.people + len(poses)
            if self.frames % 10 == 1 or every == 1:
                pictures.append(fitted(draw_poses(frame, poses, self.predictor.keypoints, show_boxes=True)))
        return pictures

    def add(self, other: "Counted") -> None:
        """Add another one's counts."""
        for name in ("proposals", "crops", "people", "frames"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def row(self, name: str) -> str:
        """A line of the table."""
        kept = max(self.people, 1)
        figures = (self.frames, self.people, f"{self.proposals / kept:.2f}", self.crops - self.proposals)
        return f"| {name} | " + " | ".join(map(str, figures)) + " |"


def fitted(pixels: np.ndarray) -> np.ndarray:
    """The picture scaled into a tile, black around it."""
    scale = min(TILE[0] / pixels.shape[1], TILE[1] / pixels.shape[0])
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.zeros((TILE[1], TILE[0], 3), np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small[: TILE[1], : TILE[0]]
    return tile


def write_sheet(pictures: Sequence[np.ndarray], path: Path) -> None:
    """A contact sheet of pictures spread evenly over a clip."""
    rows = np.linspace(0, len(pictures) - 1, COLUMNS * ROWS).astype(int)
    tiles = [pictures[row] for row in rows]
    sheet = np.vstack([np.hstack(tiles[first : first + COLUMNS]) for first in range(0, len(tiles), COLUMNS)])
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


@click.command()
@click.option("--images", type=click.Path(path_type=Path, exists=True))
@click.option("--videos", type=click.Path(path_type=Path, exists=True))
@click.option("--stride", default=1, show_default=True, help="Every how many frames of a clip are taken.")
@click.option("--every-frame", is_flag=True, help="Run the detector on every frame.")
@click.option("--sheets", type=click.Path(path_type=Path), help="Folder of the contact sheets.")
def main(images: Path | None, videos: Path | None, stride: int, every_frame: bool, sheets: Path | None) -> None:
    """Print the table."""
    predictor = load_predictor(device="cpu", precision="fp32")
    click.echo("| | frames | people kept | crops for each | flip tests |\n|---|---|---|---|---|")
    inputs: list[tuple[str, Iterable[Frame]]] = []
    if images is not None:
        inputs.append((images.name, (read_image(path) for path in sorted(images.iterdir()))))
    for path in sorted(videos.iterdir()) if videos is not None else []:
        if path.suffix in (".mp4", ".avi", ".mkv"):
            inputs.append((path.stem, islice(read_video(path), 0, None, stride)))
    clips = Counted(predictor)
    for name, frames in inputs:
        counted = Counted(predictor)
        is_clip = images is None or name != images.name
        pictures = counted.run(frames, every=None if is_clip and not every_frame else 1)
        click.echo(counted.row(name))
        if is_clip:
            clips.add(counted)
        if sheets is not None:
            write_sheet(pictures, sheets / f"{name}.png")
    if clips.frames:
        click.echo(clips.row("all clips"))


if __name__ == "__main__":
    main()
