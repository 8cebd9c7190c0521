"""Quantum ESPRESSO: output of ``pw.x``, with moments of the atoms and their constraint.

The total energy is the free energy, of which forces are derivatives. With ``constrained_magnetization = 'atomic'`` the
penalty E_p = λ Σ (m − m0)² (Ry, μB) acts on the electrons but is not part of the printed total (the terms that pw.x
prints add up to it without E_p), so nothing is taken off, and

    −∂E/∂m = 2 λ (m − m0)

at the moments that were reached. Up to version 7.3.1 the field in pw.x was smaller by the volume of the cell over the
number of points of its grid (removed afterwards): λ is multiplied by that for them.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import iread
from ase.units import Bohr, Rydberg

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.graph.atoms import widen_collinear
from mmace_sim.io.base import Format, Item
from mmace_sim.io.opening import bare_suffix, open_text, plain_file, read_text
from mmace_sim.io.rows import set_results

LAST_WEAK: tuple[int, int, int] = (7, 3, 1)
"""Last version whose field is smaller than λ says."""

_FLOAT = r"[-+]?\d*\.?\d+(?:[EeDd][-+]?\d+)?"

_COLLINEAR = re.compile(
    rf"^\s*atom:?\s+(\d+).*?charge[=:]\s*{_FLOAT}\s+magn[=:]\s*({_FLOAT})(?:\s+constr[=:]\s*({_FLOAT}))?",
    re.M,
)

_VECTOR = re.compile(rf"^\s*magnetization :\s+({_FLOAT})\s+({_FLOAT})\s+({_FLOAT})", re.M)

_TARGET = re.compile(rf"^\s*constrained moment :\s+({_FLOAT})\s+({_FLOAT})\s+({_FLOAT})", re.M)


def read_results(text: str, n_atoms: int, strength: float | None = None) -> dict[str, Any]:
    """What pw.x found at the end of a calculation.

    Args:
        text: Its output.
        n_atoms: Number of atoms.
        strength: λ of the input, in Ry/μB²; None: from the printed penalty (pw.x prints two digits of λ itself).

    Returns:
        "version", "energy" (eV), and what there is of "forces" (eV/Å), "stress" (3, 3) (eV/Å³, tension positive),
        "magmoms" and "magforces" (one number or three for each atom; μB, eV/μB) and "penalty" (eV).

    Raises:
        StructureError: If there is no energy, or a table is cut off.
    """
    energies = re.findall(rf"^!\s+total energy\s+=\s+({_FLOAT})\s+Ry", text, re.M)
    if not energies:
        raise StructureError("no total energy: the electrons did not converge, or the output is cut off")
    version = re.search(r"Program PWSCF v\.([\d.]+\d)", text)
    results: dict[str, Any] = {
        "version": version[1] if version else "",
        "energy": float(energies[-1]) * Rydberg,
        "forces": _forces(text, n_atoms),
        "stress": _stress(text),
    }
    magmoms, targets = _moments(text, n_atoms)
    results["magmoms"] = magmoms
    penalty = re.findall(rf"constraint energy \(Ry\w*\)\s+=\s+({_FLOAT})", text)
    if magmoms is not None and targets is not None and penalty:
        strength = _strength(text, float(penalty[-1]), magmoms - targets) if strength is None else strength
        fields = 2.0 * strength * _field_factor(text, results["version"]) * (magmoms - targets)
        results |= {"magforces": fields * Rydberg, "penalty": float(penalty[-1]) * Rydberg}
    return {key: value for key, value in results.items() if value is not None}


def _moments(text: str, n_atoms: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Moments of the last table and their targets, in μB."""
    vectors = _VECTOR.findall(text)
    if vectors:
        if len(vectors) < n_atoms:
            raise StructureError(f"the moments of {len(vectors)} of {n_atoms} atoms are printed")
        targets = _TARGET.findall(text)[-n_atoms:]
        found = np.array(targets, dtype=float) if len(targets) == n_atoms else None
        return np.array(vectors[-n_atoms:], dtype=float), found
    rows = _COLLINEAR.findall(text)[-n_atoms:]
    if not rows:
        return None, None
    if [int(row[0]) for row in rows] != list(range(1, n_atoms + 1)):
        raise StructureError("the table of moments is cut off")
    targets = [row[2] for row in rows]
    return np.array([float(row[1]) for row in rows]), np.array(targets, dtype=float) if all(targets) else None


def _strength(text: str, penalty: float, off: np.ndarray) -> float:
    """λ in Ry/μB², from E_p where that has enough digits, else as printed."""
    square = float((off**2).sum())
    if penalty > 1e-5 and square > 0.0:
        return penalty / square
    printed = re.findall(rf"^\s*lambda\s+=\s+({_FLOAT})\s+Ry", text, re.M)
    if not printed:
        raise StructureError("λ of the constraint is not printed")
    return float(printed[-1])


def _field_factor(text: str, version: str) -> float:
    """What the field in pw.x is multiplied by beside 2 λ."""
    numbers = tuple(int(part) for part in version.split("."))
    if not version or numbers > LAST_WEAK:
        return 1.0
    volume = re.search(rf"unit-cell volume\s+=\s+({_FLOAT})", text)
    grid = re.search(r"Dense\s+grid:.*FFT dimensions:\s*\(\s*(\d+),\s*(\d+),\s*(\d+)\)", text)
    if volume is None or grid is None:
        raise StructureError(
            "neither volume nor grid are printed, without which the field of this version of pw.x is not known"
        )
    return float(volume[1]) / float(np.prod([int(n) for n in grid.groups()]))


def _forces(text: str, n_atoms: int) -> np.ndarray | None:
    rows = re.findall(
        rf"^\s*atom\s+\d+\s+type\s+\d+\s+force =\s+({_FLOAT})\s+({_FLOAT})\s+({_FLOAT})",
        text.rpartition("Forces acting on atoms")[2].partition("contrib")[0],
        re.M,
    )[:n_atoms]
    return np.array(rows, dtype=float) * Rydberg / Bohr if len(rows) == n_atoms else None


def _stress(text: str) -> np.ndarray | None:
    table = text.rpartition("total   stress")[2].splitlines()[1:4]
    rows = [line.split()[:3] for line in table if len(line.split()) >= 6]
    return -np.array(rows, dtype=float) * Rydberg / Bohr**3 if len(rows) == 3 else None


def _matches(path: Path) -> bool:
    if not path.is_file() or bare_suffix(path) not in (".out", ".pwo"):
        return False
    with open_text(path) as file:
        return any("Program PWSCF" in line for line, _ in zip(file, range(20), strict=False))


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    text = read_text(path)
    if "convergence NOT achieved" in text:
        raise StructureError("not converged (convergence NOT achieved); converge it or leave it out")
    with plain_file(path) as plain:
        steps = list(iread(plain, index=slice(None), format="espresso-out"))
    if not steps:
        raise NotAStructureError("holds no complete calculation; the run ended before.")
    atoms = steps[-1]
    results = read_results(text, len(atoms))
    if "penalty" in results:  # spheres of held moments move with the atoms, which pw.x does not count
        results |= {"forces": None, "stress": None, "magforces": widen_collinear(results["magforces"])}
    atoms.calc = None
    names = ("energy", "forces", "stress", "magmoms", "magforces")
    set_results(atoms, {name: results.get(name) for name in names})
    yield atoms


FORMAT = Format(
    "Quantum ESPRESSO output",
    _matches,
    _read,
    without_moments="no moments of the atoms; run pw.x with nspin = 2 or noncolin, and report > 0",
)
