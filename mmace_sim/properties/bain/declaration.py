"""What ``mmace-sim bain`` is: settings, columns, files."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from mmace_sim.base.settings import STRAIN, Flag, Settings
from mmace_sim.engine.declaration import Column, OutputFile, Property, head
from mmace_sim.engine.settings import (
    FigureSettings,
    GridSettings,
    MomentSettings,
    States,
    check_ranges,
    run_settings,
)


class BainSettings(GridSettings, MomentSettings):
    """Settings of Bain maps."""

    states: States = ["fm", "afm", "afmd", "nm"]  # noqa: RUF012
    """Magnetic states, separated by commas. **fm**, **fm-ls**: ferromagnetic, from the high-spin or the low-spin side.
    **afm**: near neighbours opposite. **afmd**: double layers. **nm**: no moments. **file**: the moments of the
    structure. **random:SEED**."""
    ratio_min: Annotated[float, Flag(STRAIN)] = Field(default=0.85, gt=0)
    """Smallest c/a."""
    ratio_max: Annotated[float, Flag(STRAIN)] = Field(default=1.65, gt=0)
    """Largest c/a."""
    n_ratios: Annotated[int, Flag(STRAIN)] = Field(default=17, ge=3)
    """Number of c/a."""
    volume_min: Annotated[float, Flag(STRAIN)] = Field(default=0.84, gt=0)
    """Smallest volume, relative to that of the structure."""
    volume_max: Annotated[float, Flag(STRAIN)] = Field(default=1.12, gt=0)
    """Largest volume, relative to that of the structure."""
    n_volumes: Annotated[int, Flag(STRAIN)] = Field(default=9, ge=3)
    """Number of volumes."""

    @model_validator(mode="after")
    def _ascending(self) -> Any:
        check_ranges(self, "ratio", "volume")
        return self


class BainInput(Settings):
    """Where the command has its structures from."""

    paths: Annotated[list[str], Flag(metavar="[PATHS]", argument=True)] = Field(default_factory=list)
    """Files and folders with tetragonal or cubic cells; without any, the cell of an element is built."""
    element: Annotated[
        str | None, Flag(metavar="SYMBOL", shown="Fe, or that of a model with a single one")
    ] = None
    """Element of the cell that is built: body-centred, two atoms, the volume of the known crystal."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Any:
        if self.paths and self.element:
            raise ValueError("--element builds a structure, but files are given too; use one of them")
        return self


BAIN = Property(
    name="bain",
    help="""Energy over c/a and volume (the Bain path from bcc to fcc) in several magnetic states, in one batch.

    Gives maps of the energy and of the moment, and the minima of each state. In a body-centred cell of two atoms
    c/a = 1 is bcc and c/a = √2 is fcc. In the folder of the run: `summary.json` and `summary.csv` (one line for each
    minimum), `curves.csv` (every point), `figures/`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim bain`; `mmace-sim bain --element Fe --states fm,nm`; `mmace-sim bain B2.cif --ratio-max 1.5`.
    """,
    settings=run_settings("bain", BainSettings, FigureSettings, BainInput),
    needed=(),
    columns=(
        *head("name", "file", "index", "formula"),
        Column(key="state", text="magnetic state that the map belongs to", heading="state", left=True),
        Column(key="minimum", text="number of the minimum within the state, from 1"),
        *head("status"),
        Column(key="c_over_a", text="c/a", unit="1, of the cell", heading="c/a", form="{:.3f}"),
        Column(key="volume", text="volume", unit="Å³/atom", heading="V\nÅ³/atom", form="{:.3f}"),
        Column(key="energy", text="energy", unit="eV/atom", heading="E\neV/atom", form="{:.4f}"),
        Column(
            key="energy_above_lowest", text="energy above the lowest minimum of the same structure",
            unit="eV/atom, above the lowest minimum of the same structure",
            heading="ΔE\nmeV/atom", scale=1000, form="{:.1f}",
        ),
        Column(
            key="moment", text="mean length of all moments", unit="μB, mean length of all moments",
            heading="|m|\nμB", form="{:.2f}",
        ),
        Column(
            key="refined", text="whether the cell of the minimum is relaxed",
            unit="whether the cell of a minimum is relaxed",
        ),
        *head("message"),
    ),
    quantities=(
        Column(
            key="grid_ratio, grid_volume", text="nearest point of the map",
            unit="1 and Å³/atom, nearest point of the map",
        ),
        Column(
            key="path", text="energy at the best volume of each c/a",
            unit="eV/atom, energy at the best volume of each c/a",
        ),
    ),
    files=(
        OutputFile("curves.csv", "every point: c/a, volume, energy, moment, status"),
        OutputFile("figures/NAME_map.png, .svg", "energy over c/a and volume in each state, with the minima"),
        OutputFile("figures/NAME_path.png, .svg", "energy at the best volume of each c/a"),
    ),
    python="""from ase.build import bulk

from mmace_sim.properties.bain import BainPath

path = BainPath(states=["fm"], ratio_min=0.9, ratio_max=1.1, n_ratios=3, volume_min=0.96, volume_max=1.04, n_volumes=3)
(result,) = path.run([bulk("Fe", cubic=True)])
print(result.status, [found.c_over_a for bain_map in result.maps for found in bain_map.minima])
""",
    computation="mmace_sim.properties.bain.output:BainComputation",
)  # fmt: skip
"""Bain maps."""
