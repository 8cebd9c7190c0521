"""A GPU that is not there: tensors that say they are elsewhere, and refuse to meet those of the CPU.

torch's own fake tensors hold no numbers, so that a search for pairs, whose result has a shape that depends on numbers,
cannot run on them. These compute on the CPU and look like another device in everything else.
"""

import copy
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

DEVICE = torch.device("lazy")
"""What pretended tensors say; autograd runs it on the thread of the CPU, as it cannot that of a GPU."""

_aten = torch.ops.aten
_MOVES = {_aten._to_copy.default, _aten.copy_.default}
_pinned: WeakIdKeyDictionary = WeakIdKeyDictionary()
_CPU_INDICES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class WrongDeviceError(RuntimeError):
    """Tensors of two devices in one operation."""


class PretendedTensor(Tensor):
    """A tensor that lives on the CPU and says `DEVICE`.

    Attributes:
        inner: The tensor on the CPU.
    """

    inner: Tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls: type["PretendedTensor"], inner: Tensor) -> "PretendedTensor":
        """Wrap a tensor of the CPU."""
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:
        return f"PretendedTensor({self.inner!r})"

    def tolist(self) -> Any:
        """The numbers, which torch gives of no wrapped tensor by itself."""
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        """As of any tensor of another device, refused."""
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first.")

    @classmethod
    def __torch_dispatch__(
        cls, func: OpOverload, types: Collection[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Compute on the CPU."""
        return _compute(func, args, kwargs or {})


class PretendedGpu(TorchFunctionMode):
    """While it is entered, tensors made on or moved to `DEVICE` compute on the CPU, and may not meet others.

    An operation on tensors of both devices raises `WrongDeviceError`, but for scalars (no dimension), and for indices
    on the CPU, which a GPU takes too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._inner = _Operations()

    def __enter__(self) -> "PretendedGpu":
        self._inner.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._inner.__exit__(*error)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Make of numbers tensors on the CPU first, which torch does below all operations."""
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            made = func(*args, **kwargs)
            return made if device is None else made.to(device)
        if func is Tensor.new_tensor and isinstance(args[0], PretendedTensor):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(args[0].device)
        if func is Tensor.pin_memory:
            pinned = args[0].clone()
            _pinned[pinned] = True
            return pinned
        if func is Tensor.__getitem__:
            args = (args[0], _as_index(args[1]))
        return func(*args, **kwargs)


class _Operations(TorchDispatchMode):
    """Sees every operation, those on plain tensors too."""

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Collection[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return _compute(func, args, kwargs or {})


def is_pinned(tensor: Tensor) -> bool:
    """Whether a copy of a tensor to a device need not be waited for.

    Args:
        tensor: On the CPU.
    """
    return tensor in _pinned or tensor.is_pinned()


def moved_to_pretended[Module: nn.Module](module: Module) -> Module:
    """A copy of a module on the pretended device.

    Args:
        module: On the CPU.
    """
    module = copy.deepcopy(module)
    for part in module.modules():
        for name, value in [*part._parameters.items()]:
            if value is not None:
                part._parameters[name] = nn.Parameter(
                    value.detach().to(DEVICE), requires_grad=value.requires_grad
                )
        for name, value in [*part._buffers.items()]:
            if value is not None:
                part._buffers[name] = value.to(DEVICE)
    return module


def _compute(func: OpOverload, args: tuple, kwargs: dict[str, Any]) -> Any:
    asked = kwargs.get("device")
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    there = [isinstance(x, PretendedTensor) for x in tensors]
    name = func.overloadpacket.__name__
    if any(there) and func not in _MOVES:
        compared = tensors[:1] if name in _CPU_INDICES else tensors
        if any(x.ndim > 0 and not isinstance(x, PretendedTensor) for x in compared):
            places = [f"{tuple(x.shape)} on {x.device}" for x in compared]
            raise WrongDeviceError(f"{func} got tensors of two devices: {', '.join(places)}.")
    elsewhere = torch.device(asked).type == DEVICE.type if asked is not None else any(there)
    if func is _aten.copy_.default:
        elsewhere = there[0]
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    plain_args, plain_kwargs = tree_map(_inner, (args, kwargs))
    out = func(*plain_args, **plain_kwargs)
    if not elsewhere:
        return out
    known = {id(x.inner): x for x in tensors if isinstance(x, PretendedTensor)}

    def outer(x: object) -> Any:
        if not isinstance(x, Tensor):
            return x
        return known[id(x)] if id(x) in known else PretendedTensor(x)

    return tree_map(outer, out)


def _as_index(x: Any) -> Any:
    """An index whose lists and arrays are tensors on the CPU."""
    if isinstance(x, tuple):
        return tuple(map(_as_index, x))
    return torch.as_tensor(x) if isinstance(x, list | np.ndarray) else x


def _inner(x: object) -> Any:
    return x.inner if isinstance(x, PretendedTensor) else x
