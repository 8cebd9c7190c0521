"""VASP: ``OUTCAR`` and ``vasprun.xml``, with the site moments of ``OUTCAR`` and the constraint of ``OSZICAR``.

The energy is the free energy TOTEN, whose derivatives the forces are. Moments are those of the spheres (LORBIT = 11).
Where an ``OSZICAR`` with a constraint on the moments (I_CONSTRAINED_M = 1 or 4) lies in the same folder, moments are
MW_int, magnetic forces lambda*MW_perp as printed, and the penalty energy E_p is subtracted from the energy. Moments and
fields are turned from the frame of SAXIS to Cartesian axes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import DataError, NotAStructureError
from mmace_sim.io.base import Format, Item, results_as_labels
from mmace_sim.io.opening import OPENERS, bare_name, open_text
from mmace_sim.io.outcar import WithoutStars, read_moments, read_saxis
from mmace_sim.io.pymatgen_json import spin_axes
from mmace_sim.io.rows import set_results

_NAME = re.compile(r"OUTCAR|vasprun.*\.xml", re.IGNORECASE)

_NUMBER = re.compile(r"[-+]?\d*\.\d+(?:[EeDd][-+]?\d+)?")

_ENDINGS = ("", *OPENERS)


@dataclass
class Constraint:
    """What OSZICAR says of the constraint at the end of an ionic step.

    Attributes:
        moments: MW_int of each atom, in μB, in the frame of SAXIS.
        fields: lambda*MW_perp of each atom, in eV/μB.
        energy: Penalty energy E_p, in eV.
    """

    moments: list[list[float]] = field(default_factory=list)
    fields: list[list[float]] = field(default_factory=list)
    energy: float = 0.0


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    is_xml = "xml" in bare_name(path).lower()
    steps = _steps(path, is_xml=is_xml)
    outcar = _beside(path, "OUTCAR") if is_xml else path
    moments = [None] * len(steps) if outcar is None else read_moments(outcar, len(steps))
    oszicar = _beside(path, "OSZICAR")
    constraints = read_constraints(oszicar) if oszicar else []
    if constraints and len(constraints) != len(steps):
        raise DataError(
            f"has {len(steps)} ionic steps, but {oszicar} has {len(constraints)} with a constraint on the moments; "
            "they are not of the same run"
        )
    axes = spin_axes(_saxis_of(steps[0]) if is_xml else read_saxis(path))
    for k, (atoms, magmoms) in enumerate(zip(steps, moments, strict=True)):
        results = results_as_labels(atoms) | {"magmoms": magmoms}
        if constraints:
            results |= _constrained(constraints[k], results["energy"])
        for name in ("magmoms", "magforces"):
            values = results.get(name)
            if values is not None and np.shape(values)[-1] == 3:
                results[name] = np.asarray(values) @ axes.T
        atoms.calc = None
        set_results(atoms, results)
        yield atoms


def _steps(path: Path, *, is_xml: bool) -> list[Atoms]:
    """The complete ionic steps, as ASE reads them but for the moments."""
    with open_text(path) as file:
        start = file.read(10_000)
        file.seek(0)
        if ("<modeling" if is_xml else "vasp.") not in start:
            raise NotAStructureError("cannot be read: it is no output of VASP.")
        if is_xml:
            steps = read(file, index=slice(None), format="vasp-xml")
        else:
            steps = read(WithoutStars(file), index=slice(None), format="vasp-out")
    if not steps:
        raise NotAStructureError("holds no complete ionic step; the run ended before.")
    return steps


def _saxis_of(first: Atoms) -> np.ndarray:
    """SAXIS of vasprun.xml; default (0, 0, 1)."""
    given = (first.calc.parameters if first.calc else {}).get("saxis")
    return np.array([0.0, 0.0, 1.0] if given is None else given, dtype=float)


def _constrained(constraint: Constraint, energy: float | None) -> dict[str, Any]:
    return {
        "magmoms": np.array(constraint.moments),
        "magforces": np.array(constraint.fields) if constraint.fields else None,
        "energy": None if energy is None else energy - constraint.energy,
    }


def read_constraints(path: Path) -> list[Constraint]:
    """Constraint at the last electronic step of each ionic step; empty if moments were not constrained.

    Args:
        path: OSZICAR.
    """
    found: list[Constraint] = []
    now, block = Constraint(), None
    with open_text(path) as file:
        for line in file:
            if "E_p =" in line:
                now.energy = float(_NUMBER.findall(line.replace("D", "E"))[0])
            elif "MW_int" in line or "lambda*MW_perp" in line:
                block = now.moments if "MW_int" in line else now.fields
                block.clear()
            elif block is not None and re.match(r"\s*\d+\s+[-+]?\d*\.\d", line):
                block.append([float(text) for text in _NUMBER.findall(line)[:3]])
            elif re.match(r"\s*\d+ +F=", line):
                found.append(now)
                now, block = Constraint(), None
            else:
                block = None
    return found if any(step.moments for step in found) else []


def _beside(path: Path, name: str) -> Path | None:
    """A file of the same run: the same name with OUTCAR or vasprun.xml replaced, compressed or not."""
    stem = re.sub(r"\.(gz|xz|bz2)$", "", re.sub(r"OUTCAR|vasprun\.xml", name, path.name))
    candidates = [path.with_name(base + ending) for base in (stem, name) for ending in _ENDINGS]
    return next((found for found in candidates if found.is_file() and found != path), None)


FORMAT = Format(
    "VASP output",
    lambda path: path.is_file() and _NAME.search(path.name) is not None,
    _read,
    without_moments="no moments of the atoms; run VASP with ISPIN = 2 (or LNONCOLLINEAR) and LORBIT = 11, and keep "
    "OUTCAR",
)
