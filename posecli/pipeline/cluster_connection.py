"""The connection to a Ray cluster, and what is asked of it."""

import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from posecli.errors import MachineError, UsageError

_NAMESPACE = "posecli"
# Seconds to connect.
_CONNECT_TIMEOUT = 10.0


@dataclass(frozen=True)
class ClusterOptions:
    """address: "auto", ray://HOST:PORT or HOST:PORT. cpus, gpus: of a worker. most: workers, None for all that fit.

    Raises UsageError for a worker without a CPU.
    """

    address: str
    cpus: float = 1.0
    gpus: float = 0.0
    most: int | None = None

    def __post_init__(self) -> None:
        if self.cpus <= 0 or self.gpus < 0:
            raise UsageError("--worker-cpus must be above 0, --worker-gpus 0 or more")


@contextmanager
def connected(options: ClusterOptions) -> Iterator[None]:
    """Connect to the cluster. Raises MachineError where Ray is missing or the cluster cannot be reached."""
    if importlib.util.find_spec("ray") is None:
        raise MachineError("--cluster needs Ray: pip install 'posecli[ray]'")
    _reach(options.address)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would write to stderr that threads are used
    import ray

    # Ray prints what its nodes report to stdout, which is for --json; the driver tells what matters.
    with suppress(ImportError, AttributeError):
        from ray._private import worker

        if hasattr(worker, "print_to_stdstream"):
            worker.print_to_stdstream = lambda *_, **__: None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(options.address, namespace=_NAMESPACE, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise MachineError(f"--cluster {options.address}: cannot be reached ({reason})") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray sets its own
                if handler is not None:
                    signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raise MachineError where nothing listens: Ray itself would try for a minute."""
    host, _, port = address.rpartition("//")[2].partition(":")
    if not host or not port.isdigit():
        if address == "auto":
            return
        raise UsageError(f"--cluster {address}: give ray://HOST:PORT, HOST:PORT or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MachineError(f"--cluster {address}: cannot be reached ({reason})") from error
