"""What a check looks at: a model of ours by name or file, or any ASE calculator as ``module:factory``."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from ase import Atoms
from ase.data import chemical_symbols

from mmace_sim.errors import MmaceError, UnsupportedElementError, UnsupportedOptionError
from mmace_sim.model.checkpoint import load_model
from mmace_sim.testing.calculator_probe import CalculatorProbe
from mmace_sim.testing.probe import ModelProbe, Probe
from mmace_sim.testing.structures import standard_structures


def load_target(name: str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> Any:
    """Load a model, or call the factory of a calculator.

    Args:
        name: Name or file of a model, or ``module:factory`` with a function without arguments that returns an ASE
            calculator. The module is looked for in the working folder too.
        device: Where to put a model; a factory decides for itself.
        dtype: Precision of a model.

    Raises:
        ModelFileError: If there is no such model.
        UnsupportedOptionError: If the factory cannot be imported or called, or returns something else.
    """
    if ":" not in name or Path(name).is_file():
        return load_model(name, device=device, dtype=dtype)
    factory = _import_factory(name)
    try:
        target = factory()
    except Exception as error:
        raise UnsupportedOptionError(
            f"{name}: the factory raised {type(error).__name__}: {error}. It is called without arguments and must "
            "return an ASE calculator."
        ) from error
    if not (_is_model(target) or _is_calculator(target)):
        raise UnsupportedOptionError(
            f"{name}: the factory returned {_kind(target)}, expected an ASE calculator (get_potential_energy, "
            "get_forces, ...) or an energy model."
        )
    return target


def _import_factory(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise UnsupportedOptionError(
            f"{name!r}: neither a file nor module:factory, such as my_package.potential:make_calculator."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        value: Any = importlib.import_module(module_name)
    except Exception as error:
        raise UnsupportedOptionError(
            f"{name}: module {module_name} cannot be imported ({type(error).__name__}: {error}). Install it, or run "
            "from the folder that holds it."
        ) from error
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise UnsupportedOptionError(
                f"{name}: module {module_name} has no {attribute!r}. Check its name."
            )
        value = getattr(value, part)
    if not callable(value):
        raise UnsupportedOptionError(
            f"{name}: is {_kind(value)}, expected a function without arguments that returns an ASE calculator."
        )
    return value


def make_probe(
    target: object,
    *,
    structures: Mapping[str, Atoms] | None = None,
    elements: Sequence[int] | None = None,
    r_max: float | None = None,
    spin_orbit: bool | None = None,
    max_moment: float | None = None,
    single_precision: bool = False,
) -> Probe:
    """Make something that can be checked from a model or a calculator.

    Args:
        target: Energy model of ours, or ASE calculator.
        structures: Structures to check it on, which tell the elements.
        elements: Atomic numbers; by default all of a model.
        r_max: Cutoff radius of a calculator, in Å.
        spin_orbit: Whether a calculator claims spin–orbit coupling.
        max_moment: Largest moment that a calculator was made for, in μB; 3 if it is not known.
        single_precision: Whether a calculator computes in float32.

    Raises:
        UnsupportedOptionError: If the target is neither, the elements are not known, it fails on the first structure,
            or a model is told what it knows by itself.
        UnsupportedElementError: If the model does not know an element.
    """
    found = sorted({int(z) for atoms in (structures or {}).values() for z in atoms.numbers})
    if _is_model(target):
        about = {"--r-max": r_max, "--spin-orbit": spin_orbit, "--max-moment": max_moment}
        for option, value in about.items():
            if value is not None:
                raise UnsupportedOptionError(
                    f"{option} is for calculators: a model says it by itself. Leave it out."
                )
        probe = ModelProbe(target)
        _check_elements([*(elements or ()), *found], probe.elements)
        probe.elements = sorted(elements or probe.elements, key=lambda z: -probe.max_moment(z))
        return probe
    if not _is_calculator(target):
        raise UnsupportedOptionError(
            f"{_kind(target)} cannot be checked, expected an energy model or an ASE calculator."
        )
    chosen = list(elements or found)
    if not chosen:
        raise UnsupportedOptionError(
            "a calculator does not say which elements it was made for: give them (--elements Fe,Ni), or structures "
            "(--structures)."
        )
    examples = list((structures or standard_structures(chosen, lambda _: max_moment or 3.0)).values())
    example = next((atoms for atoms in examples if atoms.pbc.all()), examples[0])
    try:
        return CalculatorProbe(
            target,
            example,
            elements=chosen,
            r_max=r_max,
            spin_orbit=spin_orbit,
            max_moment=3.0 if max_moment is None else max_moment,
            single_precision=single_precision,
        )
    except MmaceError:
        raise
    except Exception as error:
        raise UnsupportedOptionError(
            f"{type(target).__name__} cannot evaluate {example.get_chemical_formula()} with non-collinear moments in "
            f"initial_magmoms, shape (n_atoms, 3): {type(error).__name__}: {error}"
        ) from error


def _is_model(target: object) -> TypeGuard[torch.nn.Module]:
    return isinstance(target, torch.nn.Module) and hasattr(target, "r_max") and hasattr(target, "elements")


def _is_calculator(target: object) -> bool:
    return not isinstance(target, type) and hasattr(target, "get_potential_energy")


def _kind(value: object) -> str:
    return "a class" if isinstance(value, type) else f"an object of type {type(value).__name__}"


def _check_elements(asked: Sequence[int], known: Sequence[int]) -> None:
    unknown = [chemical_symbols[z] for z in dict.fromkeys(asked) if z not in known]
    if unknown:
        raise UnsupportedElementError(
            f"{', '.join(unknown)}: not among the elements of the model "
            f"({', '.join(chemical_symbols[z] for z in known)})."
        )
