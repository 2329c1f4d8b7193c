"""Processes of the command line that start within a moment: forks of one that has imported everything.

A test of signals, kills and streams needs a process of its own, whose imports would take seconds each time.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

_SERVER = """
import json, os, signal, socket, sys
import posecli.cli.eval, posecli.cli.run, posecli.cli.train, posecli.cli.video
import posecli.detect.embedded, posecli.evaluate.evaluation, posecli.results.tables, posecli.pipeline.run
import posecli.pipeline.window, posecli.pose.estimator, posecli.train.loop, posecli.train.visualise
import posecli.train.validation, posecli.train.calibrate, posecli.tracking.offline, torch
torch.set_num_threads(1)
server = socket.socket(fileno=int(sys.argv[1]))
while True:
    message, streams, _, _ = socket.recv_fds(server, 1 << 20, 4)
    if not message:
        break
    order = json.loads(message)
    # Two forks: the process that the test waits for is no child of this one, and tells its end itself.
    child = os.fork()
    if child == 0:
        server.close()
        pid = os.fork()
        if pid == 0:
            for number, stream in enumerate(streams[:3]):
                os.dup2(stream, number)
            for stream in streams:
                os.close(stream)
            os.chdir(order["folder"])
            os.environ.clear()
            os.environ.update(order["environment"])
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.argv = ["posecli", *order["arguments"]]
            exec(order["before"], {})
            from posecli.__main__ import run
            run()
        told = socket.socket(fileno=streams[3])
        for stream in streams[:3]:
            os.close(stream)
        told.sendall(b"%d\\n" % pid)
        _, status = os.waitpid(pid, 0)
        told.sendall(b"%d\\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    for stream in streams:
        os.close(stream)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


class Warm:
    """The process that forks. It ends with this one, whose end of their socket is closed then."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(__file__).parents[1])
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(other.fileno())],
            pass_fds=[other.fileno()],
            env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        )
        other.close()

    def start(self, *arguments: object, before: str = "", stdin: int | None = None) -> "Started":
        """posecli with these arguments. before: Python code that runs first. stdin: PIPE to write to, or a file."""
        inner, outer = zip(*(os.pipe()[:: 1 if number == 0 else -1] for number in range(3)), strict=True)
        writes = stdin == subprocess.PIPE
        if not writes:
            os.close(inner[0])
            inner = (os.open(os.devnull, os.O_RDONLY) if stdin is None else os.dup(stdin), *inner[1:])
            os.close(outer[0])
        told, telling = socket.socketpair()
        order = {
            "arguments": [str(argument) for argument in arguments],
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
            "before": before,
        }
        socket.send_fds(self._socket, [json.dumps(order).encode()], [*inner, telling.fileno()])
        telling.close()
        for end in inner:
            os.close(end)
        return Started(told, outer[0] if writes else None, outer[1], outer[2])


@cache
def the_warm_one() -> Warm:
    """One for all tests, which ends with them."""
    return Warm()


class Started:
    """As much of subprocess.Popen as tests use."""

    def __init__(self, told: socket.socket, stdin: int | None, stdout: int, stderr: int) -> None:
        self._told = told
        self.stdin = None if stdin is None else os.fdopen(stdin, "wb", buffering=0)
        self.stdout_number = stdout
        self._streams: dict[str, Any] = {"out": os.fdopen(stdout, "rb"), "err": os.fdopen(stderr, "rb")}
        self._texts: dict[str, str] = {}
        self.returncode: int | None = None
        self._answer = b""
        self.pid = int(self._line(120))

    def _line(self, seconds: float) -> bytes:
        end = time.monotonic() + seconds
        while b"\n" not in self._answer:
            self._told.settimeout(max(0.001, end - time.monotonic()))
            try:
                more = self._told.recv(100)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("posecli", seconds) from None
            assert more, "the process that forks has ended"
            self._answer += more
        line, _, self._answer = self._answer.partition(b"\n")
        return line

    def poll(self) -> int | None:
        """The exit code, None while the process runs."""
        if self.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.returncode = int(self._line(0))
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        """The exit code."""
        if self.returncode is None:
            self.returncode = int(self._line(timeout))
        return self.returncode

    def send_signal(self, number: int) -> None:
        """A real signal."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, data: bytes | None = None, timeout: float = 60) -> tuple[str, str]:
        """What it printed until its end; little, or it would wait for its reader."""
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.write(data or b"")
            self.stdin.close()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
            raise
        return self.printed()

    def close(self, name: str) -> None:
        """Leave as the reader of its "out" or "err"."""
        self._streams[name].close()
        self._texts[name] = ""

    def printed(self) -> tuple[str, str]:
        """What it printed on stdout and stderr, when it has ended."""
        for name, stream in self._streams.items():
            if name not in self._texts:
                with stream:
                    self._texts[name] = stream.read().decode()
        return self._texts["out"], self._texts["err"]
