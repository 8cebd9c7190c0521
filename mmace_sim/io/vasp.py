"""VASP: ``OUTCAR`` and ``vasprun.xml``, with the site moments of ``OUTCAR`` and the constraint of ``OSZICAR``.

The energy is the free energy TOTEN, whose derivatives the forces are. Moments are those of the spheres (LORBIT = 11).
Where an ``OSZICAR`` with a constraint on the moments (I_CONSTRAINED_M = 1 or 4) lies in the same folder, moments are
MW_int, magnetic forces lambda*MW_perp as printed, and the penalty energy E_p is subtracted from the energy.
"""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import iread
from ase.io.formats import open_with_compression

from mmace_sim.errors import DataError, StructureError
from mmace_sim.io.base import Format, Item, put_labels, results_as_labels
from mmace_sim.io.labels import LabelKeys

_NAME = re.compile(r"OUTCAR|vasprun.*\.xml", re.IGNORECASE)

_NUMBER = re.compile(r"[-+]?\d*\.\d+(?:[EeDd][-+]?\d+)?")

_ENDINGS = ("", ".gz", ".xz", ".bz2")


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


def _read(path: Path, keys: LabelKeys) -> Iterator[Item]:
    is_xml = "xml" in path.name.lower()
    steps = list(iread(path, index=":", format="vasp-xml" if is_xml else "vasp-out"))
    moments = _moments_of(path if not is_xml else _beside(path, "OUTCAR"), len(steps))
    labels = [results_as_labels(atoms) | {"magmoms": m} for atoms, m in zip(steps, moments, strict=True)]
    oszicar = _beside(path, "OSZICAR")
    constraints = read_constraints(oszicar) if oszicar else []
    if constraints and len(constraints) != len(steps):
        raise DataError(
            f"has {len(steps)} ionic steps, but {oszicar} has {len(constraints)} with a constraint on the moments; "
            "they are not of the same run"
        )
    axes = spin_axes(_saxis(path, steps[0] if is_xml and steps else None))
    for k, (atoms, known) in enumerate(zip(steps, labels, strict=True)):
        if constraints:
            known |= _constrained(constraints[k], known["energy"])
        yield _finish(atoms, known, axes, keys)


def _finish(atoms: Atoms, labels: dict, axes: np.ndarray, keys: LabelKeys) -> Item:
    if labels["magmoms"] is None:
        return StructureError(
            "no moments of the atoms; run VASP with ISPIN = 2 (or LNONCOLLINEAR) and LORBIT = 11, and keep OUTCAR"
        )
    for label in ("magmoms", "magforces"):
        values = labels.get(label)
        if values is not None and np.shape(values)[-1] == 3:
            labels[label] = np.asarray(values) @ axes.T
    try:
        return put_labels(atoms, keys, labels)
    except StructureError as error:
        return error


def _constrained(constraint: Constraint, energy: float | None) -> dict:
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
    with open_with_compression(str(path), "r") as file:
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


def spin_axes(saxis: np.ndarray) -> np.ndarray:
    """Rotation from VASP's frame of the moments to Cartesian axes: R_z(α) R_y(β), with the angles of SAXIS.

    Args:
        saxis: VASP's SAXIS; (0, 0, 1) gives the identity.
    """
    x, y, z = saxis
    alpha, beta = np.arctan2(y, x), np.arctan2(np.hypot(x, y), z)
    ca, sa, cb, sb = np.cos(alpha), np.sin(alpha), np.cos(beta), np.sin(beta)
    return np.array([[ca * cb, -sa, ca * sb], [sa * cb, ca, sa * sb], [-sb, 0.0, cb]])


def _saxis(path: Path, first: Atoms | None) -> np.ndarray:
    """SAXIS of vasprun.xml, or of the INCAR that OUTCAR repeats near its beginning; default (0, 0, 1)."""
    if first is not None:
        given = (first.calc.parameters if first.calc else {}).get("saxis")
        return np.array([0.0, 0.0, 1.0] if given is None else given, dtype=float)
    with open_with_compression(str(path), "r") as file:
        for line in file:
            found = re.search(r"\bSAXIS\s*=\s*(.+)", line)
            if found:
                numbers = [float(word) for word in re.split(r"[\s,;]+", found[1].strip())[:3]]
                return np.array(numbers)
            if "Iteration" in line:
                break
    return np.array([0.0, 0.0, 1.0])


def _moments_of(outcar: Path | None, n_steps: int) -> list[np.ndarray | None]:
    """Moments of each ionic step, (n_atoms, 1) or (n_atoms, 3): the last column of its tables of magnetization."""
    steps: list[list[list[float]]] = []  # of tables
    rows: list[float] | None = None
    with open_with_compression(str(outcar), "r") if outcar else nullcontext(()) as file:
        for line in file:
            heading = re.match(r"\s*magnetization \(([xyz])\)", line)
            if heading:
                rows = []
                steps += [[]] if heading[1] == "x" else []
                steps[-1].append(rows)
            elif rows is not None and re.match(rf"\s*{len(rows) + 1}\s", line):
                rows.append(float(line.split()[-1]))
            elif rows and line.strip():
                rows = None
    if not steps:
        return [None] * n_steps
    if len(steps) not in (n_steps, n_steps + 1):  # VASP repeats the last one at the end
        raise DataError(
            f"has {n_steps} complete ionic steps, but {outcar} has {len(steps)} tables of moments"
        )
    return [np.array(tables).T for tables in steps[:n_steps]]


def _beside(path: Path, name: str) -> Path | None:
    """A file of the same run: the same name with OUTCAR or vasprun.xml replaced, compressed or not."""
    stem = re.sub(r"\.(gz|xz|bz2)$", "", re.sub(r"OUTCAR|vasprun\.xml", name, path.name))
    candidates = [path.with_name(base + ending) for base in (stem, name) for ending in _ENDINGS]
    return next((found for found in candidates if found.is_file() and found != path), None)


FORMAT = Format("VASP output", lambda path: path.is_file() and _NAME.search(path.name) is not None, _read)
