"""What ``mmace-sim order`` is: settings, columns, files."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from mmace_sim.base.settings import MOMENTS, RELAXATION, Flag
from mmace_sim.engine.declaration import HEAD, Column, OutputFile, Property, head
from mmace_sim.engine.settings import (
    FigureSettings,
    ForceTol,
    MagforceTol,
    MaxSteps,
    MomentSettings,
    StressTol,
    run_settings,
)

STARTS = "Starts"


class OrderSettings(MomentSettings):
    """Settings of a search for the lowest magnetic order."""

    max_supercell: Annotated[int, Flag(STARTS)] = Field(default=2, ge=1)
    """Largest number of primitive cells in a magnetic cell: 2 for ferromagnet and simple antiferromagnets of a lattice
    with one atom, 4 for double layers too."""
    max_orders: Annotated[int, Flag(STARTS)] = Field(default=32, ge=1)
    """Largest number of collinear orders of a structure, the simplest ones first."""
    non_magnetic: Annotated[bool, Flag(STARTS, names=("--nm/--no-nm",))] = True
    """Add a start without moments."""
    random: Annotated[int, Flag(STARTS, metavar="N")] = Field(default=0, ge=0)
    """Add N starts with random directions."""
    spirals: Annotated[bool, Flag(STARTS)] = False
    """Add the spin spirals that fit into a magnetic cell of 3 or more primitive cells."""
    tilt: Annotated[float, Flag(STARTS, metavar="DEGREES")] = Field(default=0.0, ge=0, lt=90)
    """Turn every moment of every start by this angle about a random axis, so that unstable orders are left."""
    seed: Annotated[int, Flag(STARTS)] = Field(default=0, ge=0)
    """Seed of random directions and tilts."""
    symprec: Annotated[float, Flag(STARTS, unit="Å")] = Field(default=0.01, gt=0)
    """Tolerance of positions for symmetry."""
    magmoms: Annotated[Literal["joint", "adiabatic", "fixed"], Flag(MOMENTS)] = "joint"
    """**joint**: relax moments together with atoms and cell. **adiabatic**: converge them at every step. **fixed**:
    keep them."""
    relax_cell: Annotated[bool, Flag(RELAXATION, names=("--relax-cell/--fixed-cell",))] = True
    """Relax the cell of each order."""
    relax_positions: Annotated[bool, Flag(RELAXATION, names=("--relax-positions/--fixed-positions",))] = True
    """Relax the atoms of each order."""
    force_tol: ForceTol = 0.01
    """Largest force of a converged structure."""
    stress_tol: StressTol = 0.1
    """Largest stress of a converged structure."""
    magforce_tol: MagforceTol = 1e-3
    """Largest magnetic force −∂E/∂m of a converged structure."""
    max_steps: MaxSteps = 1000
    """Largest number of steps."""
    energy_tol: Annotated[float, Flag(RELAXATION, unit="eV/atom")] = Field(default=1e-3, gt=0)
    """Relaxed orders that look alike are one state if their energies differ by less."""


def _or_nothing(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: str(row.get(key) or "")


def _outcome(row: dict[str, Any]) -> str:
    status = row["status"]
    return str(row.get("outcome") or "") if status == "converged" else status.replace("_", " ")


ORDER = Property(
    name="order",
    help="""Find the lowest magnetic order of every structure in PATHS: many starts, relaxed in one batch, ranked.

    The structure is reduced to its primitive cell. Collinear orders (ferromagnet, antiferromagnets, ferrimagnets) in it
    and its supercells are enumerated by symmetry; random directions, spirals and an order of the file are added. Equal
    results are recognised. In the folder of the run: `summary.json` and `summary.csv` (one line for each start),
    `relaxed.extxyz` (all relaxed orders), `structures/` (the lowest order of each structure as mCIF), `figures/`,
    `config.yaml` and `log.txt`.

    Examples: `mmace-sim order POSCAR`; `mmace-sim order bcc.cif fcc.cif --max-supercell 4 --spirals --random 10`.
    """,
    settings=run_settings("order", OrderSettings, FigureSettings),
    columns=(
        *head("name", "file", "index", "formula"),
        Column(
            key="start", text="name of the start: FM, AFM-1, ferri-1, NM, spiral-1, random-1 or file",
            heading="start", show=_or_nothing("start"), left=True,
        ),
        Column(key="state", text="name of the start that stands for the state where this one ended"),
        replace(HEAD["status"], heading=None),
        Column(
            key="outcome", text="where the start ended if that is not itself", heading="outcome", show=_outcome,
            left=True, wraps=8, late=4,
        ),
        Column(key="energy_per_atom", text="energy of the relaxed order", unit="eV/atom"),
        Column(
            key="energy_above_best", text="energy above the lowest order of the same structure",
            unit="eV/atom, above the lowest order of the same structure",
            heading="ΔE\nmeV/atom", scale=1000, form="{:z.1f}",
        ),
        Column(
            key="energy_above_lowest",
            text="energy above the lowest order of all structures of the same composition",
            unit="eV/atom, above the lowest order of all structures of the same composition",
            heading="to lowest\nmeV/atom", scale=1000, form="{:z.1f}",
        ),
        Column(
            key="moment", text="mean length of all moments", unit="μB, mean length of all moments",
            heading="|m|\nμB", form="{:.2f}",
        ),
        Column(key="magnetic_order_initial", text="FM, AFM, ferri, non-collinear or non-magnetic, of the start"),
        Column(key="magnetic_order_final", text="the same, of the relaxed order"),
        Column(
            key="magnetic_space_group", text="magnetic space group, BNS number",
            heading="magnetic\nspace group", left=True, late=3,
        ),
        Column(key="space_group", text="space group of the structure without its moments"),
        Column(
            key="propagation", text="propagation vector of the start; empty if there are several",
            unit="reciprocal vectors of the conventional cell, up to symmetry",
            heading="k", show=_or_nothing("propagation"), left=True, late=2,
        ),
        Column(
            key="n_cells", text="primitive cells in the magnetic cell", heading="cells",
            show=_or_nothing("n_cells"), late=2,
        ),
        *head("n_atoms"),
        Column(
            key="volume", text="volume of the relaxed order", unit="Å³/atom", heading="V\nÅ³/atom",
            form="{:.2f}", late=1,
        ),
        Column(key="steps", text="steps of the relaxation"),
        *head("message"),
    ),
    quantities=(
        Column(key="best", text="name of the lowest state"),
        Column(key="n_states", text="number of different states"),
        Column(key="magmom_by_species", text="mean length of the moments of each element", unit="μB, mean length"),
        Column(key="total_magmom", text="vector sum of the moments", unit="μB"),
        Column(key="magmoms", text="moment vectors of all atoms", unit="μB"),
        Column(key="magnetic_space_group_uni", text="magnetic space group, unified number (1–1651)"),
    ),
    files=(
        OutputFile("relaxed.extxyz", "all relaxed orders with moments, energies, forces and stress"),
        OutputFile("structures/NAME.mcif", "the lowest order of each structure"),
        OutputFile("figures/NAME.png, .svg", "energies of all starts"),
    ),
    python="""from ase.build import bulk

from mmace_sim.properties.order import OrderSearch

(result,) = OrderSearch(max_supercell=1, random=0).run([bulk("Fe", cubic=True)])
print(result.best.name, result.best.energy)  # eV/atom
""",
    computation="mmace_sim.properties.order.output:OrderComputation",
)  # fmt: skip
"""The lowest magnetic order."""
