"""Workers on the nodes of a Ray cluster, for files on a file system that all nodes see."""

import hashlib
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posecli import __version__
from posecli.atomic import AtomicFile
from posecli.errors import MachineError, PosecliError, is_full
from posecli.pipeline.cluster_connection import ClusterOptions
from posecli.pipeline.cluster_worker import Actor, make_probe, seen_file
from posecli.pipeline.pool import Handle
from posecli.pipeline.shipped import Shipped
from posecli.pipeline.worker import Common, Message, Order
from posecli.text import printed

LOG = logging.getLogger(__name__)

# Seconds between two looks at the nodes, and in which one must answer first.
_NODES_EVERY, _PROBE_TIMEOUT = 2.0, 120.0
# Seconds for which an actor waits for a message before it answers with none.
_TAKE = 10.0
# Seconds to wait for the actors of an earlier run to end.
_FORMER_TIMEOUT = 20.0
# Workers of a node that end while they start, after which it is not used.
_MOST_EARLY_DEATHS = 3
# Bytes that are written to see whether the disk is full for this machine too.
_TRIAL = 1 << 20


@dataclass(eq=False)
class _Node:
    """A node.

    key: Ray's id. probe: its pending answer. usable: None until it has answered. left: why it is not used.
    alive: as Ray says.
    """

    key: str
    name: str
    slots: int
    probe: Any = None
    asked: float = field(default_factory=time.monotonic)
    usable: bool | None = None
    left: str = ""
    alive: bool = True


@dataclass(eq=False)
class _Remote:
    """A pool.Handle of an actor.

    pending: the messages that it was asked for. messages: those that came while its end was waited for. ended: why.
    """

    place: Hashable
    actor: Any
    node: _Node
    pending: Any
    ended: str | None = None
    messages: list[Message] = field(default_factory=list)

    def send(self, order: Order) -> None:
        """Send an order. Should a pause come after the job that was sent after it, that costs a smaller batch."""
        self.actor.put.remote(order)
        if order is None:
            self.kill()

    def receive(self) -> Sequence[Message]:
        """The messages that have come."""
        self._look(0)
        found, self.messages = self.messages, []
        if not found and self.ended is not None:
            raise EOFError
        return found

    def _look(self, seconds: float) -> None:
        """Take messages that come within so many seconds, or notice the actor's end."""
        import ray

        if self.ended is not None or not ray.wait([self.pending], timeout=seconds)[0]:
            return
        try:
            self.messages += ray.get(self.pending)
            self.pending = self.actor.take.remote(_TAKE)
        except ray.exceptions.ActorUnavailableError:
            # Its messages may be lost. It could still write: it is given up only when Ray says that it is dead.
            self.kill()
            self.pending = self.actor.take.remote(_TAKE)
        except ray.exceptions.RayError as error:
            self.ended = _cause(error)

    def kill(self) -> None:
        """End the actor's process."""
        import ray

        with suppress(ray.exceptions.RayError, ValueError):
            ray.kill(self.actor)

    def join(self, seconds: float) -> None:
        """Wait until Ray says that the actor is dead."""
        until = time.monotonic() + seconds
        while self.ended is None and (left := until - time.monotonic()) > 0:
            self._look(left)

    def cause(self) -> str:
        """Of the actor's end."""
        import ray

        alive = any(entry["NodeID"] == self.node.key and entry["Alive"] for entry in ray.nodes())
        if not alive:
            self.node.alive = False  # no worker is started there any more
        return f"on {self.node.name}: {self.ended or 'killed' if alive else 'the node was lost'}"


class Cluster:
    """A pool.Pool of actors, as many on each node as it has CPUs and GPUs for. To be used within connected."""

    def __init__(self, common: Common, shipped: Shipped, options: ClusterOptions, relative: bool) -> None:
        """relative: whether inputs or outputs have paths relative to the current folder."""
        import ray

        self._common, self._options = common, options
        self._shipped = ray.put(shipped)
        self._folder = str(Path.cwd()) if relative else None
        self._nodes: dict[str, _Node] = {}
        self._looked = -_NODES_EVERY
        self._early_deaths: Counter[_Node] = Counter()
        self._reason = ""
        out = common.unit.out.absolute()
        self._prefix = f"posecli {hashlib.blake2b(os.fsencode(out), digest_size=8).hexdigest()} "
        _end_former(self._prefix)
        self._mark = secrets.token_hex(16)
        with AtomicFile(seen_file(out)) as file:
            file.write(self._mark.encode())
        self._seen = str(seen_file(out))
        self._probe = ray.remote(num_cpus=0, max_retries=0)(make_probe())
        # Two at once: orders come while the actor waits for messages.
        self._actor = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=2)(Actor)

    def places(self, most: int) -> Sequence[Hashable]:
        """(number on its node, node): over all nodes first."""
        self._look()
        usable = {key: node for key, node in self._nodes.items() if node.alive and node.usable}
        if not usable and not any(node.alive and node.usable is None for node in self._nodes.values()):
            alive = [node for node in self._nodes.values() if node.alive]
            if alive or not self._nodes:
                gpus = f" and {self._options.gpus:g} GPUs" if self._options.gpus else ""
                reason = self._reason or f"none has {self._options.cpus:g} CPUs{gpus}"
                raise MachineError(f"--cluster: no node can be used: {reason}")
        slots = sorted((slot, key) for key, node in usable.items() for slot in range(node.slots))
        return slots[: most if self._options.most is None else min(most, self._options.most)]

    def count(self) -> int:
        """What fits on the nodes that can be used."""
        return len(self.places(1 << 30))

    def all_cores(self) -> tuple[int, ...] | None:
        """Those of a node may be in use by others."""
        return None

    def _look(self) -> None:
        """See which nodes there are, and ask new ones what they have."""
        import ray

        if time.monotonic() - self._looked >= _NODES_EVERY:
            self._looked = time.monotonic()
            found = {entry["NodeID"]: entry for entry in ray.nodes() if entry["Alive"]}
            for key, node in self._nodes.items():
                if node.alive and key not in found:
                    node.alive = False
                    LOG.warning("node %s was lost", node.name)
            for key, entry in found.items():
                if key not in self._nodes and (slots := self._slots(entry["Resources"])):
                    node = self._nodes[key] = _Node(key, _name(entry), slots)
                    node.probe = self._probe.options(scheduling_strategy=_on(key)).remote(
                        self._seen, self._mark, self._folder
                    )
        for node in self._nodes.values():
            if node.usable is None and node.alive:
                self._ask(node)

    def _slots(self, resources: dict[str, float]) -> int:
        """Workers that fit on a node. A billionth more, since fractions of a GPU are not exact."""
        options = self._options
        fitting = [int(resources.get("CPU", 0) / options.cpus + 1e-9)]
        if options.gpus:
            fitting.append(int(resources.get("GPU", 0) / options.gpus + 1e-9))
        return min(fitting)

    def _ask(self, node: _Node) -> None:
        """Take a node's answer, if it has come."""
        import ray

        if not ray.wait([node.probe], timeout=0)[0]:
            if time.monotonic() - node.asked > _PROBE_TIMEOUT:
                self._exclude(node, f"does not answer within {_PROBE_TIMEOUT:.0f} s")
            return
        try:
            answer = ray.get(node.probe)
        except ray.exceptions.RayError as error:
            self._exclude(node, _cause(error))
            return
        version, out = answer["version"], printed(self._common.unit.out)
        if version != __version__:
            has = "no posecli" if version is None else f"posecli {version}"
            self._exclude(node, f"has {has}, this machine {__version__}: install the same one there")
        elif not answer["sees"]:
            self._exclude(node, f"does not see --out {out}: choose a folder that all nodes share")
        elif not answer["folder"]:
            self._exclude(node, f"does not see {printed(self._folder or '')}: give absolute paths of shared folders")
        else:
            node.usable = True

    def _exclude(self, node: _Node, reason: str) -> None:
        node.usable = False
        self._reason = node.left = f"{node.name} {reason}"
        LOG.warning("node %s is not used: it %s", node.name, reason)

    def start(self, place: Hashable) -> Handle:
        """Create an actor on the place's node."""
        assert isinstance(place, tuple)
        slot, key = place
        node, options = self._nodes[key], self._options
        actor = self._actor.options(
            name=f"{self._prefix}{secrets.token_hex(4)}",
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            scheduling_strategy=_on(key),
        ).remote(self._common, self._shipped, (slot, node.slots), self._folder)
        return _Remote(place, actor, node, actor.take.remote(_TAKE))

    def wait(self, handles: Sequence[Handle], seconds: float) -> Collection[Handle]:
        """Wait for one of the actors."""
        import ray

        found = {handle.pending: handle for handle in handles if isinstance(handle, _Remote)}
        if not found:
            time.sleep(min(seconds, 0.1))  # no node has answered yet
            return []
        ready, _ = ray.wait([*found], num_returns=1, timeout=seconds)
        if ready:
            ready, _ = ray.wait([*found], num_returns=len(found), timeout=0)
        return [found[reference] for reference in ready]

    def ready(self, handle: Handle) -> None:
        """The node can start workers."""
        if isinstance(handle, _Remote):
            del self._early_deaths[handle.node]

    def ended_early(self, handle: Handle, cause: str) -> None:
        """Leave a node out on which none can be started."""
        if isinstance(handle, _Remote) and handle.node.alive:
            self._early_deaths[handle.node] += 1
            if self._early_deaths[handle.node] == _MOST_EARLY_DEATHS and handle.node.usable:
                self._exclude(handle.node, f"cannot start workers ({cause})")

    def without(self, handle: Handle, error: BaseException) -> str | None:
        """Leave a node out that has another disk which is full, other models, or not the inputs."""
        if not isinstance(handle, _Remote):
            return None
        if isinstance(error, FileNotFoundError) and error.filename:
            reason = f"does not see {printed(str(error.filename))}"
        elif isinstance(error, OSError) and is_full(error):
            if _is_full_here(self._common.unit.out):
                return None
            reason = "has a full disk"
        elif isinstance(error, MachineError):
            reason = f"cannot compute the same results: {str(error).partition(';')[0]}"
        elif isinstance(error, PosecliError | OSError):
            reason = f"cannot work: {error}"
        else:
            return None
        node = handle.node
        if node.usable:
            node.usable = False
            self._reason = node.left = f"{node.name} {reason}"
        return f"node {node.left} and is not used any more"

    def close(self) -> None:
        """Delete the file by which nodes were asked."""
        with suppress(OSError):
            Path(self._seen).unlink(missing_ok=True)


def _on(key: str) -> Any:
    """The scheduling of a task or actor on this node only."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(key, soft=False)


def _name(entry: dict[str, Any]) -> str:
    return str(entry.get("NodeManagerHostname") or entry.get("NodeManagerAddress") or entry["NodeID"][:8])


def _end_former(prefix: str) -> None:
    """End the actors of a run into the same folder that was killed, which may still write there."""
    import ray

    until = time.monotonic() + _FORMER_TIMEOUT
    while former := [e for e in ray.util.list_named_actors(all_namespaces=True) if e["name"].startswith(prefix)]:
        if time.monotonic() > until:
            raise MachineError("--cluster: workers of an earlier run into --out do not end: try again later")
        for entry in former:
            with suppress(ray.exceptions.RayError, ValueError):
                ray.kill(ray.get_actor(entry["name"], entry["namespace"]))
        time.sleep(0.1)


def _is_full_here(out: Path) -> bool:
    """Whether the disk of the output folder is full for this machine too."""
    trial = out / ".posecli" / f"trial-{os.getpid()}"
    try:
        trial.write_bytes(bytes(_TRIAL))
    except OSError:
        return True
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)
    return False


def _cause(error: Exception) -> str:
    """Ray's reason in few words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in reversed(lines) if "Error" in line), lines[0] if lines else type(error).__name__)
    if "killed" in text.lower() or "died" in text.lower() or "unexpected" in text.lower():
        return "its process was killed"
    return text[:200]
