"""`posecli weights pull` from a server on this machine that breaks off, lies and refuses."""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import cv2
import pytest
import torch

from posecli.pose.loading import load_network
from posecli.weights import download, zoo
from posecli.weights.files import load_weights
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture
from tests.test_foreign import assert_same, model


@pytest.fixture(scope="module")
def content() -> bytes:
    """A published file: RTMPose with 17 keypoints, small."""
    buffer = io.BytesIO()
    torch.save({"meta": {}, "state_dict": model("rtmpose-17").state}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.fixture
def server(content: bytes) -> Iterator[SimpleNamespace]:
    """What it does is set by its attributes: content, break_at (bytes per answer), status, ranges, length."""
    state = SimpleNamespace(content=content, break_at=None, status=200, ranges=True, length=None, asked=[], url="")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.asked.append(asked)
            if state.status != 200:
                self.send_error(state.status)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            if start >= len(state.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.content)}")
                self.end_headers()
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            self.send_header("Content-Length", str(state.length or len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # one who has seen enough hangs up
                self.wfile.write(body[: state.break_at])

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=running.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{running.server_port}"
    yield state
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def folder(server: SimpleNamespace, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights; rtmpose-m is what the server has."""
    published = dict(zoo.published())
    digest = hashlib.sha256(content).hexdigest()[:8]
    small = replace(published["rtmpose-m"], url=f"{server.url}/small-{digest}_20230504.pth", sha256=digest)
    monkeypatch.setattr(zoo, "published", lambda: {**published, "rtmpose-m": small})
    monkeypatch.setattr("posecli.pose.pull.published", zoo.published)
    monkeypatch.setenv("POSECLI_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.delenv("POSECLI_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "weights"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_published_model_is_fetched_checked_and_converted(
    folder: Path, server: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    result = posecli(capfd, "weights", "pull", "rtmpose-m")
    assert result.code == 0, result.err
    path = folder / "rtmpose-m.safetensors"
    assert result.out == f"{path}\n" and names(folder) == [path.name]
    network, config = load_network(path)
    with torch.no_grad():
        assert_same([logits.numpy() for logits in network(model("rtmpose-17").crops)], model("rtmpose-17").logits)
    header = load_weights(path)[1]
    assert config.keypoints.name == "coco17" and header["source"].startswith(server.url)
    assert "Apache-2.0" in header["licence"] and header["imported"]["sha256"]
    assert posecli(capfd, "weights", "pull", "rtmpose-m").code == 0
    assert server.asked == [None]
    assert "rtmpose-m " in posecli(capfd, "weights", "list").out


def test_a_download_that_breaks_off_is_resumed_within_a_call_and_by_the_next(
    folder: Path, server: SimpleNamespace, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    server.break_at = len(content) // 5
    result = posecli(capfd, "weights", "pull", "rtmpose-m")
    assert result.code == 4 and "broke off" in result.err and "try again" in result.err
    step = server.break_at
    assert server.asked == [None, f"bytes={step}-", f"bytes={2 * step}-"]
    (part,) = folder.glob("*.part")
    assert part.read_bytes() == content[: 3 * step]
    server.break_at = None
    assert posecli(capfd, "weights", "pull", "rtmpose-m").code == 0
    assert server.asked[3:] == [f"bytes={3 * step}-"] and names(folder) == ["rtmpose-m.safetensors"]


def test_a_server_without_ranges_sends_all_again_and_a_whole_part_is_kept(
    folder: Path, server: SimpleNamespace, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    part = folder / (server_file(server) + ".part")
    part.write_bytes(content[:1000])
    server.ranges = False
    assert posecli(capfd, "weights", "pull", "rtmpose-m").code == 0
    (folder / "rtmpose-m.safetensors").unlink()
    part.write_bytes(content)
    server.ranges = True
    assert posecli(capfd, "weights", "pull", "rtmpose-m").code == 0
    assert server.asked == ["bytes=1000-", f"bytes={len(content)}-"]


def server_file(server: SimpleNamespace) -> str:
    return zoo.published()["rtmpose-m"].file


def test_another_file_than_the_one_named_is_deleted(
    folder: Path, server: SimpleNamespace, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    server.content = content[:-1] + b"x"
    result = posecli(capfd, "weights", "pull", "rtmpose-m")
    assert result.code and "SHA-256" in result.err and names(folder) == []


def test_404_and_no_server_say_where_to_put_the_file(
    folder: Path, server: SimpleNamespace, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.status = 404
    result = posecli(capfd, "weights", "pull", "rtmpose-m")
    assert result.code == 4 and "404" in result.err and f"into {folder}" in result.err and names(folder) == []
    dead = {"rtmpose-m": replace(zoo.published()["rtmpose-m"], url="http://127.0.0.1:9/x-00000000.pth")}
    monkeypatch.setattr("posecli.pose.pull.published", lambda: dead)
    result = posecli(capfd, "weights", "pull", "rtmpose-m")
    assert result.code == 4 and "cannot be fetched" in result.err and f"into {folder}" in result.err


def test_too_large_a_file_is_not_fetched(
    folder: Path, server: SimpleNamespace, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.length = 10**12
    result = posecli(capfd, "weights", "pull", "rtmpose-m")
    assert result.code and "not fetched" in result.err
    server.length = None
    monkeypatch.setattr(download, "LARGEST", 1000)
    result = posecli(capfd, "weights", "pull", "rtmpose-m")
    assert result.code and "not fetched" in result.err
    assert all(path.stat().st_size <= 1000 for path in folder.iterdir())


def test_offline_one_line_says_the_address_and_the_place(
    folder: Path,
    server: SimpleNamespace,
    content: bytes,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POSECLI_OFFLINE", "1")
    picture_file = tmp_path / "a.png"
    cv2.imwrite(str(picture_file), picture(120, 90, 1))
    run = ("run", picture_file, "--out", tmp_path / "out", "--weights", "rtmpose-m", *QUICK)
    for command in (("weights", "pull", "rtmpose-m"), run):
        result = posecli(capfd, *command)
        line = result.err.splitlines()[-1]
        assert result.code == 4 and server.url in line and str(folder) in line
    monkeypatch.delenv("POSECLI_OFFLINE")
    for command in (("weights", "pull", "rtmpose-m"), run):
        assert posecli(capfd, *command, "--offline").code == 4
    assert server.asked == [] and "POSECLI_OFFLINE" not in os.environ
    monkeypatch.setenv("POSECLI_OFFLINE", "1")
    folder.mkdir()
    (folder / server_file(server)).write_bytes(content)
    assert posecli(capfd, "weights", "pull", "rtmpose-m").code == 0


def test_a_run_fetches_by_itself_after_saying_so(
    folder: Path,
    server: SimpleNamespace,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(120, 90, 1))
    result = posecli(capfd, "run", tmp_path / "a.png", "--out", tmp_path / "out", "--weights", "rtmpose-m", *QUICK)
    assert result.code == 0 and f"fetching {server.url}" in caplog.text + result.err
    assert (tmp_path / "out" / "coco.json").is_file()


def test_the_list_names_every_published_model_once() -> None:
    models = dict.fromkeys(zoo.published().values())
    assert len(models) == 56 and len({entry.url for entry in models}) == 56
    assert all(entry.url.startswith("https://") and entry.sha256 in entry.file for entry in models)
    assert sum(not entry.sha256 for entry in models) == 3
