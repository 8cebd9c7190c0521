"""Settings of ``mmace-sim phonons``."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from mmace_sim.cli.config import RunConfig
from mmace_sim.structures.supercells import parse_supercell


class PhononsConfig(RunConfig):
    """Everything that decides the result of ``mmace-sim phonons``."""

    output: str = "phonons"
    """Folder of the run."""
    magmoms: Literal["fixed", "relaxed"] = "relaxed"
    """Moments while atoms are displaced: fixed, or relaxed for each displacement."""
    relax: bool = True
    """Relax positions, cell and moments first."""
    min_length: float = Field(default=10.0, gt=0)
    """Smallest distance between an atom and its images in the supercell, in Å."""
    supercell: list[int] | None = None
    """One or three multiples of the cell vectors, or nine integers as in phonopy's DIM; None: from min_length."""
    displacement: float = Field(default=0.01, gt=0)
    """Length of the displacements, in Å."""
    symprec: float = Field(default=1e-3, gt=0)
    """Tolerance of symmetry, in Å for positions and in μB for moments."""
    fmax: float = Field(default=1e-3, gt=0)
    """Largest force of a relaxed crystal, in eV/Å."""
    stress_tol: float = Field(default=0.05, gt=0)
    """Largest stress of a relaxed crystal, in GPa."""
    magforce_tol: float = Field(default=1e-5, gt=0)
    """Largest magnetic force of relaxed moments, in eV/μB."""
    max_steps: int = Field(default=500, ge=0)
    """Largest number of steps of each relaxation."""
    mesh: float = Field(default=60.0, gt=0)
    """Density of the mesh for DOS and thermal properties: a length in Å, as phonopy's MESH."""
    t_max: float = Field(default=1000.0, gt=0)
    """Highest temperature of the thermal properties, in K."""
    t_step: float = Field(default=10.0, gt=0)
    """Step of the temperatures, in K."""
    write: list[Literal["force_sets", "force_constants"]] = Field(default_factory=list)
    """Further files of phonopy."""

    @field_validator("supercell", mode="before")
    @classmethod
    def _read_supercell(cls, value: Any) -> Any:
        """``"4 4 4"`` or ``4x4x4`` is a list of integers; a matrix that cannot be is refused now."""
        if isinstance(value, int):
            value = [value]
        if isinstance(value, str):
            words = re.split(r"[\s,x×]+", value.strip())
            value = [int(word) if word.lstrip("+-").isdecimal() else word for word in words]
        if isinstance(value, list) and all(isinstance(item, int) for item in value):
            parse_supercell(value)
        return value
