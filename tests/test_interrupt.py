"""Ctrl-C, SIGTERM and a lost terminal: within two seconds, whatever the command waits for, and to be gone on with."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.entry_points import QUICK
from tests.media_factory import write_photo, write_video
from tests.warm import Started, Warm

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.alone
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


# ---- the mechanism, in processes that import next to nothing ------------------------------------------------

# A lock of C that is taken twice: no signal wakes who waits for it, as in a library that compiles a model.
BLOCKS = """
import ctypes, os
libc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)
def block(): libc.pthread_mutex_lock(lock), libc.pthread_mutex_lock(lock)
"""
START = """
import os, sys, time, signal
from posecli import interrupt
def ready(): os.write(1, b"ready\\n")
"""


def watched(
    code: str, *numbers: int, apart: float = 0.0, before: Callable[[], None] | None = None
) -> tuple[int, str, float]:
    """Exit code, stderr and seconds from the first signal to the end of a process, sent when it prints `ready`."""

    def begin() -> None:
        for number in CODES:  # the tests may run under nohup
            signal.signal(number, signal.SIG_DFL)
        if before is not None:
            before()

    process = subprocess.Popen(
        [sys.executable, "-c", START + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=begin,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.1)
    began = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(apart)
    try:
        code_ = process.wait(10)
    finally:
        process.kill()
    seconds = time.monotonic() - began
    with process.stdout, process.stderr:
        return code_, process.stderr.read().decode(), seconds


@pytest.mark.parametrize("number", CODES)
def test_c_code_that_never_returns_is_left(number: signal.Signals) -> None:
    code, err, seconds = watched(BLOCKS + "with interrupt.handle_signals(): ready(); block()", number)
    assert code == CODES[number] and seconds < 2
    assert err.count("\n") == 1 and err.startswith("posecli: ") and "goes on where it stopped" in err


def test_a_second_signal_ends_at_once() -> None:
    code, err, seconds = watched(BLOCKS + "with interrupt.handle_signals(): ready(); block()", 2, 15, apart=0.1)
    assert code == 130 and seconds < 1 and err.count("\n") == 1


# A library makes something else of the exception, or an endless loop nothing at all.
SWALLOWED = """
with interrupt.handle_signals():
    while True:
        try: ready(); time.sleep(60)
        except BaseException: pass
"""
# Python prints a traceback of it and goes on.
IN_DESTRUCTOR = """
class Slow:
    def __del__(self): ready(); time.sleep(9)
with interrupt.handle_signals():
    slow = Slow()
    del slow
    time.sleep(60)
"""
LONG_STEP = "with interrupt.handle_signals(), interrupt.deferred(): ready(); [time.sleep(0.5) for _ in range(40)]"


@pytest.mark.parametrize("code", [SWALLOWED, IN_DESTRUCTOR, LONG_STEP], ids=["swallowed", "destructor", "long step"])
def test_an_exception_that_is_lost_changes_nothing(code: str) -> None:
    result, err, seconds = watched(code, 2)
    assert result == 130 and seconds < 2 and "Traceback" not in err and err.count("\n") == 1


def test_a_module_half_loaded_is_left_at_once(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("import os, time\nos.write(1, b'ready\\n')\ntime.sleep(60)\n")
    code, err, seconds = watched(
        f"sys.path.insert(0, {str(tmp_path)!r})\nwith interrupt.handle_signals(): import half", 15
    )
    assert code == 143 and seconds < 1 and "Traceback" not in err


def test_with_results_to_keep_an_import_is_interrupted_as_all_else(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("import os, time\nos.write(1, b'ready\\n')\ntime.sleep(60)\n")
    code = f"""
sys.path.insert(0, {str(tmp_path)!r})
with interrupt.handle_signals(), interrupt.interruptible():
    try: import half
    except KeyboardInterrupt: os._exit(7)
"""
    assert watched(code, 15)[0] == 7


def test_after_the_work_is_done_nothing_is_lost_or_told() -> None:
    code = "with interrupt.handle_signals(): interrupt.finished(1); ready(); time.sleep(60)"
    assert watched(code, 2)[:2] == (1, "")


def test_what_nohup_ignores_stays_ignored() -> None:
    ignores = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    code, err, _ = watched("with interrupt.handle_signals(): ready(); time.sleep(0.3)", signal.SIGHUP, before=ignores)
    assert (code, err) == (0, "")


def test_a_reader_who_does_not_read_stderr_is_not_waited_for() -> None:
    code = """
os.set_blocking(2, False)
try:
    while True: os.write(2, b"x" * 4096)
except BlockingIOError: os.set_blocking(2, True)
"""
    result, _, seconds = watched(BLOCKS + code + "with interrupt.handle_signals(): ready(); block()", 2)
    assert result == 130 and seconds < 2


def test_handlers_are_put_back() -> None:
    from posecli import interrupt

    before = [signal.getsignal(number) for number in CODES]
    with interrupt.handle_signals(), interrupt.handle_signals():
        assert signal.getsignal(signal.SIGTERM) not in before and interrupt.received_signal() is None
        with pytest.raises(KeyboardInterrupt), interrupt.deferred():
            signal.raise_signal(signal.SIGTERM)
        assert interrupt.received_signal() == signal.SIGTERM
    assert [signal.getsignal(number) for number in CODES] == before and interrupt.received_signal() is None


# ---- the commands ---------------------------------------------------------------------------------------


def ended(process: Started, *numbers: int, apart: float = 0.0) -> tuple[int, str]:
    """Exit code and stderr of a process that signals end within two seconds."""
    began = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(apart)
    try:
        code = process.wait(10)
    finally:
        process.send_signal(signal.SIGKILL)
    assert time.monotonic() - began < 2
    err = process.printed()[1]
    assert "Traceback" not in err and "Fatal" not in err
    assert err.count("goes on where it stopped") == 1
    return code, err


def until(holds: Callable[[], bool], process: Started) -> None:
    """Wait for something that a running process does."""
    end = time.monotonic() + 60
    while not holds() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    assert holds() and process.poll() is None, process.printed() if process.poll() is not None else "not in time"


@pytest.mark.parametrize("numbers", [(2,), (15,), (2, 2)])
def test_a_silent_stdin(warm: Warm, tmp_path: Path, tiny_weights: Path, numbers: tuple[int, ...]) -> None:
    process = warm.start("video", "-", "-o", tmp_path / "out", "--weights", tiny_weights, *QUICK, stdin=subprocess.PIPE)
    until((tmp_path / "out").is_dir, process)
    time.sleep(0.3)
    code, _ = ended(process, *numbers, apart=0.05)
    assert code == CODES[signal.Signals(numbers[0])]


def test_a_stream_that_falls_silent_keeps_its_records(warm: Warm, tmp_path: Path, tiny_weights: Path) -> None:
    out = tmp_path / "out"
    photo, clip = write_photo(tmp_path / "a.jpg"), write_video(tmp_path / "a.mkv", 60)
    process = warm.start("run", photo, "-", "-o", out, "--weights", tiny_weights, *QUICK, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(clip.read_bytes()[:-1])
    until(lambda: any(out.glob(".posecli/records/*/*.jsonl")), process)
    time.sleep(0.4)
    assert ended(process, 2)[0] == 130
    assert len(json.loads((out / "coco.json").read_bytes())["images"]) == 1
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize("numbers", [(2,), (15,)])
def test_a_silent_list_on_stdin(warm: Warm, tmp_path: Path, numbers: tuple[int, ...]) -> None:
    process = warm.start("run", "@-", "-o", tmp_path / "out", stdin=subprocess.PIPE)
    time.sleep(0.3)
    assert ended(process, *numbers)[0] == CODES[signal.Signals(numbers[0])]


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that accepts and never sends."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("scheme", ["http", "tcp", "rtsp"])
def test_a_silent_network(warm: Warm, tmp_path: Path, tiny_weights: Path, silent_server: int, scheme: str) -> None:
    address = f"{scheme}://127.0.0.1:{silent_server}/x"
    process = warm.start("video", address, "-o", tmp_path / "out", "--weights", tiny_weights, *QUICK)
    until((tmp_path / "out").is_dir, process)
    time.sleep(0.3)
    assert ended(process, 2)[0] == 130


BLOCKED = BLOCKS + "def wait(*_, **__): os.write(1, b'here'); block()\n"
WHERE = {
    "compiling": "import posecli.pose.estimator as e; e.load_runner = wait",
    "detecting": "import posecli.detect.boxes as b; b.build_whole = wait",
    "drawing": "import posecli.results.media_writer as s; s.write_image = wait",
    "gallery": "import posecli.results.write as r; r.write_gallery = wait",
    "coco": "import posecli.results.coco as c; c.coco_images = wait",
}


@pytest.mark.parametrize("where", WHERE)
def test_a_library_that_does_not_return(warm: Warm, tmp_path: Path, tiny_weights: Path, where: str) -> None:
    out = tmp_path / "out"
    photo = write_photo(tmp_path / "in" / "a.jpg")
    command = ("run", photo, "-o", out, "--weights", tiny_weights, *QUICK)
    process = warm.start(*command, before=BLOCKED + WHERE[where])
    os.read(process.stdout_number, 4)
    assert ended(process, 15)[0] == 143
    again = warm.start(*command)
    assert again.wait() == 0, again.printed()
    assert len(json.loads((out / "coco.json").read_bytes())["images"]) == 1


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("eval", "import posecli.cli.eval as m; m._truth = wait"),
        ("train", "import posecli.cli.train_options as m; m.sources = wait"),
    ],
)
def test_eval_and_train(warm: Warm, command: str, where: str) -> None:
    process = warm.start(command, "--ann", "val2017", before=BLOCKED + where)
    assert os.read(process.stdout_number, 4) == b"here"
    assert ended(process, 15)[0] == 143


def test_ended_in_a_clip_it_goes_on_there_to_the_same_bytes(warm: Warm, tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", 200, 160, 120)
    options = ("--weights", tiny_weights, *QUICK, "--trails", "--kpt-thr", 0)
    assert warm.start("video", clip, "-o", tmp_path / "one", *options).wait() == 0
    out = tmp_path / "two"
    journals = out / ".posecli" / "journals"
    for number, kept in ((signal.SIGINT, 20_000), (signal.SIGTERM, 60_000)):
        process = warm.start("video", clip, "-o", out, *options)
        until(lambda n=kept: sum(f.stat().st_size for f in journals.glob("*.jsonl")) > n, process)
        assert ended(process, number)[0] == CODES[number]
        assert list(journals.glob("*.jsonl"))
    assert warm.start("video", clip, "-o", out, *options).wait() == 0
    for name in ("a.mp4", "coco.json", "coco_results.json"):
        assert (out / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
