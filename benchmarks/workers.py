"""`--workers 2` against one process on one core and against the plain run on both, whole processes, interleaved.

python benchmarks/workers.py --data SHARED --rounds 3 --out results/workers.md

200 photos (samples of different sizes) and 20 clips of 40 frames cut from the data set's videos. The core of the first
run is that of taskset; the media of the other two are compared with its media, byte by byte.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import click
import cv2

PHOTOS, CLIPS, FRAMES = 200, 20, 40
ROOT = Path(__file__).parents[1]
RUNS = {"one core": ((0,), 1), "plain": ((0, 1), 1), "--workers 2": ((0, 1), 2)}


def make_photos(folder: Path) -> None:
    """Photos of 320 to 640 pixels from the samples."""
    sources = [
        image for path in sorted((ROOT / "samples").glob("*.jpg")) if (image := cv2.imread(str(path))) is not None
    ]
    for number in range(PHOTOS):
        image = sources[number % len(sources)]
        side = 320 + 8 * (number % 41)
        scale = side / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{number:03}.jpg"), small)


def make_clips(folder: Path, videos: Path) -> None:
    """Clips of consecutive frames, each from another place of a video, at most 640 pixels wide."""
    sources = sorted(videos.iterdir())
    for number in range(CLIPS):
        source = sources[number % len(sources)]
        skipped = FRAMES * (number // len(sources))
        with av.open(str(source)) as read, av.open(str(folder / f"{number:02}.mp4"), "w") as written:
            stream, kept = None, 0
            for place, frame in enumerate(read.decode(video=0)):
                if place < skipped or kept == FRAMES:
                    continue
                if stream is None:
                    scale = min(1, 640 / frame.width)
                    size = [2 * round(side * scale / 2) for side in (frame.width, frame.height)]
                    stream = written.add_stream("libx264", rate=25, options={"crf": "22", "preset": "veryfast"})
                    stream.width, stream.height = size
                    stream.pix_fmt = "yuv420p"
                image = frame.reformat(stream.width, stream.height, "yuv420p")
                image.pts, image.time_base = kept, Fraction(1, 25)
                written.mux(stream.encode(image))
                kept += 1
            assert stream is not None
            written.mux(stream.encode(None))


def seconds(inputs: Path, out: Path, cores: tuple[int, ...], workers: int) -> float:
    """Wall time of a command from its start to its end."""
    command = [sys.executable, "-m", "posecli", "run", str(inputs), "-o", str(out), "--workers", str(workers), "-q"]
    start = time.perf_counter()
    subprocess.run(command, check=True, preexec_fn=lambda: os.sched_setaffinity(0, cores))
    return time.perf_counter() - start


def same_media(one: Path, other: Path) -> bool:
    """Whether all media and coco.json of two output folders are the same bytes."""
    files = [path.relative_to(one) for path in one.rglob("*") if path.is_file() and ".posecli" not in path.parts]
    times = {"run.json", "index.html"}  # they have times
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in files if name.name not in times)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--rounds", default=3)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(data: Path, rounds: int, out: Path) -> None:
    """Measure, and write a table."""
    found: dict[str, list[float]] = {name: [] for name in RUNS}
    same = True
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "in"
        inputs.mkdir()
        make_photos(inputs)
        make_clips(inputs, data / "videos")
        seconds(inputs / "000.jpg", Path(folder) / "warm", (0, 1), 1)
        for number in range(rounds):
            for place, (name, (cores, workers)) in enumerate(RUNS.items()):
                found[name].append(seconds(inputs, Path(folder) / f"{number}-{place}", cores, workers))
                click.echo(f"{name}: {found[name][-1]:.1f} s", err=True)
                same &= same_media(Path(folder) / f"{number}-0", Path(folder) / f"{number}-{place}")
    whole = found["--workers 2"]
    rows = []
    for name, times in found.items():
        if times is whole:
            continue
        ratios = [mine / other for mine, other in zip(whole, times, strict=True)]
        range_ = f"{min(ratios):.2f} to {max(ratios):.2f}"
        rows.append(f"| {name} | {statistics.median(times):.1f} | {statistics.median(ratios):.2f} | {range_} |")
    click.echo(f"same bytes: {same}", err=True)
    lines = [
        "# Worker processes",
        "",
        f"    python benchmarks/workers.py --data SHARED --rounds {rounds} --out results/workers.md",
        "",
        f"{PHOTOS} photos and {CLIPS} clips of {FRAMES} frames, whole commands on a machine of two cores, which",
        "other programs used too: the rounds are interleaved, only ratios mean something. Wanted: at most 0.75 of one",
        "core, and no slower than the plain run.",
        f"Media and coco.json of all runs were {'the same' if same else 'NOT the same'} bytes.",
        "",
        "| run | seconds, median | `--workers 2` relative to it, median | range |",
        "|---|---|---|---|",
        *rows,
    ]
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
