"""TorchSim as every module of the package imports it: without its warnings, its GPU kernels on first use.

TorchSim binds the neighbour lists of nvalchemi-toolkit-ops while it is imported. That compiles NVIDIA Warp's builtins
(3 s of CPU time in every process, and a message of its own on a machine without a GPU), although a CPU never calls
them. Here TorchSim binds functions of the same names that import the kernels when they are first called.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_KERNELS = "nvalchemiops.torch.neighbors"


def _late(name: str) -> Callable[..., Any]:
    """The kernel of this name, imported when it is called; no other attribute of a module is invented."""
    if name.startswith("_"):
        raise AttributeError(name)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(_KERNELS), name)(*args, **kwargs)

    kernel.__name__ = name
    return kernel


def _has_kernels() -> bool:
    """Whether the kernels are installed; asked without importing them."""
    return find_spec(_KERNELS.partition(".")[0]) is not None


@contextmanager
def late_kernels() -> Iterator[None]:
    """Let what is imported within bind the kernels without loading them.

    Yields:
        Nothing; afterwards importing the kernels gives the real ones.
    """
    if _KERNELS in sys.modules or not _has_kernels():
        yield
        return
    stand_in = ModuleType(_KERNELS)
    stand_in.__getattr__ = _late  # type: ignore[method-assign] # any name that TorchSim asks for
    sys.modules[_KERNELS] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(_KERNELS) is stand_in:
            del sys.modules[_KERNELS]


with warnings.catch_warnings():
    # TorchSim 0.6 decorates two functions with torch.jit.script, of which torch warns
    warnings.filterwarnings("ignore", message=r".*torch\.jit")
    import torch  # noqa: F401 - before the stand-in: torch looks through all modules

    with late_kernels():
        import torch_sim as ts
        import torch_sim.models.interface  # noqa: F401

__all__ = ["late_kernels", "ts"]
