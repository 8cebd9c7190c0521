"""What ``mmace-sim moments`` is: settings, columns, files."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mmace_sim.base.settings import MOMENTS, RELAXATION, Flag
from mmace_sim.engine.declaration import Column, OutputFile, Property, head
from mmace_sim.engine.settings import (
    AppliedField,
    FigureSettings,
    MagforceTol,
    MaxSteps,
    MomentSettings,
    run_settings,
)
from mmace_sim.properties.relax.declaration import by_species

SEARCH = "Search"


class MomentSearchSettings(MomentSettings):
    """Settings of a search for minima of the moments."""

    starts: Annotated[int, Flag(SEARCH)] = Field(default=32, ge=1)
    """Random starts of each structure."""
    seed: Annotated[int, Flag(SEARCH)] = Field(default=0, ge=0)
    """Seed of the random starts."""
    energy_tol: Annotated[float, Flag(SEARCH)] = Field(default=1e-4, gt=0)
    """Ends closer than this (eV/atom) with like moments are one minimum."""
    stability: Annotated[bool, Flag(SEARCH)] = True
    """Tell minima from saddle points by the curvature of the energy."""
    only: Annotated[list[str], Flag(MOMENTS, shown="all")] = Field(default_factory=list)
    """Elements, or indices of atoms from 0, whose moments may change, such as `Mn` or `0,1`; the others stay."""
    field: AppliedField = [0.0, 0.0, 0.0]  # noqa: RUF012
    """Applied field in tesla: energy −B·Σm, moments align with it."""
    solver: Annotated[Literal["lbfgs", "fire"], Flag(RELAXATION)] = "lbfgs"
    """How to go downhill."""
    magforce_tol: MagforceTol = 1e-4
    """Largest magnetic force −∂E/∂m of a converged structure."""
    max_steps: MaxSteps = 500
    """Largest number of steps."""
    symprec: float = Field(default=0.01, gt=0)
    """Tolerance of positions for symmetry, in Å; that of moments is ten times as large, in μB."""

    @field_validator("only", mode="before")
    @classmethod
    def _names_and_indices(cls, value: object) -> Any:
        value = [value] if isinstance(value, int) else value
        return [str(v) if isinstance(v, int) else v for v in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _may_change(self) -> Any:
        if self.collinear and self.fix_magnitude:
            raise ValueError("collinear and fix_magnitude together: expected moments that can still change")
        return self


def _stable(row: dict[str, Any]) -> str:
    return {True: "yes", False: "saddle", None: "–"}[row.get("is_stable")]


MOMENT_MINIMA = Property(
    name="moments",
    help="""Minimise the energy over the moments of every structure in PATHS at fixed atoms, from many random starts at once.

    Every moment is turned by a random angle about a random axis and scaled by up to 1.5. What the starts end in is put
    into groups: the different minima, how many starts found each, its magnetic space group, and whether it is one. In
    the folder of the run: `summary.json` and `summary.csv` (one line for each minimum), `starts.csv` (one line for each
    start), `minima.extxyz`, `structures/NAME-NUMBER.mcif`, `figures/`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim moments Mn3Pt.cif --starts 256`; `mmace-sim moments POSCAR --only Mn --field 0,0,20`.
    """,  # noqa: E501
    settings=run_settings("moments", MomentSearchSettings, FigureSettings),
    columns=(
        *head("name", "file", "index", "formula", "status"),
        Column(key="minimum", text="number of the minimum, from 1, the lowest", heading="minimum"),
        Column(
            key="energy", text="energy of the minimum",
            unit="eV/atom; in a field B (tesla) with −μB B·Σm, μB = 5.7883818e-5 eV/T",
            heading="E\neV/atom", form="{:.6f}",
        ),
        Column(
            key="energy_above_lowest", text="energy above the lowest minimum of the same structure",
            unit="eV/atom, above the lowest minimum of the same structure",
            heading="ΔE\nmeV/atom", scale=1000, form="{:.2f}",
        ),
        Column(key="n_starts", text="how many starts ended there", heading="starts"),
        Column(
            key="is_stable", text="whether it is a minimum, and no saddle point; empty if it was not looked at",
            heading="stable", show=_stable, left=True, late=1,
        ),
        Column(
            key="lowest_curvature", text="lowest curvature of the energy along a direction of all moments",
            unit="eV/μB², of ∂²E/∂m∂m within the constraints",
        ),
        Column(
            key="magmom_by_species", text="mean length of the moments of each element", unit="μB, mean length",
            heading="|m|\nμB", show=by_species,
        ),
        Column(
            key="total_magmom", text="length of the vector sum of the moments", unit="μB",
            heading="total m\nμB", form="{:.2f}",
        ),
        Column(
            key="magnetic_order", text="FM, AFM, ferri, non-collinear or non-magnetic", heading="order",
            left=True, wraps=8,
        ),
        Column(
            key="magnetic_space_group", text="magnetic space group, BNS number", heading="magnetic\ngroup",
            left=True,
        ),
        *head("message"),
    ),
    quantities=(
        Column(key="magmoms", text="moment vectors of all atoms", unit="μB"),
        Column(key="max_magforce", text="largest magnetic force that a start left", unit="eV/μB"),
        Column(key="n_converged", text="how many starts converged"),
        Column(key="n_lowest", text="how many starts found the lowest minimum"),
        Column(
            key="n_evaluations", text="evaluations of the model for all starts",
            unit="1, evaluations of the model for all starts",
        ),
        Column(key="mean_steps", text="mean number of steps of a start"),
    ),
    files=(
        OutputFile(
            "starts.csv", "one line for each start: status, steps, energies (eV/atom), largest magforce, minimum"
        ),
        OutputFile("minima.extxyz", "all minima"),
        OutputFile("structures/NAME-NUMBER.mcif", "each minimum of a crystal"),
        OutputFile("figures/NAME_energy, NAME_magforce .png, .svg", "the descent of every start"),
    ),
    python="""from ase.build import bulk

from mmace_sim.properties.moments import MomentSearch

(result,) = MomentSearch(starts=4).run([bulk("Fe", cubic=True)])
print([(minimum.order, minimum.energy_above_lowest) for minimum in result.minima])
""",
    computation="mmace_sim.properties.moments.output:MomentsComputation",
)  # fmt: skip
"""Minima of the moments."""
