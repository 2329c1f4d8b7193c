"""What the driver of workers (workers.py) needs of them, whether they are processes of this machine or of a cluster."""

from collections.abc import Collection, Hashable, Sequence
from typing import Protocol

from posecli.pipeline.worker import Message, Order


class Handle(Protocol):
    """A worker. place: one of its pool's."""

    place: Hashable

    def send(self, order: Order) -> None:
        """Send an order; it is lost where the worker has died, which receive tells."""

    def receive(self) -> Sequence[Message]:
        """The messages that have come. Raises EOFError when the worker has ended and all were received."""

    def kill(self) -> None:
        """End it immediately."""

    def join(self, seconds: float) -> None:
        """Wait for its end, for so many seconds at most."""

    def cause(self) -> str:
        """Why it ended, in few words."""


class Pool(Protocol):
    """Starts workers."""

    def places(self, most: int) -> Sequence[Hashable]:
        """The places that should have a worker now, not more than that many.

        Raises MachineError where there is none and will be none.
        """

    def count(self) -> int:
        """The number of workers that there could be now."""

    def all_cores(self) -> tuple[int, ...] | None:
        """The cores of which each worker has a share, for a worker that is the last one at work; None for no change."""

    def start(self, place: Hashable) -> Handle:
        """Start a worker. Raises MachineError."""

    def wait(self, handles: Sequence[Handle], seconds: float) -> Collection[Handle]:
        """The workers that have messages or have ended; empty after so many seconds without any."""

    def ready(self, handle: Handle) -> None:
        """A worker has loaded its models."""

    def ended_early(self, handle: Handle, cause: str) -> None:
        """A worker ended before it had loaded its models. Raises MachineError where it is useless to go on."""

    def without(self, handle: Handle, error: BaseException) -> str | None:
        """The reason why the machine of a worker that reported this error is not used any more; None ends the run."""

    def close(self) -> None:
        """All workers have ended."""
