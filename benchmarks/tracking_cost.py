"""Cost of ids and smoothing in a run: their CPU time relative to that of the whole process.

python benchmarks/tracking_cost.py CLIP... --out results/tracking_cost.md
"""

import tempfile
import time
from pathlib import Path

import click

from posecli.cli.progress import PlainProgress
from posecli.media.inputs import find_inputs
from posecli.pipeline import write
from posecli.pipeline.run import run
from posecli.pipeline.run_options import RunOptions, TrackingOptions
from posecli.predict import load_predictor
from posecli.tracking.clip import ClipTracker
from posecli.types import Frame, Poses


class Timed(ClipTracker):
    """A ClipTracker that measures its CPU time."""

    seconds = 0.0
    people = 0

    def __call__(self, frame: Frame, poses: Poses) -> Poses:
        """Track as usual."""
        start = time.thread_time()
        found = super().__call__(frame, poses)
        Timed.seconds += time.thread_time() - start
        Timed.people += len(poses)
        return found


@click.command()
@click.argument("clips", nargs=-1, type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(clips: tuple[Path, ...], out: Path | None) -> None:
    """Print a table."""
    write.ClipTracker = Timed  # type: ignore[attr-defined]
    predictor = load_predictor(device="cpu", precision="fp32")
    lines = ["| clip | frames | people a frame | CPU ms a frame | of the run's CPU time |", "|---|---|---|---|---|"]
    for clip in clips:
        Timed.seconds, Timed.people = 0.0, 0
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            options = RunOptions(tracking=TrackingOptions(smooth="kalman"))
            found = find_inputs([str(clip)])
            results = run(found, Path(folder), predictor, options, PlainProgress(1, quiet=True))
        frames, seconds = results.totals["frames"], time.process_time() - start
        lines.append(
            f"| {clip.name} | {frames} | {Timed.people / frames:.1f} | {1000 * Timed.seconds / frames:.2f} "
            f"| {Timed.seconds / seconds:.2%} |"
        )
        click.echo(lines[-1], err=True)
    command = f"python benchmarks/tracking_cost.py {' '.join(clip.name for clip in clips)}"
    text = f"# Cost of ids and streaming smoothing\n\n    {command}\n\n" + "\n".join(lines) + "\n"
    click.echo(text)
    if out is not None:
        out.write_text(text)


if __name__ == "__main__":
    main()
