"""Peak memory of runs over clips of different lengths, each in a process of its own.

python benchmarks/memory.py --frames 1000 10000 --out results/memory.md
"""

import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import click
import numpy as np

SOURCE = Path(__file__).parents[1] / "samples" / "garden_walk.mp4"


def make_clip(path: Path, frames: int, height: int) -> None:
    """A clip of this many frames: the sample, over and over, scaled down."""
    width = round(height * 16 / 9 / 2) * 2
    with av.open(str(SOURCE)) as source:
        pictures = [frame.reformat(width, height, "yuv420p").to_ndarray() for frame in source.decode(video=0)]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pictures[i % len(pictures)]), format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


@click.command()
@click.option("--frames", type=int, multiple=True, default=(1000, 10000))
@click.option("--height", default=180)
@click.option("--out", type=click.Path(path_type=Path))
def main(frames: tuple[int, ...], height: int, out: Path | None) -> None:
    """Print a table of frames, seconds and peak resident memory."""
    rows = []
    for count in frames:
        with tempfile.TemporaryDirectory() as folder:
            clip = Path(folder) / "clip.mp4"
            make_clip(clip, count, height)
            command = [sys.executable, "-m", "posecli", "run", str(clip), "--out", f"{folder}/out", "-q"]
            start = time.monotonic()
            # A child of our own, so that its peak is the maximum over just its life.
            code = f"import subprocess, sys, resource; r = subprocess.run({command!r}); " + (
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(r.returncode)"
            )
            result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            rows.append((count, time.monotonic() - start, int(result.stdout) / 1024))
            click.echo(f"{count} frames: {rows[-1][1]:.0f} s, peak {rows[-1][2]:.0f} MiB", err=True)
    lines = ["| frames | seconds | peak RSS, MiB |", "|---|---|---|"]
    lines += [f"| {count} | {seconds:.0f} | {peak:.0f} |" for count, seconds, peak in rows]
    lines += ["", f"Largest over smallest: {max(r[2] for r in rows) / min(r[2] for r in rows):.3f}"]
    command_line = f"python benchmarks/memory.py {' '.join(f'--frames {c}' for c in frames)} --height {height}"
    text = f"# Peak memory of a run\n\n    {command_line}\n\n" + "\n".join(lines) + "\n"
    click.echo(text)
    if out is not None:
        out.write_text(text)


if __name__ == "__main__":
    main()
