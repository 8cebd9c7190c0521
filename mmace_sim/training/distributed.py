"""Several processes that train one model together, started by ``torchrun``."""

import os

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Number of processes that train together; 1 without ``torchrun``."""
    return int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1


def rank() -> int:
    """Number of this process, from 0, among those that train together."""
    return int(os.environ["RANK"]) if distributed.is_torchelastic_launched() else 0


def is_main() -> bool:
    """Whether this process is the one that writes files and talks to the user."""
    return rank() == 0


def processes_per_machine() -> int:
    """Number of processes on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum of a tensor over all processes, known to each of them.

    Args:
        values: This process's part, on the device that trains.
    """
    return _reduced(values, distributed.ReduceOp.SUM)


def max_over_processes(value: int, device: torch.device) -> int:
    """Largest of a number over all processes, known to each of them.

    Args:
        value: This process's number.
        device: The device that trains.
    """
    return int(_reduced(torch.tensor(value, device=device), distributed.ReduceOp.MAX))


def _reduced(values: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
    if not (distributed.is_initialized() and distributed.get_world_size() > 1):
        return values
    reduced = values.clone()
    distributed.all_reduce(reduced, operation)
    return reduced
