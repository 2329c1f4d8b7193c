"""Workers on a Ray cluster write what one process writes, whatever happens to them and to the nodes."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from posecli.media.inputs import Input
from posecli.pipeline import workers
from posecli.pipeline.cluster_worker import make_probe
from posecli.pipeline.events import Job
from posecli.pipeline.models import ModelOptions
from posecli.pipeline.run_options import RunOptions
from posecli.pipeline.shipped import pack, unpack
from posecli.pipeline.unit import Unit
from posecli.pipeline.worker import Advanced, Broken, Ended, Message, Order, Unseen, Wanted
from posecli.results.manifest import Finished
from posecli.results.records import Summary
from tests.entry_points import posecli, start
from tests.media_factory import picture, write_photo, write_video
from tests.test_workers import QUICK, same_files

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


# ---- without a cluster ----------------------------------------------------------------------------------


@needs_ray
@pytest.mark.parametrize(
    ("address", "code", "words"),
    [("ray://127.0.0.1:9", 4, "cannot be reached"), ("127.0.0.1:9", 4, "cannot be reached"), ("there", 2, "HOST:PORT")],
)
def test_an_address_without_a_cluster(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], address: str, code: int, words: str
) -> None:
    photo = write_photo(tmp_path / "a.jpg")
    result = posecli(capfd, "run", photo, "-o", tmp_path / "out", *QUICK, "--cluster", address)
    assert result.code == code and words in result.err and result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_ray_it_is_said_how_to_get_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    photo = write_photo(tmp_path / "a.jpg")
    result = posecli(capfd, "run", photo, "-o", tmp_path / "out", *QUICK, "--cluster", "auto")
    assert result.code == 4 and "pip install 'posecli[ray]'" in result.err and result.err.count("\n") == 1


def test_live_sources_and_windows_are_of_this_machine(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photo = write_photo(tmp_path / "a.jpg")
    for arguments in (["webcam:0"], [photo, "--show"], [photo, "--worker-cpus", 0]):
        result = posecli(capfd, "run", *arguments, "-o", tmp_path / "out", *QUICK, "--cluster", "127.0.0.1:9")
        assert result.code == 2 and result.err.count("\n") == 1, result.err


def test_files_of_models_are_taken_along(tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSECLI_CACHE", str(tmp_path / "cache"))
    (tmp_path / "boxes.json").write_text("[]")
    models = ModelOptions(str(tiny_weights), detector=f"boxes:{tmp_path / 'boxes.json'}")
    shipped = pack(models)
    assert sorted(shipped.files) == ["boxes/boxes.json", f"weights/{tiny_weights.name}"]
    for _ in range(2):
        there = unpack(shipped)
        assert Path(there.weights).read_bytes() == tiny_weights.read_bytes()
        assert Path(there.weights).name == tiny_weights.name and there.weights != str(tiny_weights)
        assert Path(there.detector.removeprefix("boxes:")).read_text() == "[]"
    embedded = ModelOptions("pose-fast")
    assert unpack(pack(embedded)) == embedded and not pack(embedded).files


def test_a_node_tells_what_it_has(tmp_path: Path) -> None:
    from posecli import __version__

    probe = make_probe()
    (tmp_path / "mark").write_text("x")
    seen = str(tmp_path / "mark")
    assert probe(seen, "x", None) == {"version": __version__, "sees": True, "folder": True}
    assert probe(seen, "y", str(tmp_path / "no")) == {"version": __version__, "sees": False, "folder": False}
    assert probe(str(tmp_path / "none"), "x", str(tmp_path))["sees"] is False


class Played:
    """A worker that answers each job by a function of its place and the job."""

    def __init__(self, place: int, answer: Callable[[int, Job], Message]) -> None:
        self.place, self._answer = place, answer
        self.messages: list[Message] = [Wanted(ready=True), Wanted()]

    def send(self, order: Order) -> None:
        if isinstance(order, Job):
            self.messages += [self._answer(self.place, order), Wanted()]

    def receive(self) -> list[Message]:
        found, self.messages = self.messages, []
        return found

    def kill(self) -> None: ...

    def join(self, seconds: float) -> None: ...

    def cause(self) -> str:
        return "played"


class PlayedPool:
    """Two machines with a worker each; one that breaks is left out."""

    def __init__(self, answer: Callable[[int, Job], Message]) -> None:
        self._answer, self.left_out = answer, set[int]()

    def places(self, most: int) -> list[int]:
        return [place for place in range(2) if place not in self.left_out][:most]

    def count(self) -> int:
        return len(self.places(9))

    def all_cores(self) -> None: ...

    def start(self, place: Any) -> Played:
        return Played(place, self._answer)

    def wait(self, handles: Any, seconds: float) -> Any:
        return [handle for handle in handles if handle.messages]

    def ready(self, handle: Any) -> None: ...

    def ended_early(self, handle: Any, cause: str) -> None: ...

    def without(self, handle: Any, error: BaseException) -> str:
        self.left_out.add(handle.place)
        return f"left out: {error}"

    def close(self) -> None: ...


class Silent:
    def begin(self, name: str, frames: int) -> None: ...

    def advance(self, name: str, frames: int) -> None: ...

    def finish(self, item: Finished) -> None: ...


def done(job: Job) -> Ended:
    return Ended(job.number, Finished(job.input.name, "p", "photo", Summary("done", 1)))


def drive(tmp_path: Path, answer: Callable[[int, Job], Message]) -> tuple[dict[int, Finished], PlayedPool]:
    jobs = [
        Job(n, Input(write_photo(tmp_path / f"{n}.jpg"), f"{n}.jpg", "photo"), f"{n}.jpg", tmp_path) for n in range(6)
    ]
    (tmp_path / "4.jpg").unlink()
    ended: dict[int, Finished] = {}
    pool = PlayedPool(answer)
    unit = Unit(tmp_path, RunOptions(), "k", "k")
    driver = workers._Driver(unit, jobs, pool, lambda job, item: ended.update({job.number: item}), Silent())
    driver.run()
    driver.end()
    return ended, pool


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("other models")])
def test_the_others_go_on_without_a_machine_that_breaks(tmp_path: Path, error: Exception) -> None:
    ended, pool = drive(tmp_path, lambda place, job: Broken(error) if place == 0 else done(job))
    assert pool.left_out == {0}
    assert sorted(ended) == [*range(6)] and all(item.summary.status == "done" for item in ended.values())


def test_an_input_that_one_machine_does_not_see_is_done_by_another(tmp_path: Path) -> None:
    """But where it was deleted, it fails, and the machine stays."""
    ended, pool = drive(tmp_path, lambda place, job: Unseen(job.number) if place == 0 and job.number < 3 else done(job))
    assert pool.left_out == {0} and all(item.summary.status == "done" for item in ended.values())
    ended, pool = drive(tmp_path, lambda place, job: Unseen(job.number) if job.number == 4 else done(job))
    assert pool.left_out == set() and len(ended) == 6
    assert "No such file" in str(ended[4].summary.error)


# ---- on a cluster of two nodes --------------------------------------------------------------------------

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    made.add_node(**NODE)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("media")
    for number in range(30):
        write_photo(root / f"{number:02}.jpg", picture(seed=number))
    for number, frames in enumerate((30, 60)):
        write_video(root / f"clip{number}.mp4", frames, sound="aac" if number else None)
    (root / "broken.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def plain(media: Path, tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    out = tmp_path_factory.mktemp("plain") / "out"
    process = start(*line(media, out, tiny_weights))
    assert process.wait(200) == 1
    return out


def line(media: Path, out: Path, weights: Path, *more: object) -> list[object]:
    return ["run", media, "-o", out, "--weights", weights, *QUICK, "--format", "csv", *more]


def actors() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if b"ray::Actor" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def until(met: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.02)


def records(out: Path) -> int:
    return len(list(out.glob(".posecli/records/*/*.jsonl")))


@needs_ray
@pytest.mark.slow
def test_two_nodes_write_the_same_bytes_also_from_relative_paths(
    cluster: Any, media: Path, plain: Path, tmp_path: Path, tiny_weights: Path, capfd: Any, monkeypatch: Any
) -> None:
    result = posecli(capfd, *line(media, tmp_path / "out", tiny_weights, "--cluster", cluster.address))
    assert result.code == 1 and result.err.count("broken.jpg") == 1, result.err
    same_files(plain, tmp_path / "out")
    monkeypatch.chdir(media)
    result = posecli(
        capfd, *line(Path("clip0.mp4"), Path("..") / "rel", tiny_weights, "--cluster", cluster.address, "--json")
    )
    assert result.code == 0, result.err
    assert json.loads(result.out)["inputs"][0]["path"] == "clip0.mp4"
    assert (media.parent / "rel" / "clip0.mp4").read_bytes() == (plain / "clip0.mp4").read_bytes()


@needs_ray
@pytest.mark.slow
def test_killed_workers_and_a_node_that_leaves_change_nothing(
    cluster: Any,
    media: Path,
    plain: Path,
    tmp_path: Path,
    tiny_weights: Path,
    capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    take, count = workers._Driver._take, 0
    events = ["kill", "remove", "add"]

    def counting(driver: Any, worker: Any, message: Any) -> None:
        nonlocal count
        take(driver, worker, message)
        count += isinstance(message, Advanced | Ended)
        if any(driver._deaths[number] for worker in driver._workers.values() for number in worker.in_hand):
            return  # a second death would make the input fail
        if events == ["kill", "remove", "add"] and count >= 6:
            os.kill(actors()[0], signal.SIGKILL)
            del events[0]
        elif events == ["remove", "add"] and len(driver._waiting) > 2:  # else it may be given what is tried again
            busy = {w.handle.place[1] for w in driver._workers.values() if w.ready and w.in_hand}
            for node in cluster.worker_nodes.copy():
                if node.node_id in busy:
                    cluster.remove_node(node, allow_graceful=False)
                    events[:] = ["add"]
        elif events == ["add"]:
            cluster.add_node(**NODE)
            events.clear()

    monkeypatch.setattr(workers._Driver, "_take", counting)
    result = posecli(capfd, *line(media, tmp_path / "out", tiny_weights, "--cluster", cluster.address))
    assert result.code == 1 and events == [], result.err
    assert "Traceback" not in result.err + result.out
    said = [record.getMessage() for record in caplog.records]
    assert sum(words.startswith("a worker process ended") for words in said) >= 2
    same_files(plain, tmp_path / "out")


@needs_ray
@pytest.mark.slow
def test_a_driver_that_is_stopped_is_gone_on_with(
    cluster: Any, media: Path, plain: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    out = tmp_path / "out"
    command = line(media, out, tiny_weights, "--cluster", cluster.address)
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        before = records(out)
        process = start(*command)
        until(lambda before=before: records(out) > before + 4)  # type: ignore[misc]
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code and "Traceback" not in err
        if code == 130:
            assert not list(out.rglob("*.part"))
            assert len(json.loads((out / "coco.json").read_bytes())["images"]) >= 4
    last = start(*command)
    _, err = last.communicate(timeout=200)
    assert last.returncode == 1, err
    for name in ("run.json", "index.html"):  # which say what was skipped
        (out / name).write_bytes((plain / name).read_bytes())
    same_files(plain, out)


@needs_ray
@pytest.mark.slow
def test_a_node_with_another_posecli_is_left_out(
    cluster: Any, media: Path, plain: Path, tmp_path: Path, tiny_weights: Path, capfd: Any
) -> None:
    code = (
        'import sys, types\nother = sys.modules["posecli"] = types.ModuleType("posecli")\nother.__version__ = "0.0.9"\n'
    )
    (tmp_path / "sitecustomize.py").write_text(code)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    node = cluster.add_node(**{**NODE, "num_cpus": 5}, env_vars={"PYTHONPATH": paths})
    more = ("--cluster", cluster.address, "--worker-cpus", 5)
    try:
        result = posecli(capfd, *line(media, tmp_path / "out", tiny_weights, *more))
    finally:
        cluster.remove_node(node)
    assert result.code == 4 and "no node can be used" in result.err and "0.0.9" in result.err
    assert posecli(capfd, *line(media, tmp_path / "out", tiny_weights, "--cluster", cluster.address)).code == 1
    same_files(plain, tmp_path / "out")
