"""Reading pickled torch modules without running anything that they name.

``torch.save(model)`` writes a pickle that names classes and functions of the code that made the model. Here none of
them is imported or called: every name becomes an inert :class:`PickledObject` that keeps what the pickle says about it.
Only plain containers, numbers and tensors are rebuilt, by functions of a fixed list.
"""

import codecs
import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmace_sim.errors import ModelFileError

_RECORDABLE: frozenset[str] = frozenset(
    {
        "__main__",
        "__torch__",
        "collections",
        "copyreg",
        "cuequivariance",
        "cuequivariance_torch",
        "e3nn",
        "functools",
        "mace",
        "numpy",
        "opt_einsum_fx",
        "sphericart",
        "torch",
        "typing",
    }
)
"""Packages whose names a model may mention; they are recorded, never imported."""

_STORAGES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class PickledObject:
    """What a pickle says about an object of a class or function that is not imported.

    Attributes:
        module: Module that the pickle names.
        name: Class or function that the pickle names.
        args: Arguments it was made with.
        state: What it was given afterwards.
    """

    module: ClassVar[str] = ""
    name: ClassVar[str] = ""
    args: tuple[object, ...]
    state: object

    def __new__(cls, *args: Any) -> "PickledObject":
        """Keep the arguments."""
        record = object.__new__(cls)
        record.args = args
        record.state = {}
        return record

    def __init__(self, *args: Any) -> None:
        pass

    def __call__(self, *args: Any) -> "PickledObject":
        """Record a call of a recorded object."""
        return PickledObject(self, *args)

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """Forget an item of a list that is not one of ours."""

    def extend(self, items: object) -> None:
        """Forget items of a list that is not one of ours."""

    def get(self, key: str, default: object = None) -> Any:
        """An attribute of the recorded object."""
        return self.state.get(key, default) if isinstance(self.state, dict) else default

    @property
    def children(self) -> dict[str, "PickledObject"]:
        """Sub-modules of a recorded torch module."""
        modules = self.get("_modules") or {}
        return {name: child for name, child in modules.items() if isinstance(child, PickledObject)}

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers of a recorded torch module, by the names of its state dictionary."""
        for kind in ("_parameters", "_buffers"):
            for name, value in (self.get(kind) or {}).items():
                if isinstance(value, Tensor):
                    yield prefix + name, value
        for name, child in self.children.items():
            yield from child.tensors(f"{prefix}{name}.")


def read_pickled_module(path: str | Path) -> PickledObject:
    """Read a file of ``torch.save(module, path)``.

    Args:
        path: File in torch's zip format.

    Raises:
        ModelFileError: If the file is no such file, or names something that a model has no use for.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.split("/", 1)[-1] == "data.pkl"]
            if len(pickles) != 1:
                raise ModelFileError(f"{path}: a zip file, but not one written by torch.save.")
            root = pickles[0].removesuffix("data.pkl")
            if sum(entry.file_size for entry in archive.infolist()) > 2 * Path(path).stat().st_size + 1000:
                raise ModelFileError(
                    f"{path}: says that it holds more than its size, which torch.save does not do."
                )
            _check_byte_order(path, archive, root)
            content = _Unpickler(io.BytesIO(archive.read(pickles[0])), archive, root).load()
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelFileError(
            f"{path}: not a readable torch file ({error}): incomplete, damaged, or written by torch older than 1.6 "
            "(save it again by a newer one)."
        ) from error
    except ModelFileError as error:
        raise ModelFileError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise ModelFileError(
            f"{path}: the pickle inside is damaged ({type(error).__name__}: {error})."
        ) from error
    if not isinstance(content, PickledObject):
        held = "weights without their model" if isinstance(content, dict) else type(content).__name__
        raise ModelFileError(
            f"{path}: holds {held}, expected a whole module, as torch.save(model, path) writes it (in the code that "
            "made it, load the weights into the model first)."
        )
    if content.module.partition(".")[0] == "__torch__":
        raise ModelFileError(
            f"{path}: holds a model compiled to TorchScript ({content.name}), expected what it was compiled from, as "
            "torch.save(model, path) writes it."
        )
    return content


def _check_byte_order(path: str | Path, archive: zipfile.ZipFile, root: str) -> None:
    name = root + "byteorder"
    if name in archive.namelist() and archive.read(name) != b"little":
        raise ModelFileError(f"{path}: written on a big-endian machine, which is not supported.")


class _Unpickler(pickle.Unpickler):
    """Builds records, containers and tensors, and nothing else."""

    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file, encoding="utf-8")
        self.archive = archive
        self.root = root
        self.storages: dict[str, Tensor] = {}
        self.classes: dict[tuple[str, str], type[PickledObject]] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Something harmless for every name."""
        module_name = module_name.replace("__builtin__", "builtins")
        if (module_name, global_name) in _FUNCTIONS:
            return _FUNCTIONS[module_name, global_name]
        if module_name == "builtins" and global_name in _TYPES:
            return _TYPES[global_name]
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (
            module_name in ("torch", "torch.cuda") and global_name in _STORAGES
        ):  # all become storages on the CPU
            return _STORAGES[global_name]
        if module_name == "torch" and isinstance(getattr(torch, global_name, None), torch.dtype):
            return getattr(torch, global_name)
        if module_name.split(".", 1)[0] not in _RECORDABLE:
            raise ModelFileError(
                f"refused: it names {module_name}.{global_name}, which a model has no use for. Nothing of it was run."
            )
        key = (module_name, global_name)
        if key not in self.classes:
            attributes = {"module": module_name, "name": global_name}
            self.classes[key] = type(global_name, (PickledObject,), attributes)
        return self.classes[key]

    def persistent_load(self, pid: Any) -> Tensor:
        """One storage, as a flat tensor on the CPU."""
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"unknown kind of storage {kind}")
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.root}data/{key}"))
            self.storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.storages[key]


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    if math.prod(size) > storage.numel():
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} with {storage.numel()} stored numbers")
    return torch.as_strided(storage, tuple(size), tuple(stride), int(offset)).clone()


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _object(cls: object, *_: Any) -> PickledObject:
    return cls() if isinstance(cls, type) and issubclass(cls, PickledObject) else PickledObject(cls)


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding}")
    return codecs.latin_1_encode(text)[0]


def _scalar(dtype: PickledObject, data: bytes) -> np.generic:
    kind = np.dtype(str(dtype.args[0]))
    if kind.hasobject:
        raise pickle.UnpicklingError("a scalar that is an object")
    return np.frombuffer(data, dtype=kind, count=1)[0]


def _size(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(values)


def _record_getattr(owner: object, name: str) -> PickledObject:
    return PickledObject(owner, name)


class _Rebuild:
    """A function that a pickle may call but not change."""

    __slots__ = ("_function",)
    _function: Callable

    def __init__(self, function: Callable) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"it changes {name} of a function")


_FUNCTIONS: dict[tuple[str, str], _Rebuild] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Rebuild(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Rebuild(_parameter),
    ("torch", "Size"): _Rebuild(_size),
    ("copyreg", "_reconstructor"): _Rebuild(_object),
    ("_codecs", "encode"): _Rebuild(_encode),
    ("numpy.core.multiarray", "scalar"): _Rebuild(_scalar),
    ("numpy._core.multiarray", "scalar"): _Rebuild(_scalar),
    ("builtins", "getattr"): _Rebuild(_record_getattr),
}
_TYPES: dict[str, type] = {
    t.__name__: t
    for t in (set, frozenset, slice, list, dict, tuple, int, float, str, bool, complex, bytearray, object)
}
_TYPES["type"] = PickledObject
_TYPES["bytearray"] = PickledObject  # of a number, it would take that much memory
