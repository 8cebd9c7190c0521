"""What a relaxation writes: entries of the summary, and the table."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.base.text import json_text, printable
from mmace_sim.files import write_text
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.graph.cells import has_volume
from mmace_sim.io.collection import FailedStructure, LoadedStructure
from mmace_sim.structures.magnetic_order import classify_order, magnetic_symmetry

UNITS: dict[str, str] = {
    "energy": "eV",
    "energy_initial": "eV",
    "energy_per_atom": "eV/atom",
    "energy_change_per_atom": "eV/atom",
    "magmoms": "μB",
    "magmom_by_species": "μB, mean length",
    "total_magmom": "μB",
    "cell": "Å, vectors as rows",
    "volume": "Å³",
    "volume_change": "relative to the initial volume",
    "max_force": "eV/Å",
    "max_stress": "GPa",
    "max_magforce": "eV/μB",
    "moment_curvature": "eV/μB², lowest of ∂²E/∂m∂m within the constraints",
    "moment_curvature_error": "eV/μB²",
    "moment_mode": "change of each moment along the lowest curvature, of length 1 in all; of saddle points",
    "saddle_energy": "eV, at the last saddle point that was left",
}
"""Unit of each quantity in the summary."""

CSV_COLUMNS: tuple[str, ...] = (
    "name", "file", "index", "formula", "n_atoms", "model", "status", "steps", "energy", "energy_per_atom",
    "energy_change_per_atom", "magmom_by_species", "total_magmom", "magnetic_order_initial", "magnetic_order_final",
    "magnetic_space_group", "space_group", "volume", "volume_change", "max_force", "max_stress", "max_magforce",
    "moment_curvature", "message",
)  # fmt: skip

GOOD: frozenset[str] = frozenset({"converged", "saddle", "finished"})
"""Statuses that count as success."""


def summary_entry(structure: LoadedStructure, result: Any) -> dict[str, Any]:
    """The entry of one relaxed structure in ``summary.json``.

    Args:
        structure: What was read.
        result: A ``StructureResult`` of `mmace_sim.relax`.

    Returns:
        Plain JSON values in the units of `UNITS`; numbers that are not finite are None.
    """
    before, after = structure.atoms, result.atoms
    n_atoms = len(before)
    energy, energy_initial = finite_or_none(result.energy), finite_or_none(result.energy_initial)
    curvature = getattr(result, "curvature", None)
    change = None if energy is None or energy_initial is None else (energy - energy_initial) / n_atoms
    entry = entry_head(structure, str(result.status), result.message)
    entry |= {
        "energy": energy,
        "energy_per_atom": None if energy is None else energy / n_atoms,
        "energy_initial": energy_initial,
        "energy_change_per_atom": change,
        "steps": int(result.steps),
        "max_force": finite_or_none(result.max_force),
        "max_stress": finite_or_none(result.max_stress),
        "max_magforce": finite_or_none(result.max_magforce),
        "moment_curvature": finite_or_none(curvature and curvature.lowest),
        "moment_curvature_error": finite_or_none(curvature and curvature.error),
        "moment_mode": np.round(curvature.direction, 6).tolist() if result.status == "saddle" else None,
        "saddle_energy": finite_or_none(getattr(result, "saddle_energy", None)),
    }
    return entry | _magnetism(before, after) | _geometry(before, after)


def failed_entry(item: FailedStructure | LoadedStructure, message: str | None = None) -> dict[str, Any]:
    """The entry of a structure that was not relaxed.

    Args:
        item: The structure or file.
        message: What is wrong, if `item` does not say it.

    Returns:
        Plain JSON values; every quantity is None.
    """
    nothing = dict.fromkeys((*UNITS, *CSV_COLUMNS, "magnetic_space_group_uni"))
    return nothing | entry_head(item, message=message) | {"steps": 0}


def entry_head(
    item: FailedStructure | LoadedStructure, status: str = "failed", message: str | None = None
) -> dict[str, Any]:
    """What every entry of a summary begins with, whatever the command.

    Args:
        item: A structure, or what could not be read.
        status: How it ended.
        message: What is wrong, if `item` does not say it.

    Returns:
        Where the structure came from, its formula, status, message and notes.
    """
    atoms = getattr(item, "atoms", None)
    return {
        "file": item.file,
        "index": item.index,
        "name": item.name,
        "formula": None if atoms is None else formula_of(atoms),
        "n_atoms": None if atoms is None else len(atoms),
        "model": getattr(item, "model", None) or None,
        "status": status,
        "message": getattr(item, "message", "") if message is None else message,
        "notes": list(getattr(item, "notes", ())),
    }


def formula_of(atoms: Atoms) -> str | None:
    """Chemical formula.

    Args:
        atoms: Structure.

    Returns:
        Such as ``Fe2``; None if it holds what is no element.
    """
    try:
        return str(atoms.get_chemical_formula())
    except (IndexError, KeyError, ValueError):  # atomic numbers beyond the table of elements
        return None


def _magnetism(before: Atoms, after: Atoms) -> dict[str, Any]:
    """Moments and orders; all None if the relaxed moments are not finite."""
    initial, final = get_magmoms(before), np.asarray(after.arrays["initial_magmoms"], dtype=float)
    entry: dict[str, Any] = {"magnetic_order_initial": str(classify_order(initial))}
    if not (np.isfinite(final).all() and np.isfinite(after.positions).all()):
        names = ("magnetic_order_final", "magmoms", "magmom_by_species", "total_magmom")
        return entry | dict.fromkeys(
            (*names, "magnetic_space_group", "magnetic_space_group_uni", "space_group")
        )
    symmetry = magnetic_symmetry(after, final)
    return entry | {
        "magnetic_order_final": str(classify_order(final)),
        "magmoms": final.tolist(),
        "magmom_by_species": mean_moments(after, final),
        "total_magmom": final.sum(axis=0).tolist(),
        "magnetic_space_group": symmetry and symmetry.bns_number,
        "magnetic_space_group_uni": symmetry and symmetry.uni_number,
        "space_group": symmetry and symmetry.space_group,
    }


def _geometry(before: Atoms, after: Atoms) -> dict[str, Any]:
    """Cell and volume; volumes only for crystals."""
    finite = bool(np.isfinite(after.cell.array).all())
    entry: dict[str, Any] = {"cell": after.cell.array.tolist() if finite else None}
    if not (finite and has_volume(before)):
        return entry | {"volume": None, "volume_change": None}
    volume = float(after.cell.volume)
    return entry | {"volume": volume, "volume_change": volume / float(before.cell.volume) - 1.0}


def mean_moments(atoms: Atoms, magmoms: Float[np.ndarray, "n_atoms 3"]) -> dict[str, float]:
    """Mean length of the moments of each element.

    Args:
        atoms: Structure.
        magmoms: Its moments, in μB.

    Returns:
        Lengths in μB, by symbol.
    """
    lengths, symbols = np.linalg.norm(magmoms, axis=1), np.array(atoms.get_chemical_symbols())
    return {
        str(symbol): float(lengths[symbols == symbol].mean()) for symbol in dict.fromkeys(symbols.tolist())
    }


def output_atoms(structure: LoadedStructure, result: Any) -> Atoms:
    """The relaxed structure as it is stored: moments, results, magforces, name and status.

    Args:
        structure: What was read.
        result: A ``StructureResult`` of `mmace_sim.relax`.

    Returns:
        A structure of its own.
    """
    atoms = result.atoms.copy()
    atoms.calc = result.atoms.calc
    if result.magforces is not None and np.isfinite(result.magforces).all():
        atoms.arrays["magforces"] = np.array(result.magforces, dtype=float)
    atoms.info |= {"name": structure.name, "status": str(result.status)}
    return atoms


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on.

    Returns:
        Versions by name.
    """
    found = {"python": python_version()}
    for package in ("mmace-sim", "torch", "torch-sim-atomistic", "ase", "phonopy", "numpy", "spglib"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_summary(
    folder: Path,
    summary: dict[str, Any],
    columns: Sequence[str] = CSV_COLUMNS,
    rows: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Write ``summary.json`` and ``summary.csv``, each complete or not at all.

    Args:
        folder: The run folder.
        summary: Everything about the run.
        columns: Keys of the rows that are columns of the table.
        rows: Lines of the table; by default the entries of ``structures`` in the summary.

    Raises:
        OutputError: If a file cannot be written.
    """
    write_text(folder / "summary.json", json_text(summary))
    write_csv(folder / "summary.csv", columns, summary["structures"] if rows is None else rows)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a table completely or not at all.

    Args:
        path: The file.
        columns: Keys of the rows, in the order of the columns.
        rows: Plain values; a dictionary becomes ``key:value`` pairs, a list its norm, None an empty cell,
            and no text can be a formula for a spreadsheet.

    Raises:
        OutputError: If it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(
        [
            _cell(printable(str(row[key])) if key == "file" and row.get(key) else row.get(key))
            for key in columns
        ]
        for row in rows
    )
    write_text(path, text.getvalue())


def finite_or_none(value: Any) -> float | None:
    """A number as JSON can hold it.

    Args:
        value: Number or None.

    Returns:
        The number as a float; None if it is NaN, infinite or None.
    """
    return float(value) if value is not None and math.isfinite(value) else None


def _cell(value: Any) -> Any:
    """A value as one cell of a CSV table."""
    if isinstance(value, dict):
        return _safe(" ".join(f"{key}:{_short(number)}" for key, number in value.items()))
    if isinstance(value, list | tuple | np.ndarray):
        try:
            return f"{np.linalg.norm(np.asarray(value, dtype=float)):.6f}"
        except (TypeError, ValueError):
            return _safe(" ".join(str(part) for part in value))
    return _safe(value) if isinstance(value, str | Path) else value


def _safe(value: str | Path) -> str:
    """A text that no spreadsheet runs as a formula; numbers stay as they are."""
    text = "\n".join(map(printable, str(value).split("\n")))
    if not text.startswith(("=", "+", "-", "@")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else str(value)
