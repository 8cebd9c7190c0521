"""One run of ``mmace-sim elastic``: read, compute, write, show."""

import itertools
import re
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ase import Atoms
from pydantic import Field, field_validator
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.cli.config import RunConfig, split_list
from mmace_sim.cli.runs import PropertyRun, open_run, progress
from mmace_sim.cli.tables import MAX_ROWS, print_run
from mmace_sim.engine.declaration import fixed
from mmace_sim.engine.output import entry_head, mean_moments
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.io.writing import file_names, write_extxyz
from mmace_sim.properties.elastic import ElasticResult, ElasticTensorCalculation
from mmace_sim.properties.elastic.moduli import ElasticConstants
from mmace_sim.structures.magnetic_order import classify_order, magnetic_symmetry
from mmace_sim.units import EV_PER_A3_IN_GPA

SHOWN: dict[str, tuple[int, int]] = {
    "C11": (0, 0), "C12": (0, 1), "C13": (0, 2), "C33": (2, 2), "C44": (3, 3), "C66": (5, 5),
}  # fmt: skip
"""Constants with columns of their own, in the axes of the IEEE standard."""

UNITS: dict[str, str] = {
    "c_gpa": "GPa, Voigt's notation, Cartesian axes of the structure",
    "c_ieee_gpa": "GPa, Voigt's notation, axes of the IEEE standard",
    **dict.fromkeys(SHOWN, "GPa, axes of the IEEE standard"),
    "softening_by_moments_gpa": "GPa, fixed minus relaxed, axes of the IEEE standard",
    "eigenvalues_gpa": "GPa",
    "bulk, shear, young": "GPa, Hill's average",
    "bulk_voigt, bulk_reuss, shear_voigt, shear_reuss": "GPa",
    "poisson_ratio, universal_anisotropy": "1",
    "fit_error_gpa": "GPa, uncertainty: what symmetry, relaxations and the series in the strain leave",
    "magmom_by_species": "μB, mean length, unstrained",
    "volume": "Å³, unstrained",
    "stress": "GPa, unstrained, Voigt's order",
}
"""Unit of each quantity in the summary."""

COLUMNS: tuple[str, ...] = (
    "name", "file", "index", "formula", "n_atoms", "status", "magmoms", "magnetic_order", "magmom_by_species",
    "space_group", "magnetic_space_group", "volume", *SHOWN, "bulk", "shear", "young", "poisson_ratio",
    "universal_anisotropy", "stable", "bulk_voigt", "bulk_reuss", "shear_voigt", "shear_reuss", "fit_error_gpa",
    "message",
)  # fmt: skip
"""Columns of ``summary.csv``: one line for each structure and response of the moments."""


class ElasticConfig(RunConfig):
    """Everything that decides the result of ``mmace-sim elastic``."""

    output: str = "elastic"
    """Folder of the run."""
    magmoms: Literal["relaxed", "fixed", "both"] = "relaxed"
    """Moments follow the strain, stay as they are in the unstrained structure, or both one after the other."""
    strains: list[float] = Field(default=[0.005, 0.01], min_length=1)
    """Magnitudes of the strains; each is applied with both signs."""
    symmetry: bool = True
    """Let the magnetic symmetry reduce the strains."""
    symprec: float = Field(default=0.01, gt=0)
    """Tolerance of the symmetry, in Å."""
    relax: bool = True
    """Relax cell, atoms and moments before straining."""
    relax_positions: bool = True
    """Relax the atoms in the strained cells."""
    fmax: float = Field(default=0.0001, gt=0)
    """Largest force at convergence, in eV/Å."""
    stress_tol: float = Field(default=0.001, gt=0)
    """Largest stress of the relaxed structure, in GPa."""
    magforce_tol: float = Field(default=0.00001, gt=0)
    """Largest magnetic force at convergence, in eV/μB."""
    max_steps: int = Field(default=1000, ge=0)
    """Largest number of steps of each relaxation."""
    collinear: bool = False
    """Keep each moment along its initial axis."""
    figures: bool = True
    """Draw the constants of each structure."""

    @field_validator("strains", mode="before")
    @classmethod
    def _split_strains(cls, value: Any) -> Any:
        return split_list(value)


def run_elastic(config: ElasticConfig, *, force: bool, quiet: bool) -> int:
    """Compute the elastic constants of everything that a configuration names.

    Args:
        config: The merged configuration.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0, or 3 if a structure failed or did not converge.

    Raises:
        ConfigError: If there are no structures.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    with open_run("elastic", config, force=force) as run:
        results = run.compute(lambda part: _compute(part, config, quiet=quiet))
        code, rows, entries = run.conclude(
            results,
            elastic_entry,
            constant_rows,
            partial(_write, run.folder, config),
            columns=COLUMNS,
            units=UNITS,
        )
    if not quiet:
        print_run(_table(rows[:MAX_ROWS]), entries, run.folder, run.written)
    return code


def _compute(run: PropertyRun, config: ElasticConfig, *, quiet: bool) -> list[ElasticResult]:
    """Elastic tensors of the structures of one model."""
    calculation = ElasticTensorCalculation(
        run.model,
        magmoms=config.magmoms,
        relax=config.relax,
        relax_positions=config.relax_positions,
        magnitudes=config.strains,
        symmetry=config.symmetry,
        symprec=config.symprec,
        fmax=config.fmax,
        stress_tol=config.stress_tol,
        magforce_tol=config.magforce_tol,
        max_steps=config.max_steps,
        collinear=config.collinear,
        max_batch_atoms=config.max_batch_atoms,
    )
    n_structures, counter = len(run.structures), itertools.count(1)
    with progress("Straining", None, "cells", quiet=quiet) as advance:
        return calculation.run(
            [item.atoms for item in run.structures],
            on_relaxed=lambda _: advance(0, detail=f"{next(counter)} of {n_structures} structures relaxed"),
            on_finished=lambda _, total: advance(total=total),
        )


def elastic_entry(item: LoadedStructure, result: ElasticResult) -> dict[str, Any]:
    """The entry of one structure in ``summary.json``.

    Args:
        item: What was read.
        result: Its elastic constants.

    Returns:
        Plain JSON values in the units of `UNITS`.
    """
    return (
        entry_head(item, str(result.status), result.message)
        | _unstrained(result.reference)
        | {
            "n_rotations": result.n_rotations,
            "n_independent": result.n_independent,
            "strains": result.strains,
            "constants": {mode: constants_entry(c) for mode, c in result.constants.items()},
        }
        | _softening(result)
    )


def constants_entry(constants: ElasticConstants) -> dict[str, Any]:
    """Elastic constants as plain JSON.

    Args:
        constants: The constants.

    Returns:
        Tensors, moduli, stability, and the tensor as pymatgen reads it back.
    """
    ieee = constants.c_ieee_gpa
    return {
        "c_gpa": constants.c_gpa.tolist(),
        "c_ieee_gpa": ieee.tolist(),
        **{name: float(ieee[index]) for name, index in SHOWN.items()},
        **constants.moduli(),
        "eigenvalues_gpa": constants.eigenvalues_gpa.tolist(),
        "stable": constants.stable,
        "fit_error_gpa": constants.fit_error_gpa,
        "elastic_tensor": constants.tensor.as_dict(),
    }


def _softening(result: ElasticResult) -> dict[str, Any]:
    """What the moments take away when they follow, if both responses were computed."""
    if len(result.constants) < 2:
        return {}
    difference = result.constants["fixed"].c_ieee_gpa - result.constants["relaxed"].c_ieee_gpa
    return {"softening_by_moments_gpa": difference.tolist()}


def _unstrained(atoms: Atoms | None) -> dict[str, Any]:
    """What is known of the unstrained structure."""
    if atoms is None:
        return {}
    magmoms, symmetry = get_magmoms(atoms), magnetic_symmetry(atoms)
    return {
        "magnetic_order": str(classify_order(magmoms)),
        "magmom_by_species": mean_moments(atoms, magmoms),
        "space_group": symmetry and symmetry.space_group,
        "magnetic_space_group": symmetry and symmetry.bns_number,
        "volume": float(atoms.get_volume()),
        "cell": atoms.cell.array.tolist(),
        "stress": (atoms.get_stress() * EV_PER_A3_IN_GPA).tolist(),
    }


def constant_rows(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of the table: one for each response of the moments, or one that says why there is none.

    Args:
        entry: From `elastic_entry`, or of a structure that failed.

    Returns:
        One dictionary for each line.
    """
    constants = entry.get("constants") or {}
    return [entry | {"magmoms": mode} | values for mode, values in constants.items()] or [entry]


def _write(
    folder: Path, config: ElasticConfig, computed: list[tuple[LoadedStructure, ElasticResult]]
) -> list[str]:
    """Write the unstrained structures and figures; returns their names."""
    images = []
    for item, result in computed:
        if result.reference is not None:
            image = result.reference.copy()
            image.calc = result.reference.calc
            image.info |= {"name": item.name, "status": str(result.status)}
            images.append(image)
    write_extxyz(folder / "relaxed.extxyz", images)
    if not config.figures:
        return ["relaxed.extxyz"]
    from mmace_sim.properties.elastic.plots import save_young_figure

    (folder / "figures").mkdir(exist_ok=True)
    for stem, (_, result) in zip(file_names([item.name for item, _ in computed]), computed, strict=True):
        save_young_figure(result, folder / "figures" / stem)
    return ["relaxed.extxyz", "figures/"]


def _table(rows: list[dict[str, Any]]) -> Table:
    """One line for each structure and response of the moments."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    numbers = (*SHOWN, "bulk", "shear", "young")
    table.add_column("file", overflow="fold")
    table.add_column("moments", overflow="fold")
    for name in numbers:
        heading = re.sub(r"\d", lambda digit: "₀₁₂₃₄₅₆"[int(digit[0])], name)
        table.add_column(
            {"bulk": "B", "shear": "G", "young": "E"}.get(name, heading) + "\nGPa", justify="right"
        )
    for heading in ("Aᵁ", "stable", "status"):
        table.add_column(heading, justify="right" if heading == "Aᵁ" else "left", overflow="fold")
    for row in rows:
        stable = row.get("stable")
        cells = [
            row["name"],
            row.get("magmoms") or "",
            *[fixed(row.get(name), "{:.1f}") for name in numbers],
            fixed(row.get("universal_anisotropy"), "{:.3f}"),
            "–" if stable is None else "yes" if stable else "no",
            row["status"].replace("_", " "),
        ]
        table.add_row(*[Text(cell) for cell in cells], style="" if row["status"] == "converged" else "red")
    return table
