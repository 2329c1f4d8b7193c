"""Whole processes of posecli and of rtmlib's loop on the same clips and photos, interleaved, as ratios.

pip install --no-deps rtmlib tqdm && pip install onnxruntime onnx
python benchmarks/against_rtmlib.py --data SHARED --rounds 5 --out results/against_rtmlib.md

rtmlib: RTMDet-nano at 416 pixels and posecli's exported pose network in rtmlib's own classes on ONNX Runtime, one
person a call, read, drawn and written by OpenCV, as its examples do; without sound and JSON. posecli: the command line
with default options and a warm cache. (--no-deps: rtmlib asks for opencv-contrib-python, whose files would replace
those of opencv-python.)
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import cv2
import numpy as np

CLIPS = ("children_jumping.mp4", "tennis.mp4", "dancers_hevc_aac.mp4")
PHOTOS = 500
PHOTO_SIZE = (640, 480)


def peer(detector: Path, pose: Path, source: Path, out: Path) -> None:
    """rtmlib's loop over a clip, or over a folder of photos; prints frames and people as JSON."""
    from rtmlib import RTMDet, RTMPose, draw_skeleton

    detect = RTMDet(str(detector), (416, 416), backend="onnxruntime", device="cpu")
    estimate = RTMPose(str(pose), (192, 256), backend="onnxruntime", device="cpu")
    frames = people = 0
    writer = None
    for name, image, rate in images(source):
        boxes = detect(image)
        keypoints, scores = estimate(image, boxes)
        drawn = draw_skeleton(image, keypoints, scores, kpt_thr=0.3)
        frames, people = frames + 1, people + len(boxes)
        if not rate:
            cv2.imwrite(str(out / name), drawn)
            continue
        if writer is None:
            size = (image.shape[1], image.shape[0])
            writer = cv2.VideoWriter(str(out / "out.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        writer.write(drawn)
    if writer is not None:
        writer.release()
    print(json.dumps({"frames": frames, "people": people}))


def images(source: Path) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name, pixels and frame rate of each frame of a clip; rate 0 for the photos of a folder."""
    if source.is_dir():
        for path in sorted(source.iterdir()):
            yield path.name, read(path), 0.0
        return
    video = cv2.VideoCapture(str(source))
    rate = video.get(cv2.CAP_PROP_FPS)
    while True:
        found, image = video.read()
        if not found:
            return
        yield source.name, image, rate


def read(path: Path) -> np.ndarray:
    """A photo in BGR."""
    image = cv2.imread(str(path))
    if image is None:
        raise click.ClickException(f"{path}: not a picture that OpenCV can read")
    return image


def timed(command: list[str], out: Path) -> tuple[float, int, int]:
    """Seconds of a whole process, its frames and its people."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    # An installed package has compiled modules.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    seconds = time.perf_counter() - start
    if result.returncode != 0:
        raise click.ClickException(f"{' '.join(command)}: {result.stderr[-500:]}")
    document = out / "run.json"
    if document.exists():
        totals = json.loads(document.read_text())["totals"]
        return seconds, totals["frames"], totals["people"]
    counted = json.loads(result.stdout.splitlines()[-1])
    return seconds, counted["frames"], counted["people"]


def write_photos(data: Path, folder: Path, count: int) -> None:
    """Photos of COCO, scaled and padded to 640×480. Raises ClickException where there are fewer."""
    folder.mkdir()
    folders = [data / "coco" / name for name in ("train2017", "train2017_more", "val2017")]
    sources = [path for found in folders for path in sorted(found.iterdir())][:count]
    if len(sources) < count:
        raise click.ClickException(f"{data / 'coco'}: {len(sources)} photos, not {count}")
    for path in sources:
        image = read(path)
        scale = min(PHOTO_SIZE[0] / image.shape[1], PHOTO_SIZE[1] / image.shape[0])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        down, right = PHOTO_SIZE[1] - image.shape[0], PHOTO_SIZE[0] - image.shape[1]
        cv2.imwrite(str(folder / path.name), cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_CONSTANT))


def cpu_name() -> str:
    """The CPU's name and what it has for networks."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*: (.*)", text, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.*)", text, re.MULTILINE)
    wanted = {"avx2", "avx512f", "avx512_bf16", "amx_tile"} & set(flags[1].split() if flags else ())
    return f"{name[1] if name else 'unknown CPU'} ({', '.join(sorted(wanted))})"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Folder with videos/, coco/ and start/.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--cases", default="clips,photo,photos", show_default=True)
@click.option("--photos", default=PHOTOS, show_default=True, help="Number of photos of the last case.")
@click.option("--out", type=click.Path(path_type=Path))
@click.option("--peer", "peer_paths", nargs=4, type=click.Path(path_type=Path), hidden=True)
def main(
    data: Path | None, rounds: int, cases: str, photos: int, out: Path | None, peer_paths: tuple[Path, ...] | None
) -> None:
    """Print and write a Markdown table."""
    if peer_paths:
        peer(*peer_paths)
        return
    if data is None:
        raise click.UsageError("give --data")
    lines = ["| case | frames | people a frame: rtmlib, posecli | rtmlib, frames/s | posecli, frames/s | ratio |"]
    lines.append("|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pose = folder / "pose.onnx"
        own: list[str | Path] = [sys.executable, "-m", "posecli"]
        subprocess.run([*own, "export", "pose", "--to", "onnx", "--out", pose], check=True, capture_output=True)
        sources = [(clip, data / "videos" / clip) for clip in CLIPS] if "clips" in cases.split(",") else []
        for name, count in (("photo", 1), ("photos", photos)):
            if name in cases.split(","):
                write_photos(data, folder / name, count)
                sources.append((f"{count} photo{'s' * (count > 1)} of 640×480", folder / name))
        for name, source in sources:
            commands: dict[str, list[str | Path]] = {
                "rtmlib": [sys.executable, __file__, "--peer", data / "start" / "rtmdet_nano.onnx", pose, source],
                "posecli": [*own, "run" if source.is_dir() else "video", source, "--overwrite", "--quiet", "--out"],
            }
            found: dict[str, list[tuple[float, int, int]]] = {key: [] for key in commands}
            for turn in range(rounds + 1):
                for key in commands if turn % 2 else reversed(commands):
                    place = folder / f"out-{key}"
                    result = timed([*map(str, commands[key]), str(place)], place)
                    if turn:  # the first round warms the caches of files and networks
                        found[key].append(result)
            lines.append(row(name, found["rtmlib"], found["posecli"]))
            click.echo(lines[-1], err=True)
    packages = ", ".join(f"{name} {version(name)}" for name in ("rtmlib", "onnxruntime", "openvino", "opencv-python"))
    command = f"python benchmarks/against_rtmlib.py --data SHARED --rounds {rounds} --cases {cases} --photos {photos}"
    text = f"# posecli and rtmlib's loop\n\n    {command}\n\n{cpu_name()}; {packages}.\n\n" + "\n".join(lines) + "\n"
    click.echo(text)
    if out is not None:
        out.write_text(text)


def row(name: str, rtmlib: list[tuple[float, int, int]], posecli: list[tuple[float, int, int]]) -> str:
    """A line of the table: medians, and the median and range of the rounds' ratios."""
    rates = [statistics.median(frames / seconds for seconds, frames, _ in runs) for runs in (rtmlib, posecli)]
    people = [runs[0][2] / runs[0][1] for runs in (rtmlib, posecli)]
    ratios = [other[0] / one[0] for other, one in zip(rtmlib, posecli, strict=True)]
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return (
        f"| {name} | {rtmlib[0][1]} | {people[0]:.1f}, {people[1]:.1f} | {rates[0]:.2f} | {rates[1]:.2f} | {spread} |"
    )


if __name__ == "__main__":
    main()
