"""Settings of ``mmace-sim data propose`` and ``mmace-sim data select``."""

from typing import Annotated

from pydantic import Field, field_validator

from mmace_sim.base.settings import MACHINE, MOMENTS, STRAIN, Flag, Settings
from mmace_sim.data.recipes import RECIPES, STANDARD, parse_recipe
from mmace_sim.engine.settings import DeviceChoice, InitialMagmoms, Symbols, ThreadCount

SNAPSHOTS = "Snapshots (recipes md and relax)"

_RECIPES = "\n".join(f"- **{name}**: {recipe.teaches}." for name, recipe in RECIPES.items())

PROPOSE_HELP = f"""Make candidates for calculations of the structures in PATHS, by recipes.

Writes one extended XYZ with moments, of which some are held (array `hold_moment`). The same settings give the same
candidates, each with a name (`config_id`) that never stands for another content. Cells with atoms on top of each other,
and copies in another orientation, cell or order of atoms, are left out. Recipes, and what they teach:

{_RECIPES}

Example: `mmace-sim data propose FeCo.cif --recipe mixed:40 --recipe orders --collinear`.
"""

SELECT_HELP = """Choose the candidates that a model can learn most from: uncertain ones, unlike its data and each other.

One after another the candidate with the largest product is taken: its uncertainty of the energy, of the forces, and of
both parts of the magnetic forces, in turn, times the distance of its farthest atom from the data of the model and from
those chosen before. The table says why. Cells with
atoms on top of each other, and those on which the model has absurd forces, are never chosen. With `none` in place of a
model, variety alone decides, which is how a first set is chosen.

Example: `mmace-sim data select my.safetensors candidates.extxyz -n 20`.
"""


class ProposeSettings(Settings):
    """Which candidates are made of structures."""

    paths: Annotated[list[str], Flag(metavar="PATHS", argument=True)] = Field(default_factory=list)
    """Files and folders with structures: CIF, mCIF, POSCAR, extxyz and all others that `relax` reads."""
    output: Annotated[str, Flag(metavar="FILE", names=("--output", "-o"))] = "candidates.extxyz"
    """File to write, extended XYZ."""
    recipe: Annotated[list[str], Flag(metavar="NAME[:N]", repeated=True, shown=", ".join(STANDARD))] = Field(
        default_factory=list
    )
    """Recipe, with the number of candidates that it makes of each structure (may be repeated): `NAME` or `NAME:N`."""
    count: Annotated[int, Flag()] = Field(default=10, ge=1, le=100_000)
    """Candidates that a recipe without a number makes of each structure."""
    max_atoms: Annotated[int, Flag()] = Field(default=8, ge=1)
    """Largest number of atoms of a candidate made as a supercell or at random; larger structures are kept."""
    seed: Annotated[int, Flag()] = Field(default=0, ge=0)
    """Seed of everything random."""
    volume_range: Annotated[list[float], Flag(STRAIN, metavar="LOW,HIGH")] = Field(
        default=[0.88, 1.14], min_length=2, max_length=2
    )
    """Smallest and largest volume, over that of the structure."""
    max_strain: Annotated[float, Flag(STRAIN)] = Field(default=0.05, gt=0, le=0.3)
    """Largest component of a random strain."""
    max_rattle: Annotated[float, Flag(STRAIN, unit="Å")] = Field(default=0.15, gt=0, le=1.0)
    """Largest standard deviation of random displacements, of each component."""
    initial_magmoms: InitialMagmoms = None
    collinear: Annotated[bool, Flag(MOMENTS, names=("--collinear",))] = False
    """Collinear states alone, for engines such as GPAW that know no others."""
    max_scale: Annotated[float, Flag(MOMENTS)] = Field(default=1.5, gt=0, le=10)
    """Largest factor for lengths of moments."""
    elements: Annotated[Symbols, Flag(metavar="Fe,Ni", shown="those of the structures")] = None
    """Elements of random structures."""
    model: Annotated[str | None, Flag(SNAPSHOTS, metavar="NAME|FILE", names=("--model", "-m"))] = None
    """Model that makes the snapshots."""
    temperature: Annotated[float, Flag(SNAPSHOTS, unit="K")] = Field(default=600.0, gt=0)
    """Temperature of molecular dynamics."""
    threads: Annotated[ThreadCount, Flag(SNAPSHOTS, shown="all cores")] = None

    @field_validator("recipe")
    @classmethod
    def _known_recipes(cls, value: list[str]) -> list[str]:
        for text in value:
            parse_recipe(text)
        return value

    @field_validator("volume_range")
    @classmethod
    def _sensible_range(cls, value: list[float]) -> list[float]:
        if not 0.3 <= value[0] < value[1] <= 3.0:
            raise ValueError("give two factors between 0.3 and 3, the smaller one first")
        return value

    def recipes(self) -> dict[str, int]:
        """Number of candidates of each recipe; names that stand for several are resolved."""
        found: dict[str, int] = {}
        for text in self.recipe or STANDARD:
            name, count = parse_recipe(text)
            for part in RECIPES[name].parts or (name,):
                found[part] = count or self.count
        return found


class SelectSettings(Settings):
    """Which candidates are worth a calculation."""

    model: Annotated[str, Flag(metavar="MODEL", argument=True)] = ""
    """Model with uncertainties: a name (see `mmace-sim models`) or a file; `none`: variety alone, for a first set."""
    candidates: Annotated[list[str], Flag(metavar="CANDIDATES", argument=True)] = Field(default_factory=list)
    """Files and folders with candidates, from `mmace-sim data propose` or any structures with moments."""
    output: Annotated[str, Flag(metavar="FILE", names=("--output", "-o"))] = "chosen.extxyz"
    """File to write, extended XYZ, the most valuable first."""
    count: Annotated[int, Flag(names=("--count", "-n"))] = Field(default=50, ge=1)
    """Number of candidates to choose."""
    known: Annotated[list[str], Flag(metavar="FILE", repeated=True)] = Field(default_factory=list)
    """Structures that have been computed already (may be repeated): they and copies of them are not chosen."""
    random: Annotated[bool, Flag(names=("--random",))] = False
    """Choose at random, to compare with."""
    seed: Annotated[int, Flag()] = Field(default=0, ge=0)
    """Seed of a random choice."""
    device: DeviceChoice = None
    threads: Annotated[ThreadCount, Flag(MACHINE, shown="all cores")] = None
