"""ABINIT main output (``.abo``, ``.out``) of version 9 and later: the final structure of each data set.

Energy (electronic free energy), forces and stress as printed; moments are those integrated in the spheres of `ratsph`.
With ``constraint_kind`` the derivatives ``grspin`` are printed at the end: magnetic forces are −grspin.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.units import Bohr, Hartree

from mmace_sim.base.labels import LabelKeys
from mmace_sim.base.yamlfile import parse_yaml
from mmace_sim.errors import StructureError
from mmace_sim.io.base import Format, Item
from mmace_sim.io.opening import bare_name, open_text, read_text
from mmace_sim.io.rows import set_results

_SPHERES = "Integrated electronic and magnetization densities in atomic spheres"

_DATASET = re.compile(r"^== DATASET +(\d+) =", re.MULTILINE)


def _matches(path: Path) -> bool:
    if not path.is_file() or not re.search(r"\.(abo|out)[A-Z]?$", bare_name(path)):
        return False
    with open_text(path) as file:
        return any("of ABINIT" in line for line, _ in zip(file, range(5), strict=False))


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    text = read_text(path)
    results, _, echo = text.partition("== END DATASET(S)")
    starts = [(int(m[1]), m.end()) for m in _DATASET.finditer(results)]
    ends = [start for _, start in starts[1:]] + [len(results)]
    for (number, start), end in zip(starts, ends, strict=True):
        suffix = "" if len(starts) == 1 else str(number)
        try:
            yield _structure(results[start:end], echo, suffix)
        except StructureError as error:
            yield StructureError(f"data set {number}: {error}")


def _structure(text: str, echo: str, suffix: str) -> Atoms:
    if "Calculation completed" not in echo:
        raise StructureError("the calculation is not complete; let it finish or leave the file out")
    if "was not enough" in text:
        raise StructureError("not converged (nstep was not enough); converge it or leave it out")
    summary = _document(text, "ResultsGS")
    energy = _document(text, "EnergyTerms").get("total_energy", summary.get("etotal"))
    symbols = [row[3] for row in summary["xred"]]
    n_atoms = len(symbols)
    atoms = Atoms(symbols, cell=np.array(summary["lattice_vectors"], dtype=float) * Bohr, pbc=True)
    atoms.positions = _table(text, "cartesian coordinates (angstrom) at end", n_atoms)[:, 1:4]
    labels: dict[str, Any] = {"energy": float(energy) * Hartree}
    forces = np.array(summary["cartesian_forces"], dtype=float) if summary.get("cartesian_forces") else None
    if forces is not None and np.isfinite(forces).all():
        labels["forces"] = forces * Hartree / Bohr
    if summary.get("cartesian_stress_tensor"):
        stress = np.array(summary["cartesian_stress_tensor"], dtype=float)
        labels["stress"] = stress * Hartree / Bohr**3
    labels["magmoms"] = _moments(text, n_atoms)
    labels["magforces"] = _magforces(echo, suffix, n_atoms)
    set_results(atoms, labels)
    return atoms


def _moments(text: str, n_atoms: int) -> np.ndarray | None:
    """Moments in the spheres, in μB: the difference of up and down, or a vector with nspden 4."""
    if _SPHERES not in text:
        return None
    table = _table(text, _SPHERES, n_atoms)
    return table[:, 3:6] if "mag(x)" in text[text.rindex(_SPHERES) :][:500] else table[:, 5]


def _magforces(echo: str, suffix: str, n_atoms: int) -> np.ndarray | None:
    """Minus the derivative of the energy by each constrained moment, in eV/μB; None without constraint."""
    found = re.search(rf"^\s*-?\s*grspin{suffix}\s((?:\s*[-+]?\d+\.\d+E[-+]\d+)+)", echo, re.MULTILINE)
    if found is None:
        return None
    numbers = [float(word) for word in found[1].split()]
    return -np.array(numbers[: 3 * n_atoms]).reshape(n_atoms, 3) * Hartree


def _table(text: str, heading: str, n_rows: int) -> np.ndarray:
    """The rows that begin with 1, 2, 3, ... below the last occurrence of a heading."""
    if heading not in text:
        raise StructureError(f"no section {heading!r}")
    rows: list[list[float]] = []
    for line in text[text.rindex(heading) :].splitlines()[1:]:
        words = line.split()
        if words and words[0] == str(len(rows) + 1):
            rows.append([float(word) for word in words])
        if len(rows) == n_rows:
            return np.array(rows)
    raise StructureError(f"section {heading!r} has {len(rows)} rows, expected {n_rows}")


def _document(text: str, name: str) -> dict[str, Any]:
    """The last YAML document of a kind."""
    found = text.rfind(f"--- !{name}\n")
    if found < 0:
        raise StructureError(f"no summary {name!r}; outputs of ABINIT before version 9 are not read")
    body = text[found:].split("\n", 1)[1].split("\n...", 1)[0]
    return parse_yaml(body.encode(), f"summary {name!r}")


def input_words(text: str) -> list[str]:
    """Words of an input of ABINIT in lower case, without comments."""
    return re.sub(r"[#!].*", " ", text).lower().split()


def starting_moments(text: str, n_atoms: int) -> np.ndarray | None:
    """``spinat`` of an input of ABINIT, in μB.

    Args:
        text: The input, of one data set.
        n_atoms: Number of atoms.

    Returns:
        Shape (n_atoms, 3); None if there are not three numbers for each atom (ABINIT completes them by symmetry).
    """
    words = input_words(text)
    values: list[float] = []
    for word in words[words.index("spinat") + 1 :]:
        found = re.fullmatch(r"(?:(\d+)\*)?([-+]?(?:\d+\.?\d*|\.\d+)(?:[ed][-+]?\d+)?)", word)
        if found is None or len(values) > 3 * n_atoms:
            break
        values += [float(found[2].replace("d", "e"))] * min(int(found[1] or 1), 3 * n_atoms + 1)
    return np.reshape(values, (n_atoms, 3)) if len(values) == 3 * n_atoms else None


FORMAT = Format(
    "ABINIT output",
    _matches,
    _read,
    without_moments="no moments of the atoms (nspden is 1); a magnetic run has nspden 2 or 4",
)
