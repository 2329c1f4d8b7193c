"""Mutated images, clips, COCO files and weights: none may crash, hang, end unexpectedly or change a source.

    python benchmarks/fuzz.py --out results/fuzz.md

Small sources are made on the spot and mutated by a seed that is made of the option, the source and a number: bits
flipped, cut off, holes, blocks doubled, left out and moved, headers overwritten, and in JSON values of other types,
numbers without end, NaN, nulls, deep nesting, keys doubled and left out.

- Pictures and clips go through `posecli run` with every step (decoding, detector "whole", a tiny pose network,
  drawing, encoding, records), so many files a process. A process that dies, hangs or prints a traceback is repeated
  file by file to find the one.
- COCO files and weights go through the functions that eval, train, boxes: and run read them with, in one process that
  lives as long as it can; every 25th goes through the command line.

Every input's bytes are compared before and after. --seconds bounds the time; the table says how many were done.
"""

import argparse
import hashlib
import json
import math
import os
import random
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz_inputs import make_clips, make_coco, make_pictures, make_weights, mutate

BATCH = 50
FILE_SECONDS, BATCH_SECONDS = 30.0, 240.0
COUNTS = {"picture": 1600, "clip": 1000, "coco": 1300, "weights": 1100}
BAD_WORDS = ("Traceback", "unexpected", "Fatal Python error", "Segmentation fault")


def work() -> None:
    """The process that reads COCO files and weights: a JSON line in (kind, path, truth, whole), one out."""
    from posecli.cli import main as front
    from posecli.errors import PosecliError

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        kind, name, truth, weights, whole = json.loads(line)
        path, answer = Path(name), "read"
        try:
            if whole:
                sys.argv = command_line(kind, path, Path(truth), Path(weights))
                try:
                    front.main()
                except SystemExit as done:
                    answer = "read" if not done.code else "refused"
            else:
                read(kind, path, Path(truth))
        except PosecliError as error:
            answer = (
                "refused" if len(str(error).splitlines()) == 1 and len(str(error)) < 3000 else f"not a line: {error!r}"
            )
        except BaseException as error:
            import traceback

            places = traceback.extract_tb(error.__traceback__)
            where = next((p for p in reversed(places) if "posecli" in p.filename), places[-1])
            answer = f"unexpected {error!r:.150} at {Path(where.filename).name}:{where.lineno}"
        print(json.dumps(answer), file=answers, flush=True)


def read(kind: str, path: Path, truth: Path) -> None:
    """Read a file as the commands do."""
    from posecli.detect import load_detector
    from posecli.detect.boxes import read_boxes
    from posecli.evaluate.evaluation import evaluate
    from posecli.evaluate.ground_truth import read_ground_truth
    from posecli.evaluate.predictions import read_results
    from posecli.pose.loading import load_network
    from posecli.train.data import Source, read_people

    if kind == "truth":
        known = read_ground_truth(path, truth.parent, needs_images=False)
        if known.keypoint_set.sigmas is not None:
            evaluate("fuzz", known, read_results(truth.with_name("results.json"), known), {}, bootstrap=20)
    elif kind == "results":
        known = read_ground_truth(truth, truth.parent, needs_images=False)
        evaluate("fuzz", known, read_results(path, known), {}, bootstrap=20)
    elif kind == "train":
        read_people([Source(path, truth.parent, 1.0)], missing_limit=1.0)
    elif kind in ("boxes", "detections"):
        read_boxes(path)
    elif kind == "pose":
        load_network(path)
    else:
        load_detector("person", weights=path, device="cpu", runtime="torch")


def command_line(kind: str, path: Path, truth: Path, weights: Path) -> list[str]:
    out = f"--out={path.parent / 'out'}"
    cpu = ["--device=cpu", "--runtime=torch"]
    photo = str(truth.parent / "000000000001.png")
    evaluate = ["posecli", "eval", f"--images={truth.parent}", "--bootstrap=20", out]
    quick = ["posecli", "run", photo, out, "--overwrite", "-q", *cpu]
    return {
        "truth": [*evaluate, f"--ann={path}", f"--results={truth.with_name('results.json')}"],
        "results": [*evaluate, f"--ann={truth}", f"--results={path}"],
        "train": [*evaluate, f"--ann={path}", f"--weights={weights}", *cpu],
        "boxes": [*quick, f"--weights={weights}", f"--detector=boxes:{path}"],
        "detections": [*quick, f"--weights={weights}", f"--detector=boxes:{path}"],
        "pose": [*quick, f"--weights={path}", "--detector=whole"],
        "detector": [*quick, f"--weights={weights}", f"--detector-weights={path}"],
    }[kind]


@dataclass
class Tally:
    """Results of the mutations of one source."""

    ends: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


class Worker:
    """The process of work(), restarted after it has died or was stopped."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: list[Any]) -> str:
        """The result of one file."""
        if self._process is None or self._process.poll() is not None:
            with self._log.open("wb") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, __file__, "--worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
                )
        assert self._process.stdin is not None and self._process.stdout is not None
        first = self._log.stat().st_size
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], FILE_SECONDS + 30)
        if not ready:
            self.stop()
            return "hangs"
        line = self._process.stdout.readline()
        if not line:
            return f"crashes ({self._process.wait()})"
        with self._log.open("rb") as log:
            log.seek(first)
            said = log.read().decode(errors="replace")
        bad = next((text for text in said.splitlines() if any(word in text for word in BAD_WORDS)), None)
        return str(json.loads(line)) if bad is None else f"prints {bad[:200]}"

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def run_media(files: list[Path], out: Path, weights: Path, seconds: float) -> dict[Path, str]:
    """The result of each file; the same for all where the process failed."""
    line = [sys.executable, "-m", "posecli", "run", *map(str, files), f"--out={out}", f"--weights={weights}", "-q"]
    line += ["--detector=whole", "--device=cpu", "--runtime=torch", "--fast", "--max-pixels=30000000"]
    try:
        done = subprocess.run(line, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return dict.fromkeys(files, "hangs")
    said = done.stderr.decode(errors="replace")
    bad = next((text for text in said.splitlines() if any(word in text for word in BAD_WORDS)), None)
    if bad is not None:
        return dict.fromkeys(files, f"prints {bad[:200]}")
    if done.returncode not in (0, 1, 3):
        return dict.fromkeys(files, f"crashes ({done.returncode}) {said.strip()[-200:]}")
    if done.returncode == 3 or not (out / "run.json").is_file():
        return dict.fromkeys(files, "refused")
    document = json.loads((out / "run.json").read_bytes())
    rows = {Path(row["path"]).name: row for row in document["inputs"]}
    ends = {"done": "read", "partial": "in part", "failed": "refused"}
    answers = {}
    for file in files:
        row = rows.get(file.name, {"ended": "failed", "error": None, "warnings": []})
        messages = " ".join([row["error"] or "", *row["warnings"]])
        unexpected = any(word in messages for word in BAD_WORDS) or "\n" in messages
        answers[file] = f"unexpected {messages[:200]!r}" if unexpected else ends[row["ended"]]
    return answers


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_sources(folder: Path) -> dict[str, list[Path]]:
    """The files that are mutated, by family, made in folder."""
    made = {}
    for family, make in (
        ("picture", make_pictures), ("clip", make_clips), ("coco", make_coco), ("weights", make_weights)
    ):  # fmt: skip
        made[family] = folder / family
        made[family].mkdir(parents=True)
        make(made[family])
    wanted = {"picture": "*", "clip": "*", "coco": "*.json", "weights": "*.safetensors"}
    return {family: sorted(made[family].glob(pattern)) for family, pattern in wanted.items()}


def fuzz(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Tally]]:
    """All mutations, alternating between families, until they are done or the time is over."""
    sources = make_sources(folder / "sources")
    before = {path: digest(path) for path in folder.rglob("*") if path.is_file()}
    tallies = {family: {source.name: Tally() for source in sources[family]} for family in sources}
    made = folder / "sources"
    weights, truth = made / "weights" / "pose.safetensors", made / "coco" / "truth.json"
    worker = Worker(folder / "worker.log")
    end, number = time.monotonic() + options.seconds, Counter[str]()
    families = [family for family in sources if options.only in (None, family)]
    total = {family: math.ceil(COUNTS[family] * options.mutations / sum(COUNTS.values())) for family in families}
    while time.monotonic() < end and any(number[family] < total[family] for family in families):
        family = min(families, key=lambda name: number[name] / total[name])
        place = folder / "mutated"
        place.mkdir()
        batch: dict[Path, tuple[str, str]] = {}
        for _ in range(min(BATCH, total[family] - number[family])):
            source = sources[family][number[family] % len(sources[family])]
            seed = f"{options.seed} {source.name} {number[family]}"
            target = place / f"{number[family]:05d}-{source.name}"
            mutate(source, target, random.Random(seed))
            batch[target] = (source.name, seed)
            number[family] += 1
        hashes = {path: digest(path) for path in batch}
        if family in ("picture", "clip"):
            answers = run_media(list(batch), place / "out", weights, BATCH_SECONDS)
            if set(answers.values()) - {"read", "in part", "refused"}:  # which of them was it?
                for file in batch:
                    answers.update(run_media([file], place / f"out-{file.name}", weights, FILE_SECONDS))
        else:
            answers = {}
            for turn, (file, (name, _)) in enumerate(batch.items()):
                question = [Path(name).stem, str(file), str(truth), str(weights), turn % 25 == 24]
                answers[file] = worker.ask(question)
        for file, (name, seed) in batch.items():
            answer = answers[file] if digest(file) == hashes[file] else "changed its source"
            tally = tallies[family][name]
            known = answer in ("read", "in part", "refused")
            tally.ends[answer if known else answer.split(" ")[0]] += 1
            if not known:
                tally.findings.append(f"{name}, seed {seed!r}: {answer}")
                print(tally.findings[-1], file=sys.stderr, flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / file.name).write_bytes(file.read_bytes())
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        place.rmdir()
        print(dict(number), file=sys.stderr, flush=True)
    worker.stop()
    for path, known_hash in before.items():
        if digest(path) != known_hash:
            family = path.parent.name
            tallies[family].setdefault(path.name, Tally()).findings.append(f"{path.name}: the source itself changed")
    return tallies


def main() -> None:
    """Mutate, read, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=1500, help="at most")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", choices=COUNTS)
    parser.add_argument("--keep", type=Path, help="a folder for the files of findings")
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work()
        return
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tallies = fuzz(options, Path(folder))
    seconds = time.monotonic() - start
    columns = ("read", "in part", "refused", "prints", "unexpected", "crashes", "hangs", "changed")
    command = shlex.join(["python", "benchmarks/fuzz.py", *sys.argv[1:]])
    lines = ["# Mutated inputs", "", f"    {command}", ""]
    lines += [
        "Of each source: how many mutations were read, read in part with the loss reported, and refused in one line.",
        'The others must be 0: lines with a traceback or "unexpected", unexpected errors, dead processes,',
        "processes without an end, inputs whose bytes changed. The script tells the mutations.",
        "",
    ]
    lines += [f"| | source | mutations | {' | '.join(columns)} |", "|---|---|" + "--:|" * (len(columns) + 1)]
    done, findings = 0, []
    for family, sources in tallies.items():
        for name, tally in sources.items():
            count = sum(tally.ends.values())
            done += count
            findings += tally.findings
            if count:
                cells = " | ".join(str(tally.ends[column]) for column in columns)
                lines.append(f"| {family} | {name} | {count} | {cells} |")
    others = sorted({e for s in tallies.values() for t in s.values() for e in t.ends} - set(columns))
    assert not others, others
    lines += ["", f"{done} mutations in {seconds:.0f} s: {len(findings)} findings.", *(f"- {f}" for f in findings)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
