"""From the host to a device, without waiting for it."""

import numpy as np
import torch
from torch import Tensor


def uploaded(
    values: Tensor | np.ndarray, device: torch.device, *, dtype: torch.dtype | None = None
) -> Tensor:
    """An array of the host on a device.

    A copy of ordinary memory makes the host wait until the device has done all that was asked of it before; one of
    pinned memory takes its turn like any operation.

    Args:
        values: On the host, or on the device already.
        device: Where to.
        dtype: Of the result; that of the values by default.
    """
    tensor = torch.as_tensor(values, dtype=dtype)
    if device.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
