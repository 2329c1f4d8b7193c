"""Runs with very many inputs: time of planning and merging, and memory of the process that does it.

python benchmarks/scale.py --inputs 10000 --inputs 30000 --inputs 100000 --whole 3000 --out results/scale.md

The inputs are JPEGs of 32×32 pixels in subfolders. Running the networks on all of them would measure the networks, so
their records are written first by the code's own RecordWriter, one person each, under the keys that the run looks for.
Measured is then `posecli run --no-media` in a process of its own: it lists and plans the inputs, finds every one
finished, and makes the result files from the records. --whole: that many inputs are run in full, networks included.
Seconds are of processor time, since this is not to depend on what else the machine does.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

PER_FOLDER = 500
ABOUT = """JPEGs of 32×32 pixels, one person each, `posecli run --no-media`, in seconds of processor time of the one
process. Without networks: the inputs' records were written before by the code's own RecordWriter, so that the run finds
every input finished. Planning: finding the inputs, assigning their files, comparing these with the inputs, the list of
outputs. Reading: hashing each input and finding its record, or with networks the whole work. Merging: coco.json,
coco_results.json, run.json and the gallery from the records. Memory is the peak of the process, models included."""
# Names of the functions that are timed, as module and attribute.
PLANNED = (
    ("posecli.cli.run", "find"),
    ("posecli.pipeline.plan", "plan"),
    ("posecli.pipeline.plan", "refuse_replacing_inputs"),
)


def make_inputs(folder: Path, count: int) -> None:
    """Write JPEGs that differ in a comment only."""
    random = np.random.default_rng(0)
    _, encoded = cv2.imencode(".jpg", random.integers(0, 255, (32, 32, 3), np.uint8))
    data = encoded.tobytes()
    for number in range(count):
        path = folder / f"{number // PER_FOLDER:04d}" / f"picture{number:07d}.jpg"
        if number % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        mark = f"{number:08d}".encode()
        path.write_bytes(data[:2] + b"\xff\xfe" + (len(mark) + 2).to_bytes(2, "big") + mark + data[2:])


def posecli(folder: Path) -> None:
    """The command that is measured."""
    from posecli.cli.main import main

    sys.argv = ["posecli", "run", str(folder / "in"), "-o", str(folder / "out"), "--no-media", "-q"]
    main()


def write_records(folder: Path) -> None:
    """Finish every input without reading it: its record and a thumbnail."""
    import posecli.pipeline.run as pipeline
    from posecli.media.inputs import content_key
    from posecli.pipeline.keys import options_key
    from posecli.pipeline.plan import plan
    from posecli.results.gallery import thumbnail_path
    from posecli.results.records import RecordWriter, Summary
    from posecli.types import Frame, Poses

    random = np.random.default_rng(0)
    poses = Poses(
        keypoints=random.uniform(0, 32, (1, 17, 2)).astype(np.float32),
        std=random.uniform(0.5, 3, (1, 17, 2)).astype(np.float32),
        scores=random.uniform(0.5, 1, (1, 17)).astype(np.float32),
        boxes=np.array([[2, 3, 30, 29]], np.float32),
        box_scores=np.full(1, 0.9, np.float32),
        person_scores=np.full(1, 0.7, np.float32),
    )
    frame = Frame(np.zeros((32, 32, 3), np.uint8), 0, None)
    thumbnail = cv2.imencode(".jpg", frame.pixels)[1].tobytes()

    def run(inputs: Any, out: Path, predictor: Any, options: Any, *_: Any, **__: Any) -> None:
        key, names = options_key(options, predictor), list(predictor.keypoints.names)
        for job in plan(inputs, out):
            header = {"name": job.input.name, "kind": "photo", "content": content_key(job.input.source)}
            with RecordWriter(job.record, {**header, "options": key, "keypoints": names}, 0.3) as record:
                record.write(frame, poses)
                record.finish(Summary("done", 1, 1, seconds=0.01, width=32, height=32))
            picture = thumbnail_path(out, job.record)
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(thumbnail)
        sys.stdout.flush()
        os._exit(0)

    pipeline.run = run  # type: ignore[assignment]
    posecli(folder)


def measure(folder: Path) -> None:
    """Run the command with its parts timed; prints JSON."""
    import importlib

    import posecli.pipeline.run as pipeline

    seconds: dict[str, float] = {"planning": 0.0, "merging": 0.0, "run": 0.0}
    memory: dict[str, float] = {}

    def timed(module: str, name: str, part: str) -> None:
        place = importlib.import_module(module)
        function: Callable[..., Any] = getattr(place, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                seconds[part] += time.process_time() - start
                memory[part] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        setattr(place, name, wrapped)

    for module, name in PLANNED:
        timed(module, name, "planning")
    plan = importlib.import_module("posecli.pipeline.plan")
    entered = plan.output_folder

    def output_folder(*arguments: Any, **options: Any) -> Any:
        context = entered(*arguments, **options)
        enter = type(context).__enter__

        class Timed:
            def __enter__(self) -> Any:
                start = time.process_time()
                remarks = enter(context)
                seconds["planning"] += time.process_time() - start
                return remarks

            def __exit__(self, *error: Any) -> Any:
                return context.__exit__(*error)

        return Timed()

    plan.output_folder = output_folder  # type: ignore[attr-defined]
    timed("posecli.pipeline.run", "write_results", "merging")
    timed("posecli.pipeline.run", "run", "run")
    assert pipeline.run is not None
    try:
        posecli(folder)
    finally:
        print(json.dumps({"seconds": seconds, "memory": memory}), flush=True)


def child(folder: Path, part: str) -> str:
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@click.command()
@click.option("--inputs", multiple=True, type=int, default=(10_000, 30_000, 100_000))
@click.option("--whole", default=0, help="Inputs that are run with the networks.")
@click.option("--part", type=click.Choice(["records", "measure"]), hidden=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the inputs are made; default a temporary one.")
@click.option("--out", type=click.Path(path_type=Path))
def main(inputs: tuple[int, ...], whole: int, part: str | None, folder: Path | None, out: Path | None) -> None:
    """Print what was measured."""
    if part is not None:
        assert folder is not None
        {"records": write_records, "measure": measure}[part](folder)
        return
    rows = []
    for count, networks in [*((count, False) for count in inputs), *([(whole, True)] if whole else [])]:
        place = Path(tempfile.mkdtemp(dir=folder))
        try:
            make_inputs(place / "in", count)
            if not networks:
                child(place, "records")
            found = json.loads(child(place, "measure").splitlines()[-1])
            totals = json.loads((place / "out" / "run.json").read_bytes())["totals"]
            assert totals["status"] == {"done" if networks else "skipped": count}, totals
        finally:
            shutil.rmtree(place)
        rows.append((count, networks, found))
        click.echo(f"{count} {found}", err=True)
    text = report(rows, inputs, whole)
    click.echo(text)
    if out is not None:
        out.write_text(text)


def report(rows: list[tuple[int, bool, dict[str, Any]]], inputs: tuple[int, ...], whole: int) -> str:
    arguments = " ".join(f"--inputs {count}" for count in inputs) + (f" --whole {whole}" if whole else "")
    lines = ["# Very many inputs", "", f"    python benchmarks/scale.py {arguments}", "", *ABOUT.splitlines(), ""]
    lines += ["| inputs | networks | planning, s | µs an input | reading, s | µs an input | merging, s | µs an input |"]
    lines[-1] += " peak memory, MiB |"
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for count, networks, found in rows:
        seconds, most = found["seconds"], max(found["memory"].values())
        between = seconds["run"] - seconds["merging"]
        cells = [f"{count:,}", "yes" if networks else "no"]
        for value in (seconds["planning"], between, seconds["merging"]):
            cells += [f"{value:.1f}", f"{value / count * 1e6:.0f}"]
        lines.append(f"| {' | '.join(cells)} | {most:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
