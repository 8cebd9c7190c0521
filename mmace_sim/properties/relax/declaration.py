"""What ``mmace-sim relax`` is: settings, columns, files."""

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mmace_sim.base.settings import MOMENTS, RELAXATION, Flag, Settings
from mmace_sim.engine.declaration import HEAD, Column, OutputFile, Property, fixed, head
from mmace_sim.engine.settings import (
    NOT_PHYSICS,
    DoubtSettings,
    ForceTol,
    MagforceTol,
    MaxSteps,
    MomentSettings,
    StressTol,
    run_settings,
)
from mmace_sim.structures import moment_words


class RelaxSettings(MomentSettings, DoubtSettings):
    """Settings of relaxations."""

    magmoms: Annotated[Literal["joint", "adiabatic", "fixed"], Flag(MOMENTS, metavar="MODE")] = "joint"
    """**joint**: relax moments together with positions and cell. **adiabatic**: converge the moments at every step.
    **fixed**: keep them. A START is understood here too: `--magmoms afm` means `--initial-magmoms afm --magmoms
    joint`."""
    stability: Annotated[bool, Flag(MOMENTS)] = True
    """Tell minima from saddle points of the moments by the lowest curvature of the energy."""
    perturb: Annotated[bool, Flag(MOMENTS, names=("--perturb",))] = False
    """Push the moments off a saddle point, along the direction that goes down, and relax on."""
    relax_cell: Annotated[bool, Flag(RELAXATION, names=("--relax-cell/--fixed-cell",))] = True
    """Relax the cell too (of crystals; a molecule has none)."""
    cell_mask: Annotated[
        list[str] | None,
        Flag(RELAXATION, metavar="XX,YY,...", shown="all of a crystal, none of a slab"),
    ] = None
    """Relax only these components of the cell: names out of xx,yy,zz,yz,xz,xy, or six numbers 1 or 0 in that order.
    Also for a slab, whose cell stays fixed otherwise: `xx,yy,xy`."""
    force_tol: ForceTol = 0.01
    """Largest force of a converged structure."""
    stress_tol: StressTol = 0.05
    """Largest stress of a converged structure."""
    magforce_tol: MagforceTol = 3e-4
    """Largest magnetic force −∂E/∂m of a converged structure."""
    max_steps: MaxSteps = 1000
    """Largest number of steps."""

    @field_validator("cell_mask", mode="before")
    @classmethod
    def _read_cell_mask(cls, value: Any) -> Any:
        """``xx,yy,xy`` or ``1,1,0,0,0,1`` as the names of components."""
        if value is None:
            return None
        from mmace_sim.graph.cells import COMPONENTS, parse_cell_mask

        mask = parse_cell_mask([str(value)] if isinstance(value, int | float) else value)
        if mask is None:
            return None
        return [name for name, free in zip(COMPONENTS, mask, strict=True) if free]


class RelaxOutput(Settings):
    """What the command adds."""

    write: Annotated[
        list[Literal["cif", "mcif", "poscar"]], Flag(metavar="cif|mcif|poscar", repeated=True)
    ] = Field(default_factory=list)
    """Write each relaxed structure in this format too (may be repeated); mcif keeps the moments."""

    @model_validator(mode="before")
    @classmethod
    def _accept_start_as_magmoms(cls, data: object) -> Any:
        """``magmoms: afm`` means: start from AFM moments and relax them jointly."""
        if not isinstance(data, dict):
            return data
        value = data.get("magmoms")
        if not isinstance(value, str) or not (value in moment_words.WORDS or value.startswith("random:")):
            return data
        if data.get("initial_magmoms") not in (None, value):
            raise ValueError(
                f"magmoms {value} and initial_magmoms {data['initial_magmoms']} contradict each other; "
                "magmoms is best used for joint, adiabatic or fixed"
            )
        return data | {"magmoms": "joint", "initial_magmoms": value}


def by_species(row: dict[str, Any]) -> str:
    """Mean moment of each element, for a table.

    Args:
        row: Values by key.
    """
    species = row.get("magmom_by_species") or {}
    return " ".join(f"{symbol} {fixed(value, '{:.2f}')}" for symbol, value in species.items()) or "–"


def _before_and_after(row: dict[str, Any]) -> str:
    """Magnetic order before and after, for a table."""
    before, after = row.get("magnetic_order_initial"), row.get("magnetic_order_final")
    return f"{before}\u00a0→ {after or '–'}" if before else "–"


def _length_of_total(row: dict[str, Any]) -> str:
    """Length of the total moment, for a table."""
    total = row.get("total_magmom")
    return fixed(math.hypot(*total) if total else None, "{:.2f}")


ENERGIES = (
    Column(key="energy", text="energy of the relaxed structure", unit="eV"),
    Column(
        key="energy_per_atom", text="energy of the relaxed structure per atom", unit="eV/atom",
        heading="E/atom\neV", form="{:.4f}",
    ),
    Column(
        key="energy_change_per_atom", text="relaxed minus start, per atom", unit="eV/atom",
        heading="ΔE/atom\neV", form="{:+.4f}",
    ),
)  # fmt: skip

RELAX = Property(
    name="relax",
    help="""Relax positions, cell and magnetic moments of every structure in PATHS, in one batch.

    The results are in the folder of the run: `summary.json` and `summary.csv` (energies, moments, magnetic
    orders, statuses), `relaxed.extxyz` (structures with moments and forces), `config.yaml` and `log.txt`.

    Examples: `mmace-sim relax structures/`; `mmace-sim relax POSCAR --initial-magmoms afm -o afm`;
    `mmace-sim relax *.cif --fixed-cell --magmoms adiabatic`; `mmace-sim relax structures/ --resume`.
    """,
    settings=run_settings("relax", RelaxSettings, RelaxOutput),
    columns=(
        *head("name", "file", "index"),
        replace(HEAD["formula"], heading="formula", left=True),
        *head("n_atoms", "model", "status"),
        Column(key="steps", text="steps of the relaxation", heading="steps", late=1),
        *ENERGIES,
        Column(
            key="magmom_by_species", text="mean length of the moments of each element", unit="μB, mean length",
            heading="|m|\nμB", show=by_species, left=True,
        ),
        Column(
            key="total_magmom", text="vector sum of the moments", unit="μB",
            heading="total m\nμB", show=_length_of_total,
        ),
        Column(
            key="magnetic_order_initial",
            text="FM, AFM, ferri, non-collinear or non-magnetic, of the start",
            heading="order\nbefore → after", show=_before_and_after, left=True, wraps=15,
        ),
        Column(key="magnetic_order_final", text="the same, of the relaxed structure"),
        Column(key="magnetic_space_group", text="magnetic space group, BNS number"),
        Column(key="space_group", text="space group of the structure without its moments"),
        Column(key="volume", text="volume of the cell", unit="Å³"),
        Column(
            key="volume_change", text="relative change of the volume", unit="relative to the initial volume",
            heading="ΔV\n%", scale=100, form="{:+.2f}",
        ),
        Column(key="max_force", text="largest force that is left", unit="eV/Å"),
        Column(key="max_stress", text="largest component of the stress that is left", unit="GPa"),
        Column(key="max_magforce", text="largest magnetic force that is left", unit="eV/μB"),
        Column(
            key="moment_curvature", text="lowest curvature of the energy along a direction of all moments",
            unit="eV/μB², lowest of ∂²E/∂m∂m within the constraints",
        ),
        *head("message"),
    ),
    quantities=(
        Column(key="energy_initial", text="energy of the start", unit="eV"),
        Column(key="magmoms", text="moment vectors of all atoms", unit="μB"),
        Column(key="magnetic_space_group_uni", text="magnetic space group, unified number (1–1651)"),
        Column(key="cell", text="cell vectors", unit="Å, vectors as rows"),
        Column(key="moment_curvature_error", text="what is not known of it", unit="eV/μB²"),
        Column(
            key="moment_mode", text="that direction, a unit vector of all moments",
            unit="change of each moment along the lowest curvature, of length 1 in all; of saddle points",
        ),
        Column(
            key="saddle_energy", text="energy of the saddle point that was left with `--perturb`",
            unit="eV, at the last saddle point that was left",
        ),
    ),
    files=(
        OutputFile("relaxed.extxyz", "relaxed structures with moments, energy, forces, stress and magnetic forces"),
        OutputFile("candidates.extxyz", "structures that `--max-uncertainty` stopped, for `mmace-sim label`"),
        OutputFile("structures/", "each relaxed structure in the formats of `--write`"),
    ),
    python="""from ase.build import bulk

import mmace_sim

(iron,) = mmace_sim.relax([bulk("Fe", cubic=True)], force_tol=0.01)
print(iron.status, iron.energy, iron.atoms.get_initial_magnetic_moments())
""",
    computation="mmace_sim.properties.relax.output:RelaxComputation",
    may_differ=NOT_PHYSICS | {"max_steps"},
)  # fmt: skip
"""Relaxation."""
