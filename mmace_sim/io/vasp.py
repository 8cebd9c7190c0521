"""VASP: ``OUTCAR`` and ``vasprun.xml``, with the site moments of ``OUTCAR`` and the constraint of ``OSZICAR``.

The energy is the free energy TOTEN, whose derivatives the forces are. Moments are those of the spheres (LORBIT = 11).
Where an ``OSZICAR`` with a constraint on the moments lies in the same folder, moments are MW_int, magnetic forces are
made from lambda*MW_perp, and the penalty energy E_p is subtracted from the energy. Moments and fields are turned from
the frame of SAXIS to Cartesian axes.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import DataError, NotAStructureError, StructureError
from mmace_sim.io.base import Format, Item, results_as_labels
from mmace_sim.io.opening import OPENERS, bare_name, open_text, read_text
from mmace_sim.io.outcar import Outcar, Step, direction_of
from mmace_sim.io.poscar import read_poscar
from mmace_sim.io.pymatgen_json import spin_axes
from mmace_sim.io.rows import set_results

_NAME = re.compile(r"OUTCAR|vasprun.*\.xml", re.IGNORECASE)

_NUMBER = re.compile(r"[-+]?\d*\.\d+(?:[EeDd][-+]?\d+)?")

_END_OF_STEP = re.compile(r"\s*\d+ +(T=.*)?F=")
"""Line of OSZICAR that ends an ionic step; dynamics put temperature and energies before F."""

_ENDINGS = ("", *OPENERS)

_END = 1000
"""Characters among which a complete vasprun.xml has its last tag."""

_NOTHING_HELD = 0.1
"""Moment (μB) of the spheres from which MW_int of 0.000 everywhere means that there were no spheres."""

_FIT = 0.02
"""How well E_p = Σ |field|² / λ must hold (relative) to tell a quadratic penalty where its kind is not known."""


@dataclass
class Constraint:
    """What OSZICAR says of the constraint at the end of an ionic step.

    Attributes:
        moments: MW_int of each atom, in μB, in the frame of SAXIS.
        fields: lambda*MW_perp by the number of the atom from 1, in eV/μB; atoms without a target are not listed.
        energy: Penalty energy E_p, in eV.
        weight: λ, in eV/μB² (for I_CONSTRAINED_M = 4 in eV/μB).
    """

    moments: list[list[float]] = field(default_factory=list)
    fields: dict[int, list[float]] = field(default_factory=dict)
    energy: float = 0.0
    weight: float = 0.0


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    is_xml = "xml" in bare_name(path).lower()
    with open_text(path) as file:
        if ("<modeling" if is_xml else "vasp.") not in file.read(10_000):
            raise NotAStructureError("cannot be read: it is no output of VASP.")
    beside = _beside(path, "OUTCAR") if is_xml else path
    outcar = None if beside is None else Outcar(beside)
    steps = _steps_of_xml(path) if is_xml or outcar is None else _steps(outcar, path)
    if not steps:
        raise NotAStructureError("holds no complete ionic step; the run ended before.")
    if is_xml and outcar is not None and len(outcar.steps) < len(steps):
        raise DataError(
            f"has {len(steps)} complete ionic steps, but {beside} has {len(outcar.steps)}; not of the same run"
        )
    tags = _tags(path, outcar, steps[0] if is_xml else None)
    constraints = _constraints(path, len(steps))
    kind = str(tags.get("i_constrained_m", "")).split()[:1]
    factor = 1.0 if kind == ["4"] else 2.0 if kind else _factor(constraints)
    axes = _axes(tags, outcar)
    for k, item in enumerate(steps):
        if isinstance(item, StructureError):
            yield item
            continue
        magmoms = None if outcar is None else outcar.steps[k].magmoms
        results = results_as_labels(item) | {"magmoms": magmoms}
        if constraints:
            results |= _constrained(constraints[k], results["energy"], magmoms, factor)
        for name in ("magmoms", "magforces"):
            values = results.get(name)
            if values is not None and np.shape(values)[-1] == 3:
                results[name] = np.asarray(values) @ axes.T
        item.calc = None
        set_results(item, results)
        yield item


def _steps_of_xml(path: Path) -> list[Item]:
    """The complete ionic steps; a killed run leaves a file without its end."""
    text = read_text(path)
    if "</modeling>" not in text[-_END:]:
        complete, end, _ = text.rpartition("</calculation>")
        text = f"{complete}{end}</modeling>"
        if not end:
            return []
    return list(read(io.StringIO(text), index=slice(None), format="vasp-xml"))


def _steps(outcar: Outcar, path: Path) -> list[Item]:
    """The structures of an OUTCAR with what was computed, but for moments; what is fixed is in the POSCAR beside it."""
    beside = _poscar(path, outcar)
    symbols = outcar.symbols or (beside.get_chemical_symbols() if beside else [])
    if outcar.steps and not symbols:
        raise StructureError(
            f"OUTCAR does not say which element each of its {outcar.n_atoms} atoms is (VASP before 6.4 prints counts "
            "of ten types); put POSCAR of the same run beside it, or give vasprun.xml."
        )
    held = beside.constraints if beside else []
    return [_structure(step, k, symbols, held) for k, step in enumerate(outcar.steps)]


def _structure(step: Step, number: int, symbols: list[str], held: list[Any]) -> Item:
    if step.positions is None:
        return StructureError(
            f"ionic step {number + 1} has no positions in OUTCAR (NWRITE below 2); give vasprun.xml of the same run."
        )
    atoms = Atoms(symbols, positions=step.positions, cell=step.cell, pbc=True, constraint=held)
    set_results(atoms, {"energy": step.energy, "forces": step.forces, "stress": step.stress})
    return atoms


def _poscar(path: Path, outcar: Outcar) -> Atoms | None:
    """CONTCAR or POSCAR of the same run."""
    for name in ("CONTCAR", "POSCAR"):
        beside = _beside(path, name)
        if beside is not None:
            with contextlib.suppress(StructureError):  # no matter for what was computed
                atoms = read_poscar(read_text(beside), beside)
                if len(atoms) == outcar.n_atoms and outcar.symbols in ([], atoms.get_chemical_symbols()):
                    return atoms
    return None


def _tags(path: Path, outcar: Outcar | None, first: Item | None) -> dict[str, Any]:
    """SAXIS and I_CONSTRAINED_M as vasprun.xml has them, else OUTCAR of VASP 6, else the INCAR beside it."""
    found: dict[str, Any] = {}
    incar = _beside(path, "INCAR")
    if incar is not None:
        pattern = r"(?im)^[^#!\n]*?\b(SAXIS|I_CONSTRAINED_M)\s*=\s*([^#!;\n]+)"
        found = {name.lower(): value for name, value in re.findall(pattern, read_text(incar))}
    if outcar is not None:
        found |= {name.lower(): value for name, value in outcar.tags.items()}
    if isinstance(first, Atoms) and first.calc is not None:
        given = first.calc.parameters
        found |= {name: given[name] for name in ("saxis", "i_constrained_m") if given.get(name) is not None}
    return found


def _axes(tags: dict[str, Any], outcar: Outcar | None) -> np.ndarray:
    """Rotation from the frame of SAXIS to Cartesian axes."""
    if outcar is not None and outcar.axes is not None:
        return outcar.axes
    saxis = tags.get("saxis", "0 0 1")
    return spin_axes(direction_of(saxis) if isinstance(saxis, str) else np.array(saxis, dtype=float))


def _constraints(path: Path, n_steps: int) -> list[Constraint]:
    oszicar = _beside(path, "OSZICAR")
    constraints = read_constraints(oszicar) if oszicar else []
    if constraints and len(constraints) != n_steps:
        raise DataError(
            f"has {n_steps} ionic steps, but {oszicar} has {len(constraints)} with a constraint on the moments; "
            "they are not of the same run"
        )
    return constraints


def _factor(constraints: Sequence[Constraint]) -> float:
    """2 if the penalty is λ |MW_perp|², whose derivative is twice what is printed; else 1."""
    last = next((step for step in reversed(constraints) if step.fields and step.energy > 0), None)
    if last is None or not last.weight:
        return 1.0
    quadratic = sum(x**2 for values in last.fields.values() for x in values) / last.weight
    return 2.0 if abs(quadratic - last.energy) < _FIT * last.energy else 1.0


def _constrained(
    constraint: Constraint, energy: float | None, spheres: np.ndarray | None, factor: float
) -> dict[str, Any]:
    """Labels of a step with a constraint; only the energy of one without spheres (no RWIGS), which held nothing."""
    without = {"energy": None if energy is None else energy - constraint.energy}
    moments = np.array(constraint.moments)
    if not moments.any() and spheres is not None and np.abs(spheres).max() > _NOTHING_HELD:
        return without
    fields = np.zeros(moments.shape) if constraint.fields else None
    for number, values in constraint.fields.items():
        if fields is None or not 0 < number <= len(fields) or len(values) != fields.shape[1]:
            raise DataError(f"OSZICAR has {len(moments)} moments, but lambda*MW_perp of atom {number}")
        fields[number - 1] = factor * np.array(values)
    return without | {"magmoms": moments, "magforces": fields}


def read_constraints(path: Path) -> list[Constraint]:
    """Constraint at the last electronic step of each ionic step; empty if moments were not constrained.

    VASP prints lambda*MW_perp behind the line that ends the ionic step.

    Args:
        path: OSZICAR.
    """
    found: list[Constraint] = []
    now, block = Constraint(), ""
    with open_text(path) as file:
        for line in file:
            row = re.match(r"\s*(\d+)\s+[-+]?\d*\.\d", line)
            if "E_p =" in line:
                numbers = [float(text) for text in _NUMBER.findall(line.replace("D", "E"))]
                now.energy, now.weight = (*numbers, 0.0)[:2]
            elif "MW_int" in line or "lambda*MW_perp" in line:
                block = "moments" if "MW_int" in line else "fields"
                before = now.moments or not found or found[-1].fields
                fields = now.fields if before else found[-1].fields
                (now.moments if block == "moments" else fields).clear()
            elif block and row is not None:
                values = [float(text) for text in _NUMBER.findall(line)[:3]]
                if block == "moments":
                    now.moments.append(values)
                else:
                    fields[int(row[1])] = values
            elif _END_OF_STEP.match(line):
                found.append(now)
                now, block = Constraint(), ""
            else:
                block = ""
    return found if any(step.moments for step in found) else []


def _beside(path: Path, name: str) -> Path | None:
    """A file of the same run: the same name with OUTCAR or vasprun.xml replaced, compressed or not."""
    stem = re.sub(r"OUTCAR|vasprun\.xml", name, bare_name(path), flags=re.IGNORECASE)
    candidates = [path.with_name(base + ending) for base in (stem, name) for ending in _ENDINGS]
    return next((found for found in candidates if found.is_file() and found != path), None)


FORMAT = Format(
    "VASP output",
    lambda path: path.is_file() and _NAME.search(path.name) is not None,
    _read,
    without_moments="no moments of the atoms; run VASP with ISPIN = 2 (or LNONCOLLINEAR) and LORBIT = 11, and keep "
    "OUTCAR",
)
