"""What x264's settings cost: CPU time, size and PSNR of clips that are decoded once and encoded with each.

python benchmarks/encoding.py CLIP... [--frames 200] [--rounds 3]

The first row is the preset veryfast as x264 has it, but for the macroblock tree, which posecli leaves out. PSNR: of the
luma, mean and lowest of the frames.
"""

import io
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import av
import click
import numpy as np
from numpy.typing import NDArray

from posecli.media.encoders import ENCODERS

Frames = list[NDArray[np.uint8]]
_PLAIN = "threads=2:mbtree=0"


class Encoded(NamedTuple):
    """CPU seconds, bytes, and PSNR in dB."""

    seconds: float
    size: int
    mean: float
    lowest: float


def variants() -> dict[str, dict[str, str]]:
    """Name → options of FFmpeg's libx264."""

    def x264(crf: int, preset: str, more: str = "") -> dict[str, str]:
        return {"crf": str(crf), "preset": preset, "threads": "2", "x264-params": _PLAIN + more}

    return {
        "veryfast, crf 20": x264(20, "veryfast"),
        "posecli's default": dict(ENCODERS["h264"].settings(20, "veryfast")),
        "only intra partitions": x264(20, "veryfast", ":analyse=i4x4,i8x8"),
        "only b-adapt=0": x264(20, "veryfast", ":b-adapt=0"),
        "superfast, crf 20": x264(20, "superfast"),
        "superfast, crf 22": x264(22, "superfast"),
    }


def read(path: Path, count: int) -> Frames:
    """The first frames as yuv420p, (3/2 height, width)."""
    with av.open(str(path)) as container:
        frames = zip(range(count), container.decode(video=0), strict=False)
        return [np.asarray(frame.reformat(format="yuv420p").to_ndarray(), np.uint8) for _, frame in frames]


def encode(frames: Frames, options: dict[str, str]) -> Encoded:
    """The frames through libx264 with these options."""
    file = io.BytesIO()
    height, width = frames[0].shape[0] * 2 // 3, frames[0].shape[1]
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        start = time.process_time()
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        seconds = time.process_time() - start
    size = file.tell()
    file.seek(0)
    with av.open(file, "r") as written:
        decoded = (frame.to_ndarray() for frame in written.decode(video=0))
        errors = [
            float(np.mean((one[:height].astype(np.float32) - other[:height]) ** 2))
            for one, other in zip(frames, decoded, strict=True)
        ]
    noise = [10 * np.log10(255**2 / max(error, 1e-9)) for error in errors]
    return Encoded(seconds, size, float(np.mean(noise)), float(min(noise)))


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--frames", default=200, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="The median of their times counts.")
def main(clips: tuple[Path, ...], frames: int, rounds: int) -> None:
    """Print a Markdown table."""
    click.echo("| clip | settings | CPU time | size | PSNR, dB | lowest of a frame |\n|---|---|---|---|---|---|")
    for clip in clips:
        pictures = read(clip, frames)
        found: dict[str, list[Encoded]] = {name: [] for name in variants()}
        for _ in range(rounds):
            for name, options in variants().items():
                found[name].append(encode(pictures, options))
        first, *_ = found.values()
        seconds = statistics.median(each.seconds for each in first)
        for name, results in found.items():
            own, result = statistics.median(each.seconds for each in results), results[0]
            click.echo(
                f"| {clip.name} | {name} | {own / seconds:.2f} | {result.size / first[0].size:.2f} | {result.mean:.2f} "
                f"({result.mean - first[0].mean:+.2f}) | {result.lowest:.2f} ({result.lowest - first[0].lowest:+.2f}) |"
            )


if __name__ == "__main__":
    main()
