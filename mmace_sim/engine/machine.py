"""The machine that a run uses: its device, its threads, and the hosts imported without what they say."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmace_sim.errors import PhysicsWarning, UnsupportedOptionError

if TYPE_CHECKING:
    import torch


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Import the hosts without what they say while they are imported.

    torch, e3nn and TorchSim warn about their own deprecated calls, and NVIDIA Warp, behind TorchSim's neighbour
    lists, writes from C to stderr that there is no GPU, which `--device` reports better.

    Yields:
        Nothing; warnings but those about the physics of a model stay hidden within the context.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", PhysicsWarning)
        with _no_stderr():
            from mmace_sim.base import hosts  # noqa: F401
        yield


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Send what C code writes to stderr nowhere."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def use_threads(threads: int | None) -> None:
    """Set the number of CPU threads.

    Args:
        threads: How many; None leaves it as it is.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)


def pick_device(name: str | None, threads: int | None) -> "torch.device":
    """Choose the device and set the number of threads.

    Args:
        name: Such as ``cpu`` or ``cuda:0``; None or ``auto``: a GPU if there is one.
        threads: CPU threads, or None.

    Returns:
        The device.

    Raises:
        UnsupportedOptionError: If torch does not know the device or it is not there.
    """
    import torch

    use_threads(threads)
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds shapes and no numbers")
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UnsupportedOptionError(
            f"device {name!r} cannot be used ({reason}). Use --device cpu."
        ) from error
    return device
