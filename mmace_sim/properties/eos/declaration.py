"""What ``mmace-sim eos`` is: settings, columns, files."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from mmace_sim.base.settings import STRAIN, Flag
from mmace_sim.engine.declaration import Column, OutputFile, Property, head
from mmace_sim.engine.settings import (
    FigureSettings,
    GridSettings,
    MomentSettings,
    States,
    check_ranges,
    run_settings,
)


class EosSettings(GridSettings, MomentSettings):
    """Settings of equations of state."""

    states: States = ["file"]  # noqa: RUF012
    """Magnetic states, separated by commas. **file**: the moments of the structure. **fm**, **fm-ls**: ferromagnetic,
    from the high-spin or the low-spin side. **afm**: near neighbours opposite. **afmd**: double layers along the third
    cell vector. **nm**: no moments. **random:SEED**."""
    volume_min: Annotated[float, Flag(STRAIN)] = Field(default=0.88, gt=0)
    """Smallest volume, relative to that of the structure."""
    volume_max: Annotated[float, Flag(STRAIN)] = Field(default=1.12, gt=0)
    """Largest volume, relative to that of the structure."""
    n_volumes: Annotated[int, Flag(STRAIN)] = Field(default=13, ge=2)
    """Number of volumes; five are needed for an equation of state."""

    @model_validator(mode="after")
    def _ascending(self) -> Any:
        check_ranges(self, "volume")
        return self


EOS = Property(
    name="eos",
    help="""Energy against volume of every structure in PATHS, in each magnetic state, in one batch.

    Gives V₀, B₀, B₀′ (Birch–Murnaghan, in a window that the residual chooses), the moment against volume and where it
    jumps, and the volumes where two states have the same energy. The cell keeps its shape. In the folder of the run:
    `summary.json` and `summary.csv` (one line for each minimum), `curves.csv` (every point), `points.extxyz`
    (structures with moments), `figures/`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim eos POSCAR`; `mmace-sim eos fcc.cif --states fm,afm,afmd,nm --volume-max 1.3 --n-volumes 25`.
    """,
    settings=run_settings("eos", EosSettings, FigureSettings),
    columns=(
        *head("name", "file", "index", "formula"),
        Column(key="state", text="magnetic state that the curve belongs to", heading="state", left=True),
        Column(key="minimum", text="number of the minimum within the state, from 1"),
        Column(key="volume", text="V₀", unit="Å³/atom", heading="V₀\nÅ³/atom", form="{:.3f}"),
        Column(key="energy", text="E₀", unit="eV/atom", heading="E₀\neV/atom", form="{:.4f}"),
        Column(
            key="energy_above_lowest",
            text="E₀ above the lowest minimum of the same structure",
            unit="eV/atom, above the lowest minimum of the same structure",
            heading="ΔE₀\nmeV/atom", scale=1000, form="{:.1f}",
        ),
        Column(key="bulk_modulus_gpa", text="B₀", unit="GPa", heading="B₀\nGPa", form="{:.1f}"),
        Column(
            key="bulk_modulus_error_gpa",
            text="its change with the next order of the equation",
            unit="GPa, change with the next order of the equation",
        ),
        Column(key="bulk_modulus_derivative", text="B₀′", unit="1", heading="B₀′", form="{:.2f}"),
        Column(
            key="moment", text="mean length of all moments at V₀", unit="μB, mean length of all moments",
            heading="|m|\nμB", form="{:.2f}",
        ),
        Column(key="magnetic_order", text="magnetic order at V₀", heading="order", left=True, wraps=8),
        *head("status"),
        Column(key="rms_error", text="what the fit leaves of the energies", unit="eV/atom"),
        Column(key="order", text="order of the equation"),
        Column(key="n_points", text="points that were fitted"),
        Column(
            key="residual",
            text="what the fit leaves of energies and pressures, relative to their range in the window",
            unit="1, what the fit leaves of energies and pressures, relative to their range in the window",
        ),
        *head("message"),
    ),
    quantities=(
        Column(key="volume_range", text="window of the fit", unit="Å³/atom, window of the fit"),
        Column(key="order, n_points", text="of the fit", unit="1, of the fit"),
        Column(
            key="coefficients", text="of E = Σ c_k f^k, f = [(V₀/V)^(2/3) − 1]/2",
            unit="eV/atom, of E = Σ c_k f^k, f = [(V₀/V)^(2/3) − 1]/2",
        ),
        Column(key="pressure_gpa", text="pressure", unit="GPa, positive under compression"),
    ),
    files=(
        OutputFile("curves.csv", "every point: volume, energy, moment, pressure, order, status"),
        OutputFile("points.extxyz", "the structure of every point with its moments"),
        OutputFile("figures/NAME.png, .svg", "energy and moment against volume, with the fitted curves"),
    ),
    python="""from ase.build import bulk

from mmace_sim.properties.eos import EquationOfState

(result,) = EquationOfState(states=["fm"], n_volumes=7).run([bulk("Fe", cubic=True)])
minimum = result.lowest.fits[0]
print(minimum.volume, minimum.bulk_modulus_gpa)  # Å³/atom, GPa
""",
    computation="mmace_sim.properties.eos.output:EosComputation",
)  # fmt: skip
"""Equations of state."""
