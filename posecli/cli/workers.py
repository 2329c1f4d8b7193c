"""The workers of a command: processes of this machine (--workers), or of a Ray cluster (--cluster)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from posecli.cli.environment import Environment
from posecli.errors import UsageError

if TYPE_CHECKING:
    from posecli.media.inputs import Input
    from posecli.pipeline.models import ModelOptions
    from posecli.pipeline.workers import Workers

Maker: TypeAlias = "Callable[[ModelOptions], Workers]"


@contextmanager
def chosen_workers(found: "Sequence[Input]", options: dict[str, Any], env: Environment) -> "Iterator[Maker | None]":
    """A function that gives the workers of the options; None where this process does the work.

    In this block the cluster is connected. Raises UsageError where options contradict each other, MachineError where
    the cluster cannot be reached.
    """
    if options["cluster"] is not None:
        with _cluster(found, options) as maker:
            yield maker
        return
    count = _count(found, options, env)

    def processes(models: "ModelOptions") -> "Workers":
        from posecli.pipeline.local import Processes
        from posecli.pipeline.workers import Workers

        return Workers(models, partial(Processes, count=count), local=True, count=count)

    yield None if count == 1 else processes


def _count(found: "Sequence[Input]", options: dict[str, Any], env: Environment) -> int:
    """The number of processes. Live sources and a window need this one."""
    asked: int | str = options["workers"]
    if asked == 1:
        return 1
    if options["show"] and asked != "auto":
        raise UsageError(f"--show shows the frames of one process: leave --workers {asked} out")
    if any(item.live for item in found):
        env.say("--workers: a live source is read by one process")
        return 1
    if options["show"]:
        return 1
    # A long video alone can keep all workers busy.
    photos_only = all(item.kind == "photo" for item in found)
    return count_processes(options, len(found) if photos_only else None)


def count_processes(options: dict[str, Any], inputs: int | None) -> int:
    """The number of processes of --workers. inputs: None where they can be split."""
    from posecli.processes import count_workers
    from posecli.runtime.device import has_nvidia_driver

    if options["workers"] == "auto" and options["device"] != "cpu" and has_nvidia_driver():
        return 1  # processes would wait for each other on the GPU, and each needs its memory
    return count_workers(options["workers"], inputs)


@contextmanager
def _cluster(found: "Sequence[Input]", options: dict[str, Any]) -> "Iterator[Maker]":
    from posecli.pipeline.cluster import Cluster
    from posecli.pipeline.cluster_connection import ClusterOptions, connected

    address: str = options["cluster"]
    if options["show"]:
        raise UsageError("--show shows the frames of one process: leave --cluster out")
    live = next((item for item in found if item.live), None)
    if live is not None:
        raise UsageError(f"--cluster: {live.shown} is a live source, which this machine reads: leave --cluster out")
    if isinstance(options["out"], str) or any(item.remote is not None for item in found):
        raise UsageError(
            "--cluster reads and writes files that all nodes see, not addresses: use paths, or --workers here"
        )
    source = click.get_current_context().get_parameter_source("workers")
    given = source is not click.core.ParameterSource.DEFAULT and options["workers"] != "auto"
    most = int(options["workers"]) if given else None
    cluster = ClusterOptions(address, options["worker_cpus"], options["worker_gpus"], most)
    paths = [options["out"], *(item.path for item in found if item.address is None)]
    relative = not all(path.is_absolute() for path in paths)

    def actors(models: "ModelOptions") -> "Workers":
        from posecli.pipeline.shipped import pack
        from posecli.pipeline.workers import Workers

        # With the runtimes that this process has chosen; the files are read once.
        return Workers(models, lambda common: Cluster(common, pack(common.models), cluster, relative))

    with connected(cluster):
        yield actors
