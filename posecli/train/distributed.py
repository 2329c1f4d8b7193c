"""Distributed data-parallel training: processes started by torchrun, and sums over them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from posecli.errors import MachineError


@dataclass(frozen=True)
class Distributed:
    """This process among those that train one model. rank: from 0. size: number of processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints (rank 0)."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return value

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            distributed.barrier()

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model whose gradients are averaged over all processes."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


@contextmanager
def init_distributed(device: str) -> Iterator[tuple[Distributed, str]]:
    """Join the processes of torchrun; gives them and this one's device ("cuda" gives each process its own).

    Without torchrun there is one process. The backend is nccl for GPUs, gloo for CPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Distributed(), device
        return
    if device.startswith("cuda"):
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise MachineError(f"process {local} of this machine finds {torch.cuda.device_count()} GPUs: start fewer")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    # The main process evaluates while the others wait.
    distributed.init_process_group(backend, timeout=timedelta(hours=2))
    try:
        yield Distributed(distributed.get_rank(), distributed.get_world_size()), device
    finally:
        distributed.destroy_process_group()
