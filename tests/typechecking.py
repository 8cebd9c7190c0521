"""The type checker of the tests: beartype with jaxtyping's shapes on every function and dataclass of the package.

What jaxtyping's own decorator does took half of the time of the tests: it prepares each function when it is defined and
checks its arguments twice whenever it is called. Here a function is prepared when it is called first, and tensors are
not checked again where a call with the same types and shapes passed.
"""

import functools
import inspect
import types
import typing
from typing import Any

import jaxtyping
import numpy as np
import torch
from beartype import BeartypeConf, beartype
from beartype.door import die_if_unbearable, is_bearable
from beartype.roar import BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception

_CONF = BeartypeConf(is_pep484_tower=True)  # an int is accepted where a float is annotated
# `Self` outside of its class, protocols that cannot be checked at run time
_UNCHECKABLE = (BeartypeDecorHintPep673Exception, BeartypeDecorHintPep3119Exception)
_SHAPED = type(jaxtyping.Float[torch.Tensor, " n"])
_context = type(jaxtyping.jaxtyped("context"))  # within it, a letter of shapes means one number


def install(package: str) -> None:
    """Check every function and every dataclass of a package, if it is imported from now on."""
    jaxtyping.jaxtyped = lambda **_: checked  # the hook writes this name before each definition
    jaxtyping.install_import_hook(package, None)


def checked(defined):
    """A function whose arguments and result are checked, a dataclass whose fields are when it is made."""
    if not inspect.isclass(defined):
        return _prepared_later(defined)
    if "__dataclass_fields__" in vars(defined):
        defined.__init__ = _prepared_later(defined.__init__)
    return defined


def _prepared_later(function):
    ready = None

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        __tracebackhide__ = True
        nonlocal ready
        if ready is None:
            ready = _prepared(function)
        return ready(*args, **kwargs)

    return wrapper


def _prepared(function):
    hints = {name: _without_quotes(hint, function) for name, hint in function.__annotations__.items()}
    parameters = inspect.signature(function).parameters
    names = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = all(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values())
    has_shapes = any(map(_has_shape, hints.values()))
    if by_name and (has_shapes or function.__closure__) and all(map(_is_checkable, hints.values())):
        return _remembering(
            function, hints, names
        )  # functions within others would be compiled whenever they are made
    return _within_context(_compiled(function, hints)) if has_shapes else _compiled(function, hints)


def _without_quotes(hint, function):
    """A type that a string may name; anything if it is imported for type checkers alone."""
    owner = types.SimpleNamespace(__annotations__={"it": hint})
    try:
        return typing.get_type_hints(owner, function.__globals__, include_extras=True)["it"]
    except NameError:
        return Any


def _has_shape(hint) -> bool:
    return isinstance(hint, _SHAPED) or any(map(_has_shape, typing.get_args(hint)))


def _is_told_by_kind(hint) -> bool:
    """Whether all values of one kind are of this type, or none is."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) or (origin is tuple and ... not in parts):
        return all(map(_is_told_by_kind, parts))
    is_class = origin is None and isinstance(hint, type) and not getattr(hint, "_is_protocol", False)
    return hint is Any or is_class


_ARRAYS: dict[type, bool] = {}


def _kind(value):
    kind = type(value)
    if kind is tuple:
        return tuple(map(_kind, value))
    if kind not in _ARRAYS:
        _ARRAYS[kind] = issubclass(kind, torch.Tensor | np.ndarray)
    return (kind, value.dtype, value.shape) if _ARRAYS[kind] else kind


class _Checks:
    """Types of the arguments and of the result of one function."""

    def __init__(self, function, hints):
        self.name, self.hints = function.__qualname__, hints
        self.told = {name for name, hint in hints.items() if _is_told_by_kind(hint)}
        self.others = hints.keys() - self.told - {"return"}
        self.remembers = not any(_has_shape(hints[name]) for name in hints.keys() - self.told)
        self.passed: set[tuple[object, ...]] = set()

    def one(self, name, value):
        hint = self.hints[name]
        if not is_bearable(value, hint, conf=_CONF):
            die_if_unbearable(value, hint, conf=_CONF, exception_prefix=f"{self.name}: {name} ")
            raise TypeError(f"{self.name}: {name} is not of type {hint}")  # another item of a list was drawn

    def all(self, values, kinds):
        with _context():  # a letter means one number in the arguments and in the result, which comes last
            for name, value in values.items():
                if name in self.hints:
                    self.one(name, value)
        if self.remembers:
            self.passed.add(kinds)


def _remembering(function, hints, names):
    checks = _Checks(function, hints)
    passed, returns = checks.passed, "return" in hints

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        __tracebackhide__ = True
        kinds = tuple([_kind(value) for value in args])
        if kwargs:
            kinds += tuple([(name, _kind(value)) for name, value in kwargs.items()])
        is_known = kinds in passed
        given = {} if is_known and not checks.others else dict(zip(names, args, strict=False)) | kwargs
        if is_known:
            for name in checks.others & given.keys():
                checks.one(name, given[name])
        else:
            checks.all(given, kinds)
        result = function(*args, **kwargs)
        if returns:
            kinds = (kinds, _kind(result))
            if kinds not in passed:
                checks.all(dict(zip(names, args, strict=False)) | kwargs | {"return": result}, kinds)
            elif "return" not in checks.told:
                checks.one("return", result)
        return result

    return wrapper


def _within_context(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        __tracebackhide__ = True
        with _context():
            return function(*args, **kwargs)

    return wrapper


def _compiled(function, hints):
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__, copy.__qualname__ = function.__kwdefaults__, function.__qualname__
    copy.__module__, copy.__annotations__ = function.__module__, hints
    try:
        return beartype(copy, conf=_CONF)
    except _UNCHECKABLE:
        copy.__annotations__ = {name: hint if _is_checkable(hint) else Any for name, hint in hints.items()}
        return beartype(copy, conf=_CONF)


def _is_checkable(hint) -> bool:
    try:
        is_bearable(None, hint, conf=_CONF)
    except _UNCHECKABLE:
        return False
    return True
