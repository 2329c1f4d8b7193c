"""Peak memory of runs over clips of different lengths and photos of different sizes, each in a process of its own.

python benchmarks/memory.py --frames 1000 10000 --out results/memory.md
"""

import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import click
import cv2
import numpy as np

SOURCE = Path(__file__).parents[1] / "samples" / "garden_walk.mp4"


def make_clip(path: Path, frames: int, height: int) -> None:
    """Write a clip of this many frames: the sample, repeated, downsampled."""
    width = round(height * 16 / 9 / 2) * 2
    with av.open(str(SOURCE)) as source:
        pictures = [frame.reformat(width, height, "yuv420p").to_ndarray() for frame in source.decode(video=0)]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            pixels = np.ascontiguousarray(pictures[i % len(pictures)], np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


def make_photos(folder: Path, count: int, megapixels: int) -> None:
    """Write JPEGs of this many megapixels, 4:3: the sample's first frame, enlarged."""
    with av.open(str(SOURCE)) as source:
        frame = next(source.decode(video=0)).to_ndarray(format="bgr24")
    height = int((megapixels * 1e6 * 3 / 4) ** 0.5) // 8 * 8
    large = cv2.resize(frame, (height * 4 // 3, height), interpolation=cv2.INTER_LINEAR)
    folder.mkdir()
    first = folder / "00.jpg"
    cv2.imwrite(str(first), large)
    for number in range(1, count):
        shutil.copy(first, folder / f"{number:02}.jpg")


def measure(source: Path, folder: Path) -> tuple[float, float]:
    """Seconds and peak resident MiB of a run."""
    command = [sys.executable, "-m", "posecli", "run", str(source), "--out", str(folder / "out"), "-q"]
    # In a child process, whose peak is that of the run alone.
    code = f"import subprocess, sys, resource; r = subprocess.run({command!r}); " + (
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(r.returncode)"
    )
    start = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return time.monotonic() - start, int(result.stdout) / 1024


@click.command()
@click.option("--frames", type=int, multiple=True, help="A clip of so many frames.")
@click.option("--height", default=180, help="Of the clips.")
@click.option("--photos", multiple=True, metavar="COUNTxMEGAPIXELS", help="So many photos of so many megapixels.")
@click.option("--out", type=click.Path(path_type=Path))
def main(frames: tuple[int, ...], height: int, photos: tuple[str, ...], out: Path | None) -> None:
    """Print a table of inputs, seconds and peak resident memory."""
    if not frames and not photos:
        frames, photos = (1000, 10000), ("1x1", "1x48", "16x48", "1x200", "3x200")
    rows = []
    inputs: list[int | str] = [*frames, *photos]
    for what in inputs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            source = folder / "clip.mp4" if isinstance(what, int) else folder / "photos"
            if isinstance(what, int):
                make_clip(source, what, height)
                label = f"clip of {what} frames, {height} pixels high"
            else:
                count, megapixels = map(int, what.split("x"))
                make_photos(source, count, megapixels)
                label = f"{count} photo{'s' * (count > 1)} of {megapixels} megapixels"
            rows.append((label, *measure(source, folder)))
            click.echo(f"{label}: {rows[-1][1]:.0f} s, peak {rows[-1][2]:.0f} MiB", err=True)
    lines = ["| input | seconds | peak RSS, MiB |", "|---|---|---|"]
    lines += [f"| {label} | {seconds:.0f} | {peak:.0f} |" for label, seconds, peak in rows]
    arguments = [a for count in frames for a in ("--frames", str(count))] + ["--height", str(height)] * bool(frames)
    arguments += [a for what in photos for a in ("--photos", what)]
    command_line = shlex.join(["python", "benchmarks/memory.py", *arguments])
    text = f"# Peak memory of a run\n\n    {command_line}\n\n" + "\n".join(lines) + "\n"
    click.echo(text)
    if out is not None:
        out.write_text(text)


if __name__ == "__main__":
    main()
