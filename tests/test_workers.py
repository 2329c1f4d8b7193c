"""Several processes write what one process writes, whatever happens to them."""

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posecli.media.inputs import Input
from posecli.pipeline import local, parts, workers
from posecli.pipeline.events import Job
from posecli.pipeline.worker import Advanced, Ended
from posecli.processes import WORKER_BYTES, automatic_workers, share_of
from posecli.tracking import propagate
from tests import worker_killer
from tests.entry_points import Result, posecli, start
from tests.media_factory import picture, write_photo, write_video

# OpenVINO: the processes need not import torch.
QUICK = ("--detector", "whole", "--device", "cpu", "--runtime", "openvino")
# For tests.entry_points.start: a new interpreter, which is ready sooner than a fork of one that has imported torch.
NEW = {"OMP_NUM_THREADS": "1"}
# Times, in the documents and in the gallery.
_TIMES = re.compile(rb'"seconds": ?[0-9.e-]+|(?<= )[0-9.]+ s(?=[ <])')


def files_of(out: Path) -> dict[str, bytes]:
    """The files of an output folder but for times and the lock."""
    found = {str(path.relative_to(out)): path for path in sorted(out.rglob("*")) if path.is_file()}
    return {name: _TIMES.sub(b"", path.read_bytes()) for name, path in found.items() if not name.endswith("/lock")}


def same_files(one: Path, other: Path) -> None:
    first, second = files_of(one), files_of(other)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, clips, a file that is neither, and the same names in two folders."""
    root = tmp_path_factory.mktemp("media")
    for number in range(24):
        write_photo(root / "one" / f"{number:02}.jpg", picture(seed=number))
    for number in range(4):
        write_photo(root / "two" / f"{number:02}.jpg", picture(seed=50 + number))
    for number, frames in enumerate((12, 40, 30)):
        write_video(root / "one" / f"clip{number}.mp4", frames, sound="aac" if number else None)
    (root / "one" / "broken.jpg").write_bytes(b"no picture")
    return root


def line(media: Path, out: Path, weights: Path, *more: object) -> list[object]:
    return ["run", media / "one", media / "two", "-o", out, "--weights", weights, *QUICK, "--format", "csv", *more]


@pytest.fixture(scope="module")
def plain(media: Path, tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """The output of one process."""
    out = tmp_path_factory.mktemp("plain") / "out"
    process = start(*line(media, out, tiny_weights), **NEW)
    process.communicate()
    assert process.returncode == 1
    return out


def no_workers(*_: Any) -> Any:
    raise AssertionError("no process was expected")


def test_two_workers_write_the_same_bytes_and_skip_what_is_finished(
    media: Path, plain: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    out = tmp_path / "out"
    result = posecli(capfd, *line(media, out, tiny_weights, "--workers", 2))
    assert result.code == 1 and result.err.count("broken.jpg") == 1, result.err
    same_files(plain, out)
    (out / "one").mkdir(exist_ok=True)
    monkeypatch.setattr(local.multiprocessing, "get_context", no_workers)
    (media / "one" / "broken.jpg").rename(media / "broken.jpg")
    try:
        result = posecli(capfd, *line(media, out, tiny_weights, "--workers", 2, "--json"))
    finally:
        (media / "broken.jpg").rename(media / "one" / "broken.jpg")
    assert result.code == 0, result.err
    assert json.loads(result.out)["totals"]["status"] == {"skipped": 31}


def killing(monkeypatch: pytest.MonkeyPatch, moments: list[int]) -> list[int]:
    """Kill a worker at these numbers of messages; returns the numbers of the processes."""
    killed: list[int] = []
    take, count = workers._Driver._take, 0

    def counting(driver: Any, worker: Any, message: Any) -> None:
        nonlocal count
        take(driver, worker, message)
        count += isinstance(message, Advanced | Ended)
        hit_before = any(driver._deaths[number] for number in worker.in_hand)
        pid = worker.handle.process.pid
        if moments and count >= moments[0] and worker.in_hand and not hit_before and pid not in killed:
            del moments[0]
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(workers._Driver, "_take", counting)
    return killed


def test_killed_workers_change_nothing(
    media: Path, plain: Path, tmp_path: Path, tiny_weights: Path, capfd: Any, monkeypatch: Any, caplog: Any
) -> None:
    killed = killing(monkeypatch, sorted(random.sample(range(1, 8), 2)))
    result = posecli(capfd, *line(media, tmp_path / "out", tiny_weights, "--workers", 2))
    assert result.code == 1 and len(killed) == 2, result.err
    assert caplog.text.count("a worker process ended (SIGKILL") == 2, caplog.text
    same_files(plain, tmp_path / "out")


def test_a_job_sent_to_a_dead_worker_is_not_the_one_that_killed_it(
    media: Path, plain: Path, tmp_path: Path, tiny_weights: Path, capfd: Any, monkeypatch: Any
) -> None:
    killed = killing(monkeypatch, [3])
    send = workers._Driver._send

    def too_late(driver: Any, worker: Any, order: Any) -> None:
        if isinstance(order, Job) and driver._deaths[order.number] and len(killed) == 1:
            process = worker.handle.process
            process.kill()
            process.join()
            killed.append(process.pid)
        send(driver, worker, order)

    monkeypatch.setattr(workers._Driver, "_send", too_late)
    result = posecli(capfd, *line(media, tmp_path / "out", tiny_weights, "--workers", 2))
    assert result.code == 1 and len(killed) == 2, result.err
    same_files(plain, tmp_path / "out")


@pytest.mark.slow
def test_workers_killed_five_times_change_nothing(
    media: Path, tmp_path: Path, tiny_weights: Path, capfd: Any, monkeypatch: Any
) -> None:
    for number in range(160):
        write_photo(tmp_path / "in" / f"{number:03}.jpg", picture(seed=number))
    for number in range(3):
        write_video(tmp_path / "in" / f"clip{number}.mp4", 150)
    command = ["run", tmp_path / "in", "--weights", tiny_weights, *QUICK, "-o"]
    assert posecli(capfd, *command, tmp_path / "plain").code == 0
    killed = killing(monkeypatch, sorted(random.sample(range(1, 120), 5)))
    assert posecli(capfd, *command, tmp_path / "out", "--workers", 2).code == 0 and len(killed) == 5
    same_files(tmp_path / "plain", tmp_path / "out")


def run_with(
    main: Callable[..., None], capfd: Any, monkeypatch: Any, folder: Path, out: Path, weights: Path, *more: object
) -> Result:
    monkeypatch.setattr(local, "main", main)
    return posecli(capfd, "run", folder, "-o", out, "--weights", weights, *QUICK, "--workers", 2, *more)


def test_an_input_that_kills_its_worker_twice_fails_alone(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        write_photo(tmp_path / "in" / f"{number}.jpg")
    write_photo(tmp_path / "in" / f"{worker_killer.DEADLY}.jpg")
    result = run_with(
        worker_killer.killed_by_an_input, capfd, monkeypatch, tmp_path / "in", tmp_path / "out", tiny_weights, "--json"
    )
    assert result.code == 1
    document = json.loads(result.out)
    assert document["totals"]["status"] == {"done": 6, "failed": 1}
    failed = [line for line in result.err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1 and "deadly.jpg: its worker process ended twice (SIGKILL" in failed[0]
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_full_disk_in_a_worker_ends_the_run(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", worker_killer.DEADLY):
        write_photo(tmp_path / "in" / f"{name}.jpg")
    result = run_with(
        worker_killer.full_disk, capfd, monkeypatch, tmp_path / "in", tmp_path / "out", tiny_weights, "-q"
    )
    assert result.code == 4 and "disk is full" in result.err and result.err.count("\n") == 1


def test_workers_that_cannot_start_are_told_in_one_line(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_photo(tmp_path / "in" / f"{name}.jpg")
    main = worker_killer.killed_while_it_starts
    result = run_with(main, capfd, monkeypatch, tmp_path / "in", tmp_path / "out", tiny_weights, "-q")
    assert result.code == 4 and result.err.splitlines()[-1].startswith("posecli: worker processes end while they start")


def wait_for_records(out: Path, count: int) -> None:
    end = time.monotonic() + 60
    while len(list(out.glob(".posecli/records/**/*.jsonl"))) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_for_end(processes: list[int]) -> None:
    end = time.monotonic() + 2
    while any(map(is_alive, processes)):
        assert time.monotonic() < end
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are listed by Linux only")
@pytest.mark.alone
def test_after_the_driver_is_stopped_the_same_command_ends_in_the_same_bytes(
    media: Path, plain: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    out = tmp_path / "out"
    command = line(media, out, tiny_weights, "--workers", 2)
    finished = 0
    for number in (signal.SIGINT, signal.SIGKILL):
        process = start(*command, **NEW)
        wait_for_records(out, finished + 1)
        started = children(process.pid)
        process.send_signal(number)
        began = time.monotonic()
        process.wait(10)
        assert len(started) >= 2
        wait_for_end(started)
        assert time.monotonic() - began < 2
        finished = len(list(out.glob(".posecli/records/**/*.jsonl")))
        if number == signal.SIGINT:
            _, err = process.communicate()
            assert process.returncode == 130 and err.count("goes on where it stopped") == 1 and "Traceback" not in err
            assert not list(out.rglob("*.part"))
            # What was finished in the last moment may not have been reported; a failed input has no record.
            reported = json.loads((out / "run.json").read_bytes())["inputs"]
            assert sum(item["status"] != "failed" for item in reported) <= finished
    again = start(*command, **NEW)
    _, err = again.communicate()
    assert again.returncode == 1, err
    ended = [json.loads((folder / "run.json").read_bytes())["inputs"] for folder in (plain, out)]
    assert [item["status"] for item in ended[1]].count("skipped") >= finished
    for items in ended:
        for item in items:
            del item["status"], item["seconds"]
    first, second = files_of(plain), files_of(out)
    for files in (first, second):
        del files["index.html"], files["run.json"]  # they say what was skipped
    assert ended[0] == ended[1] and first == second


def test_a_long_video_is_shared_also_when_a_worker_is_killed(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (propagate, parts):
        monkeypatch.setattr(module, "RESTART_EVERY", worker_killer.RESTART)
    times = np.random.default_rng(0).choice([17, 33, 34, 50], 89).cumsum().tolist()
    write_video(tmp_path / "in" / "a.mp4", 90, times=[0, *times], options={"g": "12", "bf": "2"})
    command = ["run", tmp_path / "in", "--weights", tiny_weights, *QUICK, "-o"]
    assert posecli(capfd, *command, tmp_path / "plain").code == 0
    split: list[tuple[int, int | None]] = []
    send = workers._Driver._send

    def sending(driver: Any, worker: Any, order: Any) -> None:
        send(driver, worker, order)
        if isinstance(order, Job) and order.part is not None:
            split.append(order.part)
            if len(split) == 2:
                os.kill(worker.handle.process.pid, signal.SIGKILL)

    monkeypatch.setattr(workers._Driver, "_send", sending)
    monkeypatch.setattr(local, "main", worker_killer.frequent_restarts)
    result = posecli(capfd, *command, tmp_path / "out", "--workers", 2)
    # A worker may have both parts, where the other one was slow to start.
    assert result.code == 0 and split[:2] == [(0, 48), (48, None)] and (48, None) in split[2:], (result.err, split)
    assert sorted(set(split[2:]), key=str) == sorted(split[2:], key=str)
    same_files(tmp_path / "plain", tmp_path / "out")


@pytest.mark.slow
def test_three_minutes_in_two_workers(tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps = np.random.default_rng(0).choice([17, 33, 34, 50], 5399).cumsum().tolist()
    write_video(tmp_path / "in" / "a.mp4", 5400, times=[0, *steps], sound="aac", options={"g": "60", "bf": "2"})
    command = ["run", tmp_path / "in", "--weights", tiny_weights, *QUICK, "-o"]
    for workers_, out in ((1, "plain"), (2, "out")):
        assert posecli(capfd, *command, tmp_path / out, "--workers", workers_).code == 0
    same_files(tmp_path / "plain", tmp_path / "out")


def test_long_inputs_are_handed_out_first(tmp_path: Path) -> None:
    def job(number: int, kind: str, size: int) -> Job:
        path = tmp_path / f"{number}.bin"
        path.write_bytes(bytes(size))
        return Job(number, Input(path, path.name, kind), "", tmp_path / "record")

    jobs = [job(0, "photo", 900), job(1, "video", 10), job(2, "video", 20), job(3, "photo", 900), job(4, "photo", 1000)]
    assert [found.number for found in workers.longest_first(jobs)] == [2, 1, 4, 0, 3]


def test_auto_and_the_share_of_each_worker() -> None:
    assert automatic_workers(100, 16, None) == 16
    assert automatic_workers(3, 16, 100 * WORKER_BYTES) == 3
    assert automatic_workers(100, 16, 5 * WORKER_BYTES - 1) == 4
    assert automatic_workers(100, 16, 0) == 1
    assert automatic_workers(None, 16, None) == 16
    cores = (0, 1, 2, 5, 6, 7, 8)
    for count in range(1, 8):
        shares = [share_of(cores, place, count) for place in range(count)]
        assert sorted(core for share in shares for core in share) == list(cores)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert {share_of((3, 4), place, 5) for place in range(5)} == {(3,), (4,)}


def test_a_single_short_input_needs_no_other_process(
    media: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.multiprocessing, "get_context", no_workers)
    clip = media / "one" / "clip0.mp4"
    out, options = tmp_path / "out", ("--weights", tiny_weights, *QUICK, "--workers", 2)
    assert posecli(capfd, "video", clip, "-o", out, *options).code == 0 and (out / "clip0.mp4").is_file()


def test_a_live_source_and_a_window_need_this_process(
    media: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = media / "one" / "clip0.mp4"
    result = posecli(capfd, "video", clip, "-o", tmp_path / "out", "--workers", 2, "--show")
    assert result.code == 2 and "--workers 2" in result.err.splitlines()[-1]
    result = posecli(capfd, "video", clip, "-o", tmp_path / "out", "--workers", "none")
    assert result.code == 2 and "neither a number of processes nor auto" in result.err
