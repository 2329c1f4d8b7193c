"""How fast `posecli review` steps through a long clip, and how much memory its server takes.

python benchmarks/review.py --frames 10000 --out steps.md

The clip is the sample garden_walk.mp4 forwards and backwards, scaled to 1280×720, in H.264 with x264's longest distance
between key frames (--gop) and B-frames. The records of a run are made from poses that move at random: no network runs.
The server is a process of its own; one client asks as the page does: GET /api/frame and GET /api/image (full size) on
one kept connection, one after the other. A step's time is that of both. The order of access is: 400 steps forwards from
a quarter of the clip, 400 backwards from its half, every 25th frame forwards (scrubbing), and random frames.
"""

import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain, cycle
from pathlib import Path

import av
import click
import numpy as np
from long_clip import resident

from posecli.keypoints import COCO17
from posecli.media.inputs import content_key
from posecli.results.manifest import Finished
from posecli.results.output_list import OutputList, write_output_list
from posecli.results.records import RecordWriter, Summary, record_path
from posecli.results.write import write_results
from posecli.types import Frame, Poses

SOURCE = Path(__file__).parents[1] / "samples" / "garden_walk.mp4"
WIDTH, HEIGHT, RATE = 1280, 720, 30
# Target of a step in seconds.
TARGET = 0.15


def make_clip(path: Path, frames: int, gop: int) -> None:
    """Write the clip."""
    with av.open(str(SOURCE)) as source:
        pictures = [frame.reformat(WIDTH, HEIGHT, "yuv420p") for frame in source.decode(video=0)]
    with av.open(str(path), "w") as target:
        options = {"preset": "veryfast", "g": str(gop), "keyint_min": str(gop), "sc_threshold": "0", "bf": "3"}
        stream = target.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        order = chain(range(len(pictures)), range(len(pictures) - 2, 0, -1))
        for index, place in zip(range(frames), cycle(order), strict=False):
            frame = pictures[place]
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


def people(frames: int) -> Iterator[Poses]:
    """Two people in each frame, with ids."""
    random = np.random.default_rng(0)
    points = random.uniform(100, 600, (2, 17, 2))
    for _ in range(frames):
        points = np.clip(points + random.normal(0, 2, points.shape), 0, 700)
        boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
        yield Poses(
            keypoints=points.astype(np.float32),
            std=np.full((2, 17, 2), 2, np.float32),
            scores=np.full((2, 17), 0.8, np.float32),
            boxes=boxes.astype(np.float32),
            box_scores=np.full(2, 0.9, np.float32),
            person_scores=np.full(2, 0.8, np.float32),
            track_ids=np.array([1, 2], np.int64),
        )


def make_run(out: Path, clip: Path, frames: int) -> None:
    """Write what a run on the clip leaves."""
    pixels = np.broadcast_to(np.zeros(3, np.uint8), (HEIGHT, WIDTH, 3))
    header = {"name": clip.name, "kind": "video", "content": content_key(clip), "options": "benchmark"}
    with RecordWriter(record_path(out, clip.name), {**header, "keypoints": COCO17.names}, 0.3) as record:
        for index, poses in enumerate(people(frames)):
            record.write(Frame(pixels, index, Fraction(index, RATE)), poses)
        summary = Summary("done", frames, 2 * frames, width=WIDTH, height=HEIGHT, frame_rate=RATE, tracks=2)
        record.finish(summary)
    files = frozenset({"coco.json", "coco_results.json", "run.json", "index.html", ".posecli"})
    write_output_list(out, OutputList(files, {clip.name: str(clip)}))
    described = {"options": {}, "models": {"pose": {"backbone": "none", "runtime": "none"}}}
    write_results(out, [Finished(clip.name, str(clip), "video", summary)], COCO17, described)


class Client:
    """A page's connection."""

    def __init__(self, address: str) -> None:
        host, _, query = address.removeprefix("http://").partition("/")
        self._connection = http.client.HTTPConnection(host, timeout=120)
        self._headers: dict[str, str] = {}
        answer = self._answer(f"/{query}")
        self._headers = {"Cookie": (answer.getheader("set-cookie") or "").split(";")[0]}

    def _answer(self, path: str) -> http.client.HTTPResponse:
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status not in (200, 303):
            raise SystemExit(f"{path}: {answer.status} {content[:200]!r}")
        return answer

    def step(self, frame: int) -> float:
        """Seconds until the frame and its picture are there."""
        began = time.perf_counter()
        for kind in ("frame", "image"):
            self._answer(f"/api/{kind}?input=0&frame={frame}")
        return time.perf_counter() - began


def orders(frames: int) -> dict[str, list[int]]:
    """What is asked for, in which order."""
    random = np.random.default_rng(1)
    quarter, half = frames // 4, frames // 2
    return {
        "forwards": list(range(quarter, quarter + 400)),
        "backwards": list(range(half, half - 400, -1)),
        "every 25th": list(range(half, min(frames, half + 100 * 25), 25)),
        "random": random.integers(0, frames, 100).tolist(),
    }


def row(name: str, seconds: Sequence[float], memory: float) -> str:
    """A row of the table."""
    median, high = statistics.median(seconds), float(np.quantile(seconds, 0.95))
    within = sum(value < TARGET for value in seconds) / len(seconds)
    times = f"{1000 * median:.0f} | {1000 * high:.0f} | {1000 * max(seconds):.0f}"
    return f"| {name} | {len(seconds)} | {times} | {within:.0%} | {memory:.0f} |"


@click.command()
@click.option("--frames", default=10_000)
@click.option("--gop", "gops", type=int, multiple=True, default=(250, 30), help="Frames from key frame to key frame.")
@click.option("--rounds", default=2, help="How often each order is gone through.")
@click.option("--out", type=click.Path(path_type=Path))
def main(frames: int, gops: tuple[int, ...], rounds: int, out: Path | None) -> None:
    """Print what was measured."""
    lines = [
        "| key frame every | order | steps | median ms | 95 % ms | worst ms | below 150 ms | memory MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for gop in gops:
        with tempfile.TemporaryDirectory() as folder:
            clip = Path(folder) / "clip.mp4"
            make_clip(clip, frames, gop)
            make_run(Path(folder) / "out", clip, frames)
            command = [sys.executable, "-m", "posecli", "review", f"{folder}/out", "--no-browser"]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            try:
                assert server.stdout is not None
                client = Client(server.stdout.readline().strip())
                first = client.step(0), client.step(1), client.step(frames // 3)
                lines.append(f"| {gop} {row('the first picture, and the first far away', first, resident(server.pid))}")
                for number in range(rounds):
                    for name, wanted in orders(frames).items():
                        seconds = [client.step(frame) for frame in wanted]
                        lines.append(f"| {gop} {row(f'{name}, {number + 1}', seconds, resident(server.pid))}")
                        print(lines[-1], flush=True)
            finally:
                server.terminate()
                server.wait()
    text = "\n".join(lines) + "\n"
    print(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
