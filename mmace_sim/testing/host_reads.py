"""Counts how often the host waits for a device: what would stall a GPU, seen on a CPU.

A GPU works through what it is given while Python goes on; it is idle whenever Python must know a number first, or hands
it an array of the host's. The same code asks the same questions on a CPU, where they can be counted; copies exist only
between two devices, of which one may be pretended (`mmace_sim.testing.PretendedGpu`).
"""

import linecache
import sys
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmace_sim.testing.pretended import is_pinned

READING: frozenset[str] = frozenset(
    {
        "_local_scalar_dense", "is_nonzero", "equal", "allclose", "nonzero", "argwhere", "masked_select", "bincount",
        "histc", "_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive",
        "linalg_matrix_exp", "matrix_exp", "_linalg_eigh", "linalg_eigh", "_linalg_eigvals", "_linalg_svd",
        "linalg_svd", "linalg_lstsq", "_linalg_check_errors", "linalg_inv", "linalg_pinv", "linalg_cholesky",
    }
)  # fmt: skip
"""Operations that tell the host something: a number, a shape, whether a factorisation worked."""

_METHODS = (Tensor.tolist, Tensor.cpu)
"""Of these nothing is seen among the operations on a CPU."""

_COPYING = ("_to_copy", "copy_")
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
_NOT_THE_CALLER = ("testing/host_reads.py", "testing/pretended.py")


class HostReads(TorchFunctionMode):
    """Counts, while it is entered, how often tensors are read by the host, or copied between it and a device.

    Counted are `item`, `bool`, `tolist`, `cpu`, comparisons of whole tensors, and operations whose result has
    a shape that depends on numbers (`nonzero`, masks as an index, `repeat_interleave`) or that check their result
    (`READING`). Copies of ordinary memory to a device wait for it as reads do, and count one each: of tensors that were
    made on the host, and of its lists and arrays, as numbers or as an index. What is copied from pinned memory, and
    not waited for, is not counted (`mmace_sim.base.devices.uploaded`). They are seen where there is a device: enter
    this after a `PretendedGpu`.

    Attributes:
        where: How often each line of ours did it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.where: Counter[str] = Counter()
        self._inner = _Operations(self)
        self._busy = False

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.where.values())

    def __enter__(self) -> "HostReads":
        super().__enter__()
        self._inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)
        super().__exit__(*error)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count methods that no operation of torch stands behind on a CPU."""
        kwargs = kwargs or {}
        if func not in _METHODS or self._busy:
            return func(*args, **kwargs)
        self.note(getattr(func, "__name__", "to"))
        self._busy = True  # what a method is made of counts once
        try:
            return func(*args, **kwargs)
        finally:
            self._busy = False

    def note(self, name: str) -> None:
        """Count one.

        Args:
            name: What was called.
        """
        if self._busy:
            return
        frame = caller = sys._getframe(2)
        while not _is_ours(frame.f_code.co_filename):
            if frame.f_back is None:  # called from elsewhere
                frame = caller
                break
            frame = frame.f_back
        file = frame.f_code.co_filename
        line = linecache.getline(file, frame.f_lineno).strip()
        self.where[f"{name} at {file.rsplit('mmace_sim/', 1)[-1]}:{frame.f_lineno} {line}"] += 1


class _Operations(TorchDispatchMode):
    """Sees every operation, those of libraries and derivatives too."""

    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Collection[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in _INDEXING and _by_mask(name, args)
        unsized = name == "repeat_interleave" and not _sized(args, kwargs or {})
        if name in READING or by_mask or unsized or _crosses(name, args, kwargs or {}):
            self.reads.note(name)
        return func(*args, **(kwargs or {}))


def _is_ours(file: str) -> bool:
    file = file.replace("\\", "/")
    return "mmace_sim/" in file and not file.endswith(_NOT_THE_CALLER)


def _crosses(name: str, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether an operation copies from one device to another, and something waits for it."""
    if name in _INDEXING:
        return any(i is not None and i.device != args[0].device for i in args[1])
    if name not in _COPYING:
        return False
    source, target = (args[0], kwargs.get("device")) if name == "_to_copy" else (args[1], args[0].device)
    if target is None or torch.device(target).type == source.device.type:
        return False
    return not (kwargs.get("non_blocking", False) and is_pinned(source))


def _by_mask(name: str, args: tuple) -> bool:
    masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
    one_value = name != "index" and len(masks) == len(args[1]) == 1 and args[2].numel() == 1
    return bool(masks) and not one_value  # one value for all is filled in without counting them


def _sized(args: tuple, kwargs: dict[str, Any]) -> bool:
    return kwargs.get("output_size") is not None or (len(args) > 1 and isinstance(args[1], int))
