"""What ``mmace-sim phonons`` is: settings, columns, files."""

import re
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mmace_sim.base.settings import RELAXATION, Flag, Settings
from mmace_sim.engine.declaration import HEAD, Column, OutputFile, Property, fixed, head
from mmace_sim.engine.settings import (
    ForceTol,
    MagforceTol,
    MaxSteps,
    PointMomentSettings,
    StressTol,
    run_settings,
)
from mmace_sim.properties.relax.declaration import RELAX

PANEL = "Phonons"

DISPLACEMENT: float = 0.01
"""Length of displacements in double precision, in Å."""

MAGFORCE_TOL: float = 1e-5
"""Largest magforce of relaxed moments, in eV/μB: frequencies of iron then are within 0.005 THz of the limit."""


class PhononsSettings(PointMomentSettings):
    """Settings of phonons."""

    min_length: Annotated[float, Flag(PANEL, unit="Å")] = Field(default=10.0, gt=0)
    """Smallest distance between an atom and its images in the supercell."""
    supercell: Annotated[list[int] | None, Flag(PANEL, metavar='"N N N"')] = None
    """Multiples of the cell vectors instead (one or three), or nine integers as in phonopy's DIM."""
    displacement: Annotated[float, Flag(PANEL, unit="Å")] = Field(default=DISPLACEMENT, gt=0)
    """Length of the displacements (with float32 rather 0.03)."""
    symprec: Annotated[float, Flag(PANEL, unit="Å and μB")] = Field(default=1e-3, gt=0)
    """Tolerance of symmetry, of positions and moments."""
    relax: Annotated[bool, Flag(RELAXATION)] = True
    """Relax positions, cell and moments first."""
    force_tol: ForceTol = 1e-3
    """Largest force of a relaxed crystal."""
    stress_tol: StressTol = 0.05
    """Largest stress of a relaxed crystal."""
    magforce_tol: MagforceTol = MAGFORCE_TOL
    """Largest magnetic force −∂E/∂m of relaxed moments."""
    max_steps: MaxSteps = 500
    """Largest number of steps of each relaxation."""
    mesh: float = Field(default=60.0, gt=0)
    """Density of the mesh for DOS and thermal properties: a length in Å, as phonopy's MESH."""
    t_max: float = Field(default=1000.0, gt=0)
    """Highest temperature of the thermal properties, in K."""
    t_step: float = Field(default=10.0, gt=0)
    """Step of the temperatures, in K."""

    @field_validator("supercell", mode="before")
    @classmethod
    def _read_supercell(cls, value: object) -> Any:
        """``"4 4 4"`` or ``4x4x4`` is a list of integers."""
        if isinstance(value, int) and not isinstance(value, bool):
            return [value]
        if not isinstance(value, str):
            return value
        words = re.split(r"[\s,x×]+", value.strip())
        if not all(re.fullmatch(r"[+-]?\d+", word, re.ASCII) for word in words):
            raise ValueError("expected 1, 3 or 9 integers")
        return [int(word) for word in words]

    @field_validator("supercell")
    @classmethod
    def _has_volume(cls, value: list[int] | None) -> list[int] | None:
        """A matrix that cannot be is refused now."""
        if value is not None:
            from mmace_sim.structures.supercells import parse_supercell

            parse_supercell(value)
        return value


class PhononsOutput(Settings):
    """What the command adds."""

    write: Annotated[
        list[Literal["force_sets", "force_constants"]],
        Flag(metavar="force_sets|force_constants", repeated=True),
    ] = Field(default_factory=list)
    """Write phonopy's FORCE_SETS or FORCE_CONSTANTS too (may be repeated)."""
    figures: Annotated[bool, Flag(names=("--figures/--no-figures", "--plots/--no-plots"))] = True
    """Draw bands and density of states."""


def _status(row: dict[str, Any]) -> str:
    unstable = row["status"] == "converged" and not row.get("stable")
    return "unstable" if unstable else row["status"].replace("_", " ")


def _lowest(row: dict[str, Any]) -> str:
    lowest = row.get("min_frequency")
    return fixed(None if lowest is None else round(lowest, 2) + 0.0, "{:.2f}")  # no -0.00


_RELAXED = {column.key: column for column in (*RELAX.columns, *RELAX.quantities)}
"""What is said of the crystals themselves."""

_COLUMNS = (
    *head("name", "file", "index"),
    replace(HEAD["formula"], heading="formula", left=True),
    *head("n_atoms"),
    replace(HEAD["status"], show=_status),
    replace(_RELAXED["magnetic_order_final"], text="magnetic order", heading="order", left=True, late=1),
    _RELAXED["magmom_by_species"],
    _RELAXED["magnetic_space_group"],
    _RELAXED["volume"],
    Column(key="n_atoms_primitive", text="atoms of the magnetic primitive cell"),
    Column(key="n_atoms_supercell", text="atoms of the supercell", heading="atoms in\nsupercell", late=2),
    Column(key="n_displacements", text="displacements", heading="displace-\nments", late=2),
    Column(key="stable", text="whether no mode is imaginary"),
    Column(
        key="min_frequency", text="lowest frequency", unit="THz, imaginary ones negative",
        heading="lowest\nTHz", show=_lowest, late=2,
    ),
    Column(
        key="max_frequency", text="highest frequency", unit="THz", heading="highest\nTHz", form="{:.2f}", late=2,
    ),
    Column(
        key="shift_by_moments", text="what moments that follow change most",
        unit="THz, largest ω(relaxed) − ω(frozen moments), at waves that fit into the supercell",
        heading="shift by\nmoments", form="{:+.2f}", late=2,
    ),
    Column(
        key="zero_point_energy", text="zero-point energy", unit="eV/atom", heading="ZPE\nmeV/atom", scale=1000,
        form="{:.1f}", late=2,
    ),
    Column(key="free_energy_300K", text="free energy at 300 K", unit="eV/atom, vibrations only"),
    Column(key="entropy_300K", text="entropy at 300 K", unit="k_B/atom"),
    Column(key="heat_capacity_300K", text="heat capacity at 300 K", unit="k_B/atom"),
    *head("message"),
)  # fmt: skip

PHONONS = Property(
    name="phonons",
    help="""Compute the phonons of every crystal in PATHS, with all displacements of all crystals in one batch.

    Displacements are phonopy's, reduced by the symmetry of the crystal with its moments. With relaxed moments the
    frequencies at frozen moments are computed too, drawn in the same figure, and their difference is reported.

    Each crystal has a folder with `phonopy_params.yaml`, `band.yaml`, `total_dos.dat`, `thermal_properties.yaml`
    and `bands.png`. `summary.json` and `summary.csv` hold frequencies, imaginary modes, free energies, moments and
    statuses; `relaxed.extxyz` the crystals.

    Examples: `mmace-sim phonons structures/`; `mmace-sim phonons bcc.cif --supercell "4 4 4" --magmoms fixed`;
    `mmace-sim phonons relax/ --no-relax -o ph`.
    """,
    settings=run_settings("phonons", PhononsSettings, PhononsOutput),
    columns=_COLUMNS,
    quantities=(
        Column(key="supercell", text="supercell matrix in phonopy's convention"),
        Column(key="frequencies", text="frequencies at special points", unit="THz, by special point"),
        Column(
            key="imaginary_modes", text="unstable modes, softest first",
            unit="q in reciprocal vectors of the primitive cell, frequency in THz (negative)",
        ),
        *(column for key, column in _RELAXED.items() if key not in {c.key for c in _COLUMNS}),
    ),
    files=(
        OutputFile("relaxed.extxyz", "the crystals with moments, energy, forces, stress and magnetic forces"),
        OutputFile("NAME/phonopy_params.yaml", "displacements, forces and force constants, for `phonopy.load`"),
        OutputFile("NAME/band.yaml", "bands along the path through the Brillouin zone"),
        OutputFile("NAME/total_dos.dat", "density of states"),
        OutputFile("NAME/thermal_properties.yaml", "free energy, entropy and heat capacity against temperature"),
        OutputFile("NAME/bands.png, .svg", "bands and density of states"),
        OutputFile("NAME/FORCE_SETS, NAME/FORCE_CONSTANTS", "phonopy's text files, of `--write`"),
    ),
    python="""from ase.build import bulk

from mmace_sim.properties.phonons import Phonons

(result,) = Phonons(supercell=[2, 2, 2], magmoms="fixed").run([bulk("Fe", cubic=True)])
print(result.status, result.phonon.total_dos.frequency_points.max())  # THz
""",
    computation="mmace_sim.properties.phonons.output:PhononsComputation",
)  # fmt: skip
"""Phonons."""
