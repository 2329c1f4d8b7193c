"""The server of `posecli review`, on this machine's loopback interface only."""

import asyncio
import logging
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from posecli import interrupt
from posecli.corrections.corrections import Corrections
from posecli.errors import MachineError
from posecli.results.manifest import read_options
from posecli.review.access import Guard, Keys
from posecli.review.api import Api
from posecli.review.merging import Merging
from posecli.review.pictures import Pictures

HOST = "127.0.0.1"
# Seconds that requests under way have at the end, within those that a signal leaves.
_END_SECONDS = 0.6


@dataclass(frozen=True)
class Served:
    """A server that runs. address: with the token. launch: for the browser that is started, valid once."""

    port: int
    address: str
    launch: str
    thread: threading.Thread


@contextmanager
def served(corrections: Corrections, port: int = 0) -> Iterator[Served]:
    """Serve the corrections in a thread; at the end coco_corrected.json is up to date. port: 0 for a free one.

    Raises MachineError where the port is taken.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(_listening(port))
        port = listening.getsockname()[1]
        keys = Keys()
        pictures = Pictures(corrections.out, **_limits(corrections.out))
        stack.callback(pictures.close)
        merging = Merging(corrections)
        stack.callback(merging.close)
        api = Api(corrections, pictures, merging)
        server = uvicorn.Server(_config(Guard(api.application(), keys, port)))
        loops: list[asyncio.AbstractEventLoop] = []

        async def serve() -> None:
            loops.append(asyncio.get_running_loop())
            await server.serve(sockets=[listening])

        def end() -> None:
            server.should_exit = True
            if loops and thread.is_alive():
                loops[0].call_soon_threadsafe(api.close)
            thread.join(_END_SECONDS)

        thread = threading.Thread(target=lambda: asyncio.run(serve()), name="server", daemon=True)
        thread.start()
        stack.callback(end)
        place = f"http://{HOST}:{port}/?token="
        yield Served(port, place + keys.token, place + keys.launch, thread)


def serve(corrections: Corrections, port: int, browser: bool, started: Callable[[str], None]) -> None:
    """Serve until a signal comes. started: called with the address. Raises MachineError, KeyboardInterrupt."""
    with interrupt.interruptible(), served(corrections, port) as server:
        started(server.address)
        if browser:
            threading.Thread(target=webbrowser.open, args=(server.launch,), daemon=True).start()
        while server.thread.is_alive():
            server.thread.join(0.5)
        raise MachineError("the server ended by itself: --debug shows why")


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
        found.listen(64)
    except (OSError, OverflowError) as error:
        found.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise MachineError(f"--port {port}: cannot be used ({reason}): choose another, or leave it out") from error
    with found:
        yield found


def _config(app: Guard) -> uvicorn.Config:
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=256,
        timeout_graceful_shutdown=1,
    )


def _limits(out: Path) -> dict[str, int]:
    """The run's limit of the pixels of a photo."""
    given = read_options(out).get("max_pixels")
    return {"max_pixels": given} if isinstance(given, int) and not isinstance(given, bool) else {}
