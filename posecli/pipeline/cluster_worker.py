"""The worker on a node of a Ray cluster: an actor that works in a thread, with queues in place of a pipe."""

import os
import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from posecli.pipeline.events import Job
from posecli.pipeline.shipped import Shipped, unpack
from posecli.pipeline.worker import Broken, Common, Message, Order, Unseen, portable, serve
from posecli.processes import share_of, usable_cores

# A file of the output folder by which a node shows that it sees the same folder.
SEEN = "cluster"


class Actor:
    """A worker. common: its models are replaced by the shipped ones. share: number of the worker, and of all workers of
    its node. folder: current folder, where inputs have relative paths."""

    def __init__(self, common: Common, shipped: Shipped, share: tuple[int, int], folder: str | None) -> None:
        self._link = _Queues()
        cores = share_of(usable_cores(), *share) if common.torch_threads is None else None

        def work() -> None:
            try:
                if folder is not None:
                    os.chdir(folder)
                serve(self._link, replace(common, models=unpack(shipped)), cores)
            except BaseException as error:
                self._link.send(Broken(portable(error)))

        threading.Thread(target=work, name="worker", daemon=True).start()

    def put(self, order: Order) -> None:
        """Take an order of the driver."""
        self._link.orders.put(order)

    def take(self, seconds: float) -> list[Message]:
        """The messages for the driver, waiting so long at most for the first."""
        return self._link.messages_within(seconds)


class _Queues:
    """A worker.Link."""

    def __init__(self) -> None:
        self.orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def send(self, message: Message, /) -> None:
        """Keep a message for the driver."""
        self._messages.put(message)

    def recv(self) -> Order:
        """The next order for whose input there is a file."""
        while True:
            order = self.orders.get()
            if not isinstance(order, Job) or _is_seen(order):
                return order
            self.send(Unseen(order.number))

    def messages_within(self, seconds: float) -> list[Message]:
        """See Actor.take."""
        found = []
        try:
            found.append(self._messages.get(timeout=seconds))
            while True:
                found.append(self._messages.get_nowait())
        except queue.Empty:
            return found


def _is_seen(job: Job) -> bool:
    """Whether the input's file exists, or it has none."""
    item = job.input
    return item.address is not None or item.error is not None or os.path.lexists(item.path)


def make_probe() -> Callable[[str, str, str | None], dict[str, Any]]:
    """A function that tells what a node has. It is sent as code, since the node may have another posecli, or none."""

    def probe(seen: str, mark: str, folder: str | None) -> dict[str, Any]:
        from contextlib import suppress
        from pathlib import Path

        found: dict[str, Any] = {"version": None, "sees": False, "folder": folder is None or Path(folder).is_dir()}
        try:
            import posecli

            found["version"] = posecli.__version__
        except ImportError:
            return found
        with suppress(OSError):
            found["sees"] = Path(seen).read_text() == mark
        return found

    return probe


def seen_file(out: Path) -> Path:
    """The file by which nodes show that they see the output folder."""
    return out / ".posecli" / SEEN
