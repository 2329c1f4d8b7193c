"""Inputs and --out at addresses that fsspec opens: the files of a run with paths, whatever breaks on the way."""

import json
import platform
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import orjson
import pytest
from fsspec.implementations.memory import MemoryFile

from tests.entry_points import QUICK, Result, posecli
from tests.media_factory import picture, write_photo, write_video
from tests.stores import LOST, Shelf

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of its own, as of a fresh machine; nothing fetched is left in it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("POSECLI_CACHE", str(folder))
    Shelf.reset()
    yield folder
    assert [*(folder / "remote").glob("in-*")] == []
    Shelf.reset()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos, one of them in a subfolder with a name that needs care, and a clip."""
    folder = tmp_path_factory.mktemp("media")
    write_photo(folder / "b.jpg")
    write_photo(folder / "a dir" / "Ü #1%20?.jpg", picture(seed=3))
    write_video(folder / "clip.mp4", 4)
    (folder / "notes.txt").write_text("no media")
    return folder


class Runner:
    """`posecli run` with tiny weights."""

    def __init__(self, capfd: pytest.CaptureFixture[str], weights: Path) -> None:
        self.capfd, self.weights = capfd, weights

    def __call__(self, source: object, out: object, *more: object) -> Result:
        return posecli(self.capfd, "run", source, "-o", out, "--weights", self.weights, *QUICK, *more)

    def status(self, source: object, out: object, *more: object) -> dict[str, int]:
        result = self(source, out, "--json", *more)
        status: dict[str, int] = json.loads(result.out)["totals"]["status"]
        assert result.code == (1 if "failed" in status else 0), result.err
        return status


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tiny_weights: Path) -> Runner:
    return Runner(capfd, tiny_weights)


@pytest.fixture(scope="module")
def plain(media: Path, tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> dict[str, bytes]:
    """The files of a run with paths."""
    import sys

    from posecli.cli.main import main

    out = tmp_path_factory.mktemp("plain") / "out"
    with pytest.MonkeyPatch.context() as patch:
        line = ["run", str(media), "-o", str(out), "--weights", str(tiny_weights), *QUICK, "-q", "--format", "csv"]
        patch.setattr(sys, "argv", ["posecli", *line])
        with pytest.raises(SystemExit):
            main()
    return files_of(out)


def files_of(folder: Path) -> dict[str, bytes]:
    """What a run wrote, without the times in it."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in ("run.json", "index.html", ".posecli/lock", ".posecli/mirror"):
            found[name] = path.read_bytes()
            if name == ".posecli/outputs.json":
                found[name] = b" ".join(sorted(name.encode() for name in orjson.loads(found[name])["files"]))
            elif name.endswith(".jsonl"):
                first, *frames, last = map(orjson.loads, found[name].splitlines())
                first.pop("version", None)
                last.pop("seconds")
                found[name] = repr((first, frames, last)).encode()
    return found


def bytes_of(paths: Iterable[Path]) -> int:
    """The bytes of files, of which the run may be deleting some."""
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def disk(path: Path) -> str:
    return f"disk://{path}"


def test_the_files_are_those_of_a_run_with_paths(
    run: Runner, media: Path, plain: dict[str, bytes], tmp_path: Path, cache: Path
) -> None:
    out = tmp_path / "there"
    result = run(disk(media), disk(out), "--format", "csv")
    assert result.code == 0, result.err
    assert f"disk://{out}/index.html" in result.err
    assert str(cache) not in result.err
    assert files_of(out) == plain
    document = json.loads((out / "run.json").read_bytes())
    assert [row["path"] for row in document["inputs"]] == [
        disk(media / name) for name in ("b.jpg", "clip.mp4", "a dir/Ü #1%20?.jpg")
    ]
    mirrored = [path for path in cache.rglob("*") if path.suffix in (".jpg", ".mp4")]
    assert mirrored and all(path.stat().st_size == 0 for path in mirrored)

    Shelf.reset()
    assert run.status(disk(media), disk(out), "--format", "csv") == {"skipped": 3}
    assert not {"b.jpg", "clip.mp4"} & {*Shelf.got}, "finished inputs were fetched again"
    assert files_of(out) == plain
    shutil.rmtree(cache)  # another machine
    Shelf.reset()
    assert run.status(disk(media), disk(out), "--format", "csv") == {"skipped": 3}
    assert len(Shelf.got) == 4, "three records and the output list"
    assert files_of(out) == plain


def test_memory_and_file_addresses(run: Runner, media: Path, plain: dict[str, bytes], tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(media), "/media", recursive=True)
    try:
        assert run.status("memory://media", f"file://{tmp_path}/out", "--format", "csv") == {"done": 3}
        assert files_of(tmp_path / "out") == plain
        assert run.status(f"file://{media}", "memory://results", "--format", "csv") == {"done": 3}
        store.get("/results/", str(tmp_path / "got"), recursive=True)
        assert files_of(tmp_path / "got") == plain
        # A changed input is done again, the others are not; a file that was deleted there is made again.
        store.pipe_file("/media/b.jpg", (media / "a dir" / "Ü #1%20?.jpg").read_bytes())
        assert run.status("memory://media/*.jpg", "memory://results", "--overwrite") == {"done": 1}
        assert run.status("memory://media/*.jpg", "memory://results") == {"skipped": 1}
        store.rm_file("/results/b.jpg")
        assert run.status("memory://media/*.jpg", "memory://results") == {"done": 1}
        assert store.exists("/results/b.jpg")
    finally:
        store.store.clear()
        store.pseudo_dirs[:] = [""]


def test_uploads_that_break(run: Runner, media: Path, plain: dict[str, bytes], tmp_path: Path, cache: Path) -> None:
    out = tmp_path / "there"
    Shelf.broken.append(("put", "b.jpg", LOST))
    result = run(media, disk(out), "--format", "csv")
    assert result.code == 1
    assert f"not uploaded to --out (disk://{out}/b.jpg: [Errno 104] Connection reset by peer)" in result.err
    assert json.loads((out / "run.json").read_bytes())["totals"]["status"] == {"done": 2, "failed": 1}
    Shelf.reset()
    before = time.time()
    assert run.status(media, disk(out), "--format", "csv") == {"skipped": 3}, "it was finished, and only not there"
    assert files_of(out) == plain
    assert before - 60 < (out / "b.jpg").stat().st_mtime

    # The connection is lost in the middle: what is there is used, from another machine too.
    shutil.rmtree(out)
    Shelf.broken.append(("put", "clip", LOST))
    Shelf.broken.append(("put", "coco", LOST))
    result = run(media, disk(out), "--format", "csv")
    assert result.code == 4
    assert result.err.splitlines()[-1].startswith(f"posecli: --out disk://{out}/")
    assert result.err.count("Traceback") == 0
    shutil.rmtree(cache)
    Shelf.reset()
    assert run.status(media, disk(out), "--format", "csv") == {"skipped": 2, "done": 1}
    assert files_of(out) == plain


def test_a_killed_run_and_a_fresh_machine(
    run: Runner, media: Path, plain: dict[str, bytes], tmp_path: Path, cache: Path
) -> None:
    out = tmp_path / "there"
    Shelf.broken.append(("put", "clip", KeyboardInterrupt()))
    run(media, disk(out), "--format", "csv")
    shutil.rmtree(cache)
    Shelf.reset()
    lock = out / ".posecli" / "lock.json"
    assert not lock.exists()
    lock.write_text("damaged")
    status = run.status(media, disk(out), "--format", "csv")
    assert sum(status.values()) == 3 and "failed" not in status
    assert files_of(out) == plain


def test_a_lock_of_another_machine(run: Runner, media: Path, tmp_path: Path, cache: Path) -> None:
    lock = tmp_path / "there" / ".posecli" / "lock.json"
    lock.parent.mkdir(parents=True)
    other = {"run": "1", "host": "other\x1b", "process": 7, "mirror": "other", "time": time.time()}
    lock.write_bytes(orjson.dumps(other))
    result = run(media / "b.jpg", disk(tmp_path / "there"))
    assert result.code == 4
    assert "another posecli writes there (process 7 of other\\x1b" in result.err
    assert [path.name for path in (tmp_path / "there").rglob("*")] == [".posecli", "lock.json"]
    lock.write_bytes(orjson.dumps({**other, "time": time.time() - 1000}))
    assert run.status(media / "b.jpg", disk(tmp_path / "there")) == {"done": 1}
    assert not lock.exists()
    # A killed run's lock holds for other mirrors only.
    name = next(cache.glob("remote/out-*/name")).read_text()
    lock.write_bytes(orjson.dumps({**other, "mirror": f"{platform.node()} {name}", "time": time.time()}))
    assert run.status(media / "b.jpg", disk(tmp_path / "there")) == {"skipped": 1}
    lock.write_bytes(orjson.dumps({**other, "mirror": f"{platform.node()} another", "time": time.time()}))
    assert run(media / "b.jpg", disk(tmp_path / "there")).code == 4


def test_inputs_that_cannot_be_read(run: Runner, media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(media, folder)
    (folder / "false.mp4").write_bytes((folder / "b.jpg").read_bytes())
    (folder / "cut.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("text")
    Shelf.broken.append(("get", "clip.mp4", LOST))
    result = run(disk(folder), tmp_path / "out", "--json")
    assert result.code == 1
    rows = {row["name"]: row["error"] for row in json.loads(result.out)["inputs"] if row["error"]}
    assert rows == {
        "clip.mp4": f"disk://{folder}/clip.mp4: [Errno 104] Connection reset by peer",
        "cut.jpg": f"disk://{folder}/cut.jpg: the file is empty",
        "false.mp4": f"disk://{folder}/false.mp4: a photo by its content, a video by its name: rename it",
        "text.jpg": f"disk://{folder}/text.jpg: {rows['text.jpg'].rpartition(': ')[2]}",
    }
    Shelf.reset()
    Shelf.broken.append(("ls", "a dir", PermissionError()))
    result = run(disk(folder), tmp_path / "out2", "--dry-run", "--json")
    errors = [row["error"] for row in json.loads(result.out) if "a dir" in row["input"]]
    assert len(errors) == 1 and errors[0].startswith("the folder cannot be read")


def test_addresses_that_cannot_be_opened(run: Runner, media: Path, tmp_path: Path) -> None:
    for source, code, text in (
        ("nosuch://x/y", 2, "unknown protocol"),
        ("disk:///nowhere/a.jpg", 1, "no such file"),
        ("disk:///nowhere/*.jpg", 1, "no file matches"),
        (disk(tmp_path), 3, "no photo or video"),
    ):
        result = run(source, tmp_path / "out")
        assert (result.code, text in result.err) == (code, True), (source, result)
        assert "Traceback" not in result.err
    Shelf.broken.append(("put", "", PermissionError()))
    Shelf.broken.append(("ls", "", PermissionError()))
    (tmp_path / "there").mkdir()
    result = run(media / "b.jpg", disk(tmp_path / "there"))
    assert result.code == 4 and "permission denied" in result.err, result.err
    result = run("disk:///a.jpg", tmp_path / "out", "--cluster", "auto")
    assert result.code == 2 and "--cluster" in result.err


def test_inputs_and_foreign_files_are_not_replaced(run: Runner, media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(media, folder)
    before = files_of(folder)
    result = run(disk(folder), disk(folder))
    assert result.code == 2 and "is the folder of the inputs" in result.err
    result = run(disk(folder / "b.jpg"), disk(folder), "--overwrite")
    assert result.code == 2 and "would replace the input" in result.err
    result = run(media / "b.jpg", disk(folder))
    assert result.code == 2 and f"--out disk://{folder}: b.jpg there is not posecli's" in result.err
    assert files_of(folder) == before
    # An output folder within the inputs is skipped.
    assert run.status(disk(folder), disk(folder / "out")) == {"done": 3}
    assert run.status(disk(folder), disk(folder / "out")) == {"skipped": 3}


def test_the_cache_is_bounded(run: Runner, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posecli.pipeline import fetch
    from posecli.remote import RemoteFile

    for number in range(5):
        write_photo(tmp_path / "in" / f"{number}.png", picture(seed=number))
    sizes = sorted(path.stat().st_size for path in (tmp_path / "in").iterdir())
    limit = 2 * sizes[-1]
    seen: list[int] = []
    inner = RemoteFile.fetch

    def counted(file: RemoteFile, target: Path) -> None:
        inner(file, target)
        seen.append(bytes_of(target.parent.glob("*.png")))

    monkeypatch.setattr(RemoteFile, "fetch", counted)
    for bound in (limit, 1):  # each is larger than the last
        seen.clear()
        monkeypatch.setattr(fetch.Fetch.__init__, "__defaults__", (bound, 8))
        assert run.status(disk(tmp_path / "in"), tmp_path / f"out{bound}", "--no-media") == {"done": 5}
        assert len(seen) == 5 and max(seen) <= max(bound, sizes[-1])


def test_hostile_names_stay_inside(run: Runner, media: Path, tmp_path: Path) -> None:
    store, content = fsspec.filesystem("memory"), (media / "b.jpg").read_bytes()
    names = ("../../escape.jpg", "a/../../../escape.jpg", "/abs/x.jpg", "a//b.jpg", "a\\..\\b.jpg", "..", ". .jpg")
    try:
        store.pipe_file("/in/ok.jpg", content)
        store.pipe_file("/out/ok.txt", content)
        for key in (f"/{place}/{name}" for place in ("in", "out") for name in names):
            # A file of its own: files that are read at the same time share no position.
            store.store[key] = MemoryFile(store, key, content)
        assert run.status("memory://in", tmp_path / "deep" / "er" / "out", "--no-media") == {"done": 3}
        assert run.status(media / "b.jpg", "memory://out", "--no-media") == {"done": 1}
    finally:
        store.store.clear()
        store.pseudo_dirs[:] = [""]
    written = [path.relative_to(tmp_path).parts for path in tmp_path.rglob("*") if path.is_file()]
    assert all(parts[0] == "cache" or parts[:3] == ("deep", "er", "out") for parts in written), written
    mirrored = {"/".join(parts[4:]) for parts in written if parts[:2] == ("cache", "remote")}
    assert "ok.txt" in mirrored and not any("escape" in name for name in mirrored)


@pytest.fixture
def ftp(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of an FTP server on this machine, and its folder."""
    pytest.importorskip("pyftpdlib")
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import FTPServer

    class Handler(FTPHandler):
        authorizer = DummyAuthorizer()

    folder = tmp_path / "served"
    folder.mkdir()
    Handler.authorizer.add_user("user", "secret", str(folder), perm="elradfmwMT")
    server = FTPServer(("127.0.0.1", 0), Handler)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            server.serve_forever(timeout=0.05, blocking=False)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"ftp://user:secret@127.0.0.1:{server.address[1]}", folder
    ended.set()
    thread.join(5)
    server.close_all()


def test_a_server(
    ftp: tuple[str, Path], run: Runner, media: Path, plain: dict[str, bytes], cache: Path, tmp_path: Path
) -> None:
    address, folder = ftp
    shutil.copytree(media, folder / "in")
    result = run(f"{address}/in", f"{address}/results/out", "--format", "csv")
    assert result.code == 0, result.err
    assert "secret" not in result.err
    assert files_of(folder / "results" / "out") == plain
    assert not any(b"secret" in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(cache)
    assert run.status(f"{address}/in", f"{address}/results/out", "--format", "csv") == {"skipped": 3}
    result = run(f"{address}/nothing.jpg", tmp_path / "out")
    assert result.code == 1 and "/nothing.jpg: no such file" in result.err
    result = run(media / "b.jpg", "ftp://127.0.0.1:1/x")
    assert result.code == 4 and "Connection refused" in result.err and "Traceback" not in result.err


def test_workers(ftp: tuple[str, Path], run: Runner, media: Path, plain: dict[str, bytes]) -> None:
    address, folder = ftp
    shutil.copytree(media, folder / "in")
    line = (f"{address}/in", f"{address}/out", "--format", "csv", "--workers", "2")
    result = run(*line)
    assert result.code == 0, result.err
    assert files_of(folder / "out") == plain
    assert run.status(*line) == {"skipped": 3}
