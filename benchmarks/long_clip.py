"""A long clip in full HD: constant memory, and the same result after being killed.

python benchmarks/long_clip.py --minutes 10 --rate 10 --out results/long_clip.md

The clip is the sample, repeated, in 1920×1080. It runs once uninterrupted, with its memory sampled, and once killed
(SIGKILL) at random times and restarted until it finishes.
"""

import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import click

SOURCE = Path(__file__).parents[1] / "samples" / "garden_walk.mp4"
COMPARED = ("clip.mp4", "coco.json", "coco_results.json")


def make_clip(path: Path, frames: int, rate: int) -> None:
    """Write H.264 in 1920×1080; the images repeat with increasing timestamps."""
    with av.open(str(SOURCE)) as source:
        pictures = [frame.reformat(1920, 1080, "yuv420p") for frame in source.decode(video=0)]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        for index in range(frames):
            frame = pictures[index % len(pictures)]
            frame.pts, frame.time_base = index, Fraction(1, rate)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


def resident(pid: int) -> float:
    """Resident memory of a process in MiB, 0 after its end."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def digests(out: Path) -> list[str]:
    return [hashlib.sha256((out / name).read_bytes()).hexdigest() for name in COMPARED]


@click.command()
@click.option("--minutes", default=10.0)
@click.option("--rate", default=10, help="Frames a second of the clip.")
@click.option("--kills", default=3, help="How often the second run is killed.")
@click.option("--options", default="--fast", help="Further options of posecli video.")
@click.option("--out", type=click.Path(path_type=Path))
def main(minutes: float, rate: int, kills: int, options: str, out: Path | None) -> None:
    """Print what was measured."""
    frames = round(minutes * 60 * rate)
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_clip(clip, frames, rate)

        def start(name: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "posecli", "video", str(clip), "--out", f"{folder}/{name}", "-q"]
            return subprocess.Popen([*command, *options.split()])

        began, samples = time.monotonic(), []
        whole = start("one")
        while whole.poll() is None:
            samples.append(resident(whole.pid))
            time.sleep(0.5)
        seconds = time.monotonic() - began
        fifth = len(samples) // 5
        parts = [max(samples[i * fifth : (i + 1) * fifth]) for i in range(5)]
        for _ in range(kills):
            process = start("two")
            time.sleep(chance.uniform(0.15, 0.5) * seconds / kills)
            process.send_signal(signal.SIGKILL)
            process.wait()
            click.echo("killed", err=True)
        resumed = time.monotonic()
        last = start("two").wait()
        resumed = time.monotonic() - resumed
        alike = digests(Path(folder) / "one") == digests(Path(folder) / "two")
    arguments = f"--minutes {minutes:g} --rate {rate} --kills {kills} --options='{options}'"
    lines = [
        "# A long clip",
        "",
        f"    python benchmarks/long_clip.py {arguments}",
        "",
        f"{frames:,} frames of 1920×1080, {minutes:g} minutes.",
        "",
        "| | |",
        "|---|---|",
        f"| undisturbed | {seconds:.0f} s, exit {whole.returncode} |",
        f"| highest resident memory in each fifth of it, MiB | {', '.join(f'{part:.0f}' for part in parts)} |",
        f"| killed {kills} times, then to the end | last start {resumed:.0f} s, exit {last} |",
        f"| {', '.join(COMPARED)} of both | {'the same bytes' if alike else 'DIFFERENT'} |",
    ]
    text = "\n".join(lines) + "\n"
    click.echo(text)
    if out is not None:
        out.write_text(text)
    sys.exit(0 if alike and last == 0 else 1)


if __name__ == "__main__":
    main()
