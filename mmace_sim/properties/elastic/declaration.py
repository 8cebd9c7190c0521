"""What ``mmace-sim elastic`` is: settings, columns, files."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mmace_sim.base.settings import MOMENTS, RELAXATION, STRAIN, Flag
from mmace_sim.engine.declaration import Column, OutputFile, Property, head
from mmace_sim.engine.settings import (
    FigureSettings,
    ForceTol,
    MagforceTol,
    MaxSteps,
    MomentSettings,
    StressTol,
    run_settings,
)

SHOWN: dict[str, tuple[int, int]] = {
    "C11": (0, 0), "C12": (0, 1), "C13": (0, 2), "C33": (2, 2), "C44": (3, 3), "C66": (5, 5),
}  # fmt: skip
"""Constants with columns of their own, in the axes of the IEEE standard."""


class ElasticSettings(MomentSettings):
    """Settings of elastic constants."""

    magmoms: Annotated[Literal["relaxed", "fixed", "both"], Flag(MOMENTS)] = "relaxed"
    """**relaxed**: moments follow the strain adiabatically. **fixed**: they stay as they are in the unstrained
    structure. **both**: compute and compare."""
    strains: Annotated[list[float], Flag(STRAIN)] = Field(default=[0.005, 0.01], min_length=1)
    """Magnitudes of the strains, separated by commas; each is applied with both signs."""
    symmetry: Annotated[bool, Flag(STRAIN)] = True
    """Let the magnetic symmetry reduce the strains; else all six are applied."""
    symprec: Annotated[float, Flag(STRAIN, unit="Å")] = Field(default=0.01, gt=0)
    """Tolerance of the symmetry."""
    relax: Annotated[bool, Flag(RELAXATION)] = True
    """Relax cell, atoms and moments before straining."""
    relax_positions: Annotated[bool, Flag(RELAXATION, names=("--relax-positions/--clamped-ions",))] = True
    """Relax the atoms in the strained cells."""
    force_tol: ForceTol = 1e-4
    """Largest force of a converged structure."""
    stress_tol: StressTol = 1e-3
    """Largest stress of the relaxed structure."""
    magforce_tol: MagforceTol = 1e-5
    """Largest magnetic force −∂E/∂m of a converged structure."""
    max_steps: MaxSteps = 1000
    """Largest number of steps of each relaxation."""

    @field_validator("strains")
    @classmethod
    def _small(cls, value: list[float]) -> list[float]:
        if not all(0 < magnitude <= 0.1 for magnitude in value):
            raise ValueError(
                "expected strains between 0 and 0.1, such as 0.005 and 0.01; both signs are applied"
            )
        return value


def _yes_or_no(row: dict[str, Any]) -> str:
    """Whether a crystal is stable, for a table."""
    stable = row.get("stable")
    return "–" if stable is None else "yes" if stable else "no"


def _constant(name: str) -> Column:
    subscript = "".join("₀₁₂₃₄₅₆"[int(digit)] for digit in name[1:])
    return Column(
        key=name, text=f"elastic constant C{subscript}", unit="GPa, axes of the IEEE standard",
        heading=f"C{subscript}\nGPa", form="{:.1f}",
    )  # fmt: skip


def _modulus(key: str, text: str, heading: str) -> Column:
    return Column(key=key, text=text, unit="GPa, Hill's average", heading=f"{heading}\nGPa", form="{:.1f}")


ELASTIC = Property(
    name="elastic",
    help="""Elastic constants of every structure in PATHS, with relaxed ions, in one batch.

    Gives C_ij in GPa, stability (Born), bulk, shear and Young's modulus (Voigt–Reuss–Hill), Poisson's ratio and the
    universal anisotropy. In the folder of the run: `summary.json` (everything, pymatgen's tensor included),
    `summary.csv`, `relaxed.extxyz` (unstrained structures), `figures/`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim elastic structures/`; `mmace-sim elastic POSCAR --magmoms both`;
    `mmace-sim elastic POSCAR --no-relax --strains 0.003,0.006`.
    """,
    settings=run_settings("elastic", ElasticSettings, FigureSettings),
    columns=(
        *head("name", "file", "index", "formula", "n_atoms", "status"),
        Column(
            key="magmoms", text="how the moments respond: relaxed or fixed", heading="moments", left=True,
            show=lambda row: row.get("magmoms") or "",
        ),
        Column(key="magnetic_order", text="magnetic order, unstrained"),
        Column(
            key="magmom_by_species", text="mean length of the moments of each element",
            unit="μB, mean length, unstrained",
        ),
        Column(key="space_group", text="space group without the moments"),
        Column(key="magnetic_space_group", text="magnetic space group, BNS number"),
        Column(key="volume", text="volume of the cell", unit="Å³, unstrained"),
        *map(_constant, SHOWN),
        _modulus("bulk", "bulk modulus", "B"),
        _modulus("shear", "shear modulus", "G"),
        _modulus("young", "Young's modulus", "E"),
        Column(key="poisson_ratio", text="Poisson's ratio", unit="1"),
        Column(
            key="universal_anisotropy", text="universal anisotropy", unit="1", heading="Aᵁ", form="{:.3f}",
        ),
        Column(
            key="stable", text="whether all eigenvalues of C are positive (Born)", heading="stable", left=True,
            show=_yes_or_no,
        ),
        Column(key="bulk_voigt", text="Voigt's bound of the bulk modulus", unit="GPa"),
        Column(key="bulk_reuss", text="Reuss's bound of the bulk modulus", unit="GPa"),
        Column(key="shear_voigt", text="Voigt's bound of the shear modulus", unit="GPa"),
        Column(key="shear_reuss", text="Reuss's bound of the shear modulus", unit="GPa"),
        Column(
            key="fit_error_gpa", text="uncertainty of the constants",
            unit="GPa, uncertainty: what symmetry, relaxations and the series in the strain leave",
        ),
        *head("message"),
    ),
    quantities=(
        Column(key="n_rotations", text="rotations that the crystal and its moments allow"),
        Column(key="n_independent", text="independent constants"),
        Column(key="c_gpa", text="C_ij", unit="GPa, Voigt's notation, Cartesian axes of the structure"),
        Column(key="c_ieee_gpa", text="C_ij", unit="GPa, Voigt's notation, axes of the IEEE standard"),
        Column(
            key="softening_by_moments_gpa", text="what moments that follow take away, of `--magmoms both`",
            unit="GPa, fixed minus relaxed, axes of the IEEE standard",
        ),
        Column(key="eigenvalues_gpa", text="eigenvalues of the tensor", unit="GPa"),
        Column(key="elastic_tensor", text="the tensor as pymatgen reads it"),
        Column(key="cell", text="cell vectors, unstrained", unit="Å, vectors as rows"),
        Column(key="stress", text="stress of the cell", unit="GPa, unstrained, Voigt's order"),
    ),
    files=(
        OutputFile("relaxed.extxyz", "the unstrained structures with moments and stress"),
        OutputFile("figures/NAME_young.png, .svg", "Young's modulus against direction"),
    ),
    python="""from ase.build import bulk

from mmace_sim.properties.elastic import ElasticTensorCalculation

(result,) = ElasticTensorCalculation().run([bulk("Fe", cubic=True)])
print(result.status, result.constants["relaxed"].c_gpa[0, 0])  # C11, GPa
""",
    computation="mmace_sim.properties.elastic.output:ElasticComputation",
)  # fmt: skip
"""Elastic constants."""
