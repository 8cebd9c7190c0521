"""What an anisotropy calculation writes: entries of the summary, energies by direction, units."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mmace_sim.engine.output import entry_head, finite_or_none, write_csv
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.properties.anisotropy.energies import CONVENTION, AnisotropyResult
from mmace_sim.properties.anisotropy.sensitivity import SENSITIVITY, SensitivityResult
from mmace_sim.properties.anisotropy.symmetry import crystal_direction
from mmace_sim.structures.magnetic_order import classify_order
from mmace_sim.units import EV_PER_A3_IN_GPA

ANISOTROPY_UNITS: dict[str, str] = {
    "convention": CONVENTION,
    "K1, K2, K3, mae": "μeV/atom",
    "K1_mev_fu, K2_mev_fu, K3_mev_fu, mae_mev_fu": "meV/f.u.",
    "K1_mj_m3, K2_mj_m3, K3_mj_m3, mae_mj_m3": "MJ/m³",
    "constants_order": "highest degree of the functions that were fitted",
    "constants": "μeV/atom, of the functions given beside them; error is the standard error of the fit",
    "fit_residual, curve_error, time_reversal_error": "μeV/atom",
    "easy_axis, hard_axis, reference_axis, frame": "Cartesian unit vectors; frame: x, y, z of θ and φ as rows",
    "tensor": "μeV/atom, symmetric traceless A of the part n.A.n, Cartesian",
    "principal_values": "μeV/atom, of A, lowest (easy) first; principal_axes as rows",
    "harmonics": "μeV/atom, real orthonormal harmonics (l, m) in the frame",
    "moment": "μB, mean length of the moments",
    "cone_angle": "degrees",
}
"""Unit of each quantity in the summary."""

ANISOTROPY_COLUMNS: tuple[str, ...] = (
    "rank", "name", "file", "index", "formula", "magnetic_order", "moment", "symmetry", "form", "K1", "K2", "K3", "mae",
    "K1_mev_fu", "mae_mev_fu", "K1_mj_m3", "mae_mj_m3", "easy", "easy_crystal", "hard_crystal", "fit_residual",
    "status", "message",
)  # fmt: skip
"""Columns of ``summary.csv``."""

SENSITIVITY_UNITS: dict[str, str] = {
    "sensitivity": f"μeV/atom: {SENSITIVITY}",
    "spread": "μeV/atom, standard deviation of E(R m) over the rotations",
    "largest": "μeV/atom, largest |E(R m) - E(m)|",
    "moment": "μB, mean length of the moments",
}
SENSITIVITY_COLUMNS: tuple[str, ...] = (
    "rank", "name", "file", "index", "formula", "group", "n_atoms", "magnetic_order", "moment", "sensitivity", "spread",
    "largest", "status", "message",
)  # fmt: skip


def micro_ev_per_atom(energy: float | None, atoms: Atoms) -> float | None:
    """An energy per cell in μeV/atom.

    Args:
        energy: In eV per cell, or None.
        atoms: The cell.
    """
    return None if energy is None else finite_or_none(1e6 * energy / len(atoms))


def milli_ev_per_formula(energy: float | None, atoms: Atoms) -> float | None:
    """An energy per cell in meV per formula unit, such as NiO of Ni16O16.

    Args:
        energy: In eV per cell, or None.
        atoms: The cell.
    """
    return None if energy is None else finite_or_none(1e3 * energy / atoms.symbols.formula.reduce()[1])


def megajoule_per_m3(energy: float | None, atoms: Atoms) -> float | None:
    """An energy per cell in MJ/m³ (1 eV/Å³ = 160217.66 MJ/m³); None for what is no crystal.

    Args:
        energy: In eV per cell, or None.
        atoms: The cell.
    """
    if energy is None or not atoms.pbc.all():
        return None
    return finite_or_none(1e3 * EV_PER_A3_IN_GPA * energy / atoms.get_volume())


def anisotropy_entry(item: LoadedStructure, result: AnisotropyResult) -> dict[str, Any]:
    """The entry of one structure in ``summary.json``.

    Args:
        item: What was read.
        result: Its anisotropy.

    Returns:
        Plain JSON values in the units of `ANISOTROPY_UNITS`.
    """
    head = entry_head(item, str(result.status), result.message)
    if result.surface is None:
        return head
    atoms, symmetry, constants = result.atoms, result.symmetry, result.constants
    magmoms = atoms.arrays["initial_magmoms"]

    def small(energy: float | None) -> float | None:
        return micro_ev_per_atom(energy, atoms)

    values, axes = np.linalg.eigh(result.surface.tensor())
    entry: dict[str, Any] = head | {
        "convention": CONVENTION,
        "magnetic_order": str(classify_order(magmoms)),
        "moment": _mean_length(magmoms),
        "symmetry": symmetry.system,
        "form": "general" if constants is None else constants.form,
        "n_directions": len(result.directions),
    }
    for name, energy in (*((name, result.k(name)) for name in ("K1", "K2", "K3")), ("mae", result.mae)):
        entry[name] = small(energy)
        entry[f"{name}_mev_fu"] = milli_ev_per_formula(energy, atoms)
        entry[f"{name}_mj_m3"] = megajoule_per_m3(energy, atoms)
    return entry | {
        "easy": None if constants is None else constants.easy,
        "cone_angle": None if constants is None else constants.cone_angle,
        "easy_axis": result.easy.tolist(),
        "easy_crystal": crystal_direction(result.easy, symmetry.lattice),
        "hard_axis": result.hard.tolist(),
        "hard_crystal": crystal_direction(result.hard, symmetry.lattice),
        "constants": _constant_rows(result),
        "constants_order": None if constants is None else constants.order,
        "fit_residual": small(result.surface.residual if constants is None else constants.residual),
        "curve_error": small(result.curve_error),
        "time_reversal_error": small(result.time_reversal_error),
        "convergence": [
            {"n_directions": n, "K1": small(k1), "K2": small(k2), "mae": small(mae)}
            for n, k1, k2, mae in result.convergence
        ],
        "principal_values": [small(value) for value in values],
        "principal_axes": axes.T.tolist(),
        "tensor": (1e6 * result.surface.tensor() / len(atoms)).tolist(),
        "harmonics": [
            {"l": ell, "m": m, "coefficient": small(value)}
            for (ell, m), value in zip(
                result.surface.degrees, result.surface.coefficients.tolist(), strict=True
            )
            if ell > 0
        ],
        "reference_axis": result.axis.tolist(),
        "frame": symmetry.frame.tolist(),
    }


def _constant_rows(result: AnisotropyResult) -> list[dict[str, Any]]:
    """Constants besides K0, which is the total energy."""
    if result.constants is None:
        return []
    found = result.constants
    return [
        {
            "name": name,
            "function": found.functions[name],
            "value": micro_ev_per_atom(value, result.atoms),
            "error": micro_ev_per_atom(found.errors[name], result.atoms),
        }
        for name, value in found.values.items()
        if name != "K0"
    ]


def _mean_length(magmoms: np.ndarray) -> float:
    """Mean length of moments that are not tiny, in μB."""
    lengths = np.linalg.norm(magmoms, axis=1)
    return float(lengths[lengths >= 0.1 * lengths.max()].mean())


def sensitivity_entry(item: LoadedStructure, result: SensitivityResult) -> dict[str, Any]:
    """The entry of one structure of a map.

    Args:
        item: What was read.
        result: Its sensitivity.

    Returns:
        Plain JSON values in the units of `SENSITIVITY_UNITS`.
    """
    head = entry_head(item, str(result.status), result.message)
    if result.changes is None:
        return head
    atoms, magmoms = result.atoms, result.atoms.arrays["initial_magmoms"]
    return head | {
        "group": str(atoms.info.get("config_type", "")) or atoms.symbols.formula.reduce()[0].format("metal"),
        "magnetic_order": str(classify_order(magmoms)),
        "moment": _mean_length(magmoms),
        "sensitivity": 1e6 * result.value,
        "spread": 1e6 * result.spread,
        "largest": micro_ev_per_atom(float(np.abs(result.changes).max()), atoms),
    }


def ranked(entries: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Entries by decreasing size of a quantity, with their rank; those without it last and without rank.

    Those of one model after those of another: their numbers are never compared.

    Args:
        entries: Entries of the summary.
        key: The quantity.
    """
    models = dict.fromkeys(entry.get("model") for entry in entries)
    rows = []
    for model in models:
        mine = [e for e in entries if e.get("model") == model and e.get(key) is not None]
        mine.sort(key=lambda entry: -abs(entry[key]))
        rows += [{"rank": k + 1} | entry for k, entry in enumerate(mine)]
    return rows + [entry for entry in entries if entry.get(key) is None]


def write_anisotropy(result: AnisotropyResult, folder: Path, *, figures: bool) -> None:
    """Write energies by direction and figures of one structure; nothing if it failed.

    Args:
        result: Anisotropy of one structure.
        folder: Folder of the structure.
        figures: Draw energies in planes and on the sphere.

    Raises:
        OutputError: If a file cannot be written.
    """
    if result.surface is None:
        return
    folder.mkdir(exist_ok=True)
    frame, base = result.symmetry.frame, float(result.energies.min())
    blocks = [("fit", result.directions, result.energies, result.surface(result.directions))]
    for curve in result.curves:
        directions = curve.directions()
        blocks.append(("plane", directions, curve.energies, result.surface(directions)))
    rows = []
    for kind, directions, energies, fitted in blocks:
        inside = directions @ frame.T
        theta = np.degrees(np.arccos(np.clip(inside[:, 2], -1, 1)))
        phi = np.degrees(np.arctan2(inside[:, 1], inside[:, 0]))
        for k, direction in enumerate(directions):
            row = dict(zip(("x", "y", "z"), direction.tolist(), strict=True))
            row |= {"theta": float(theta[k]), "phi": float(phi[k]), "used_for": kind}
            row |= {"energy": micro_ev_per_atom(float(energies[k]) - base, result.atoms)}
            row |= {"harmonics": micro_ev_per_atom(float(fitted[k]) - base, result.atoms)}
            rows.append(row | {"unit": "μeV/atom, degrees", "convention": CONVENTION})
    write_csv(folder / "directions.csv", tuple(rows[0]), rows)
    if figures:
        from mmace_sim.properties.anisotropy.plots import save_anisotropy_figures

        save_anisotropy_figures(result, folder)
