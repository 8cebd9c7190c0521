"""Modules without memory: what shapes their weights have, before any of them is allocated."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SCALING: frozenset[Callable] = frozenset({Tensor.div, Tensor.__truediv__, Tensor.mul, Tensor.__mul__})


class ShapesOnly(TorchFunctionMode):
    """Within this context random weights have shapes but no values, and so do symmetric couplings.

    It is a thousandth of `torch.device("meta")`, under which the first `arange` imports the compiler of torch.
    """

    active: int = 0

    def __enter__(self) -> "ShapesOnly":
        """Begin."""
        ShapesOnly.active += 1
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        """End."""
        ShapesOnly.active -= 1
        super().__exit__(*exception)

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Called by torch in place of every function."""
        if func is torch.randn:
            return torch.empty(*args, **(kwargs or {}), device="meta")
        if func in _SCALING and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))
