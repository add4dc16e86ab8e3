"""The processes that train together: one a device, started by ``torchrun``, or this one alone."""

import os

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from mm.devices import resolve_device


class Ranks:
    """This process among its peers. Tensors travel over the device's backend, small decisions over the host.

    ``connect`` is a separate step, because renderers must be forked before a device is touched.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.local = int(os.environ.get("LOCAL_RANK", "0"))
        self.device = torch.device("cpu")
        self._host: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process reports and saves."""
        return self.rank == 0

    def connect(self, device: str) -> None:
        """Picks the device ("auto", "cpu", "cuda") and joins the other processes."""
        self.device = resolve_device(device)
        if self.device.type == "cuda":
            self.device = torch.device("cuda", self.local)
            torch.cuda.set_device(self.device)
        if self.world > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
            host = dist.new_group(backend="gloo")
            assert isinstance(host, dist.ProcessGroup)
            self._host = host

    def close(self) -> None:
        """Leaves the group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def sum_(self, tensor: Tensor) -> None:
        """Sums a tensor on the device over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)

    def average_(self, tensor: Tensor) -> None:
        """Replaces a tensor on the device by its mean over all ranks, in place.

        At 15 M gradients the transfer takes under a millisecond, so nothing is gained by overlapping it.
        """
        if self.world > 1:
            dist.all_reduce(tensor)
            tensor /= self.world

    def gather(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,) numbers of every rank as (world, n), over the host: the device's queue is not waited for."""
        if self.world == 1:
            return values[None]
        rows = [torch.empty(len(values), dtype=torch.float64) for _ in range(self.world)]
        dist.all_gather(rows, torch.from_numpy(values), group=self._host)
        return torch.stack(rows).numpy()

    def barrier(self) -> None:
        """Waits for all ranks."""
        self.gather(np.zeros(1))
