"""ABACUS: ``running_scf.log``, with the moments and magnetic forces of DeltaSpin (``sc_mag_switch``).

The energy is FINAL_ETOT_IS, the free energy without the term of the constraint. Moments (μB) are those of the table
"Total Magnetism (uB)", magnetic forces (eV/μB) those of "Magnetic force (eV/uB)" (earlier: Ry/uB), as printed: ABACUS
prints the multiplier λ of E + λ (M − M0), which is −∂E/∂M. In some versions λ has the other sign in one of the two
bases, and some had a wrong energy term (abacus-develop issue 7728); the file does not tell which. `mmace-sim data
check` does, from differences of energies: check every set.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.units import GPa, Rydberg

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import widen_collinear
from mmace_sim.io.base import Format, Item
from mmace_sim.io.opening import bare_name, open_text, read_text
from mmace_sim.io.rows import set_results

_FLOAT = r"[-+]?\d*\.?\d+(?:[Ee][-+]?\d+)?"

_ENERGY = re.compile(rf"(?:!FINAL_ETOT_IS|final etot is|#TOTAL ENERGY#)\s+({_FLOAT})\s+eV")

_UNCONVERGED = re.compile(r"convergence has (?:NOT|not) been achieved", re.I)

_CONVERGED = re.compile(r"charge density convergence is achieved|SCF IS CONVERGED", re.I)

_COORDINATES = re.compile(r"^\s*(DIRECT|CARTESIAN) COORDINATES", re.M)

_ATOM = re.compile(rf"^\s*(?:tau[dc]_)?([A-Z][a-z]?)\d+\s+({_FLOAT})\s+({_FLOAT})\s+({_FLOAT})")


def read_results(text: str, n_atoms: int) -> dict[str, Any]:
    """What ABACUS found at the end of a self-consistent calculation.

    Args:
        text: Its log.
        n_atoms: Number of atoms.

    Returns:
        "version", "energy" (eV), and what there is of "forces" (eV/Å), "stress" (3, 3) (eV/Å³, tension positive),
        "magmoms" and "magforces" (one number or three for each atom; μB, eV/μB).

    Raises:
        StructureError: If the electrons did not converge, or there is no energy.
    """
    energies = _ENERGY.findall(text)
    if _UNCONVERGED.search(text) or not (energies and _CONVERGED.search(text)):
        raise StructureError("not converged, or cut off; converge it or leave it out")
    version = re.search(r"ABACUS\s+v([\w.]+)", text)
    magforces, unit = _table(text, r"Magnetic force \((eV|Ry)/uB\)", n_atoms)
    stress, _ = _table(text, r"TOTAL-STRESS \((KBAR)\)", 3)
    results = {
        "version": version[1] if version else "",
        "energy": float(energies[-1]),
        "forces": _table(text, r"TOTAL-FORCE \((eV/Angstrom)\)", n_atoms)[0],
        "stress": None if stress is None else -stress * 0.1 * GPa,
        "magmoms": _table(text, r"Total Magnetism \((uB)[^)]*\)", n_atoms)[0],
        "magforces": None if magforces is None else magforces * (Rydberg if unit == "Ry" else 1.0),
    }
    return {key: value for key, value in results.items() if value is not None}


def _table(text: str, heading: str, n_rows: int) -> tuple[np.ndarray | None, str]:
    """The rows below the last heading, without their labels, and the unit in the heading."""
    found = list(re.finditer(heading, text))
    if not found:
        return None, ""
    rows: list[list[float]] = []
    for line in text[found[-1].end() :].splitlines()[1:]:
        words = re.findall(rf"(?<!\S){_FLOAT}(?!\S)", line)
        if len(words) in (1, 3):
            rows.append([float(word) for word in words])
        elif rows:
            break
        if len(rows) == n_rows:
            values = np.array(rows)
            return values[:, 0] if values.shape[1] == 1 else values, found[-1][1]
    raise StructureError(f"the table {found[-1][0]!r} has {len(rows)} rows, expected {n_rows}")


def _matches(path: Path) -> bool:
    if not path.is_file() or not re.fullmatch(r"running_scf.*\.log", bare_name(path)):
        return False
    with open_text(path) as file:
        return any("ABACUS" in line for line, _ in zip(file, range(20), strict=False))


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    text = read_text(path)
    atoms = read_structure(text)
    results = read_results(text, len(atoms))
    results.pop("version")
    if "magforces" in results:
        results["magforces"] = widen_collinear(results["magforces"])
    set_results(atoms, results)
    yield atoms


def read_structure(text: str) -> Atoms:
    """The structure that a log begins with.

    Lattice vectors are printed with six digits.

    Raises:
        StructureError: If there is none.
    """
    unit = re.search(rf"lattice constant \((?:Angstrom|A)\)\s*=\s*({_FLOAT})", text)
    heading = re.search(r"Lattice vectors: \(Cartesian coordinate: in unit of a_0\)[^\n]*\n", text)
    found = _COORDINATES.search(text)
    if unit is None or heading is None or found is None:
        raise StructureError("no lattice or no coordinates in the log")
    vectors = [line.split() for line in text[heading.end() :].splitlines()[:3]]
    cell = np.array(vectors, dtype=float) * float(unit[1])
    symbols, positions = [], []
    for line in text[found.end() :].splitlines()[1:]:
        row = _ATOM.match(line)
        if row is not None:
            symbols.append(row[1])
            positions.append([float(x) for x in row.groups()[1:]])
        elif symbols:
            break
    if not symbols:
        raise StructureError("no coordinates in the log")
    atoms = Atoms(symbols, cell=cell, pbc=True)
    if found[1] == "DIRECT":
        atoms.set_scaled_positions(positions)
    else:
        atoms.positions = np.array(positions) * float(unit[1])
    return atoms


FORMAT = Format(
    "ABACUS log",
    _matches,
    _read,
    without_moments="no moments of the atoms; run ABACUS with nspin 2 or 4 and sc_mag_switch 1, or out_mul 1",
)
