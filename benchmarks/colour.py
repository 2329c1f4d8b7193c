"""Colour difference between a clip and its annotated video, outside any drawing: mean difference in levels.

    python benchmarks/colour.py CLIPS > results/colour.md

Each clip is read by VideoReader and written by VideoWriter with nothing drawn. Both are then decoded by plain PyAV
and converted to RGB in floating point by this script, independent of the package's rounding. "bias" is the mean of
output − source for each channel, "noise" the mean of its absolute value (the encoder's loss).
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from posecli.media.encoders import EncodeOptions
from posecli.media.orientation import Orientation
from posecli.media.span import Span
from posecli.media.video import VideoReader
from posecli.media.write_video import VideoWriter

FRAMES = 60
EVERY = 6
KR_KB = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}


def rgb(frame: av.VideoFrame, matrix: int) -> np.ndarray:
    """(height, width, 3) float64 of an 8-bit 4:2:0 frame, chroma repeated."""
    height, width = frame.height, frame.width
    planes = []
    for plane, down in zip(frame.planes, (1, 2, 2), strict=True):
        rows, columns = -(-height // down), -(-width // down)
        pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:rows, :columns].astype(float)
        planes.append(pixels.repeat(down, 0).repeat(down, 1)[:height, :width])
    luma, blue, red = planes
    if frame.color_range != 2:
        luma, blue, red = (luma - 16) * 255 / 219, (blue - 128) * 255 / 224, (red - 128) * 255 / 224
    else:
        blue, red = blue - 128, red - 128
    kr, kb = KR_KB.get(matrix, (0.299, 0.114))
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    stacked = np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], axis=-1)
    return np.asarray(np.clip(stacked, 0, 255))


def images(path: Path, matrix: int) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i >= FRAMES:
                return
            if i % EVERY == 0:
                yield rgb(frame, matrix)


def measure(clip: Path, target: Path, codec: str) -> tuple[np.ndarray, float]:
    """Bias of each channel, and noise."""
    with (
        VideoReader(clip, Span(end=FRAMES)) as reader,
        VideoWriter(target, reader, EncodeOptions(codec, audio=False)) as writer,
    ):
        matrix = reader.colour.matrix_code
        for frame in reader:
            assert frame.time is not None
            writer.write(frame.pixels, frame.time)
    pairs = zip(images(clip, matrix), images(target, matrix), strict=True)
    differences = [after[: before.shape[0], : before.shape[1]] - before for before, after in pairs]
    bias = np.mean([difference.mean((0, 1)) for difference in differences], axis=0)
    return bias, float(np.mean([np.abs(difference).mean() for difference in differences]))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path)
    options = parser.parse_args()
    print("# Colours of annotated videos\n\n    python benchmarks/colour.py CLIPS > results/colour.md\n")
    print("Levels of 255, output − source, at the default quality. Bias: the mean; noise: the mean absolute value.\n")
    print("| clip | its codec | written as | bias R | bias G | bias B | overall | noise |")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number, clip in enumerate(sorted(options.clips.iterdir())):
            with VideoReader(clip) as reader:
                name, upright = reader.decoder.stream.codec_context.name, reader.orientation == Orientation()
            if not upright:
                continue  # the plain decoder does not tone map
            # Every clip as H.264, and each of the other codecs in turn.
            for codec in ("h264", ("hevc", "av1", "vp9")[number % 3]):
                bias, noise = measure(clip, Path(folder) / "out.mp4", codec)
                worst = max(worst, np.abs(bias).max())
                numbers = " | ".join(f"{value:+.2f}" for value in (*bias, bias.mean()))
                print(f"| {clip.name} | {name} | {codec} | {numbers} | {noise:.2f} |", flush=True)
    print(f"\nThe largest bias of a channel is {worst:.2f} levels.")


if __name__ == "__main__":
    main()
