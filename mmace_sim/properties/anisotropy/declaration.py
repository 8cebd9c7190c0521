"""What ``mmace-sim anisotropy`` is: settings, columns, files, and those of its maps of data sets."""

from dataclasses import replace
from typing import Annotated, Any, Literal, override

from pydantic import AfterValidator, Field

from mmace_sim.base.settings import MOMENTS, Flag, Settings
from mmace_sim.engine.declaration import Column, OutputFile, Property, head
from mmace_sim.engine.settings import (
    FigureSettings,
    GivenOrderSettings,
    MagforceTol,
    MaxSteps,
    run_settings,
)

PANEL = "Anisotropy"

CONVENTION = (
    "E(n) of all moments turned as a body so that the reference axis points along n; K1 > 0: easy unique axis "
    "(uniaxial), easy <100> (cubic); MAE = E(hard) - E(easy); magnetocrystalline part only, no dipole-dipole shape term"
)
"""Signs of everything that an anisotropy run reports, as each output file states it."""

SENSITIVITY = (
    "root mean square over random rotations R of [E(R m) - E(m)]/n_atoms, all moments turned together by R at fixed "
    "atoms and lengths; 0 without spin-orbit coupling"
)
"""Definition of the number of a map, as each output file states it."""


def _direction(value: list[float] | None) -> list[float] | None:
    if value is not None and (len(value) != 3 or not any(value)):
        raise ValueError("expected a direction as three numbers")
    return value


Direction = Annotated[list[float] | None, AfterValidator(_direction)]
"""A Cartesian vector of any length but zero."""


class AnisotropySettings(GivenOrderSettings):
    """Settings of energies against the direction of the moments."""

    directions: Annotated[int, Flag(PANEL)] = Field(default=50, ge=3)
    """Least number of directions; the next grid of Lebedev's is taken, half of it by time reversal."""
    plane: Annotated[Direction, Flag(PANEL, metavar="X,Y,Z", shown="the whole sphere")] = None
    """Turn in the plane with this normal (Cartesian) only."""
    form: Annotated[Literal["auto", "uniaxial", "cubic", "general"], Flag(PANEL)] = "auto"
    """What is fitted. **auto**: as the symmetry of crystal and order asks for."""
    axis: Annotated[Direction, Flag(PANEL, metavar="X,Y,Z", shown="that of the crystal")] = None
    """Unique axis (Cartesian)."""
    max_ell: Annotated[int, Flag(PANEL)] = Field(default=6, ge=2)
    """Highest degree of the harmonics."""
    curve_points: Annotated[int, Flag(PANEL)] = Field(default=18, ge=0)
    """Directions in each of three planes, to check and to draw; 0: none."""
    lengths: Annotated[Literal["rigid", "relaxed"], Flag(MOMENTS)] = "rigid"
    """Lengths of the moments while they turn (relaxed: collinear orders only)."""
    magforce_tol: MagforceTol = 1e-6
    """Largest magnetic force −∂E/∂m of relaxed lengths."""
    max_steps: MaxSteps = 500
    """Largest number of steps of the lengths."""


class SensitivitySettings(Settings):
    """Settings of maps of data sets."""

    rotations: Annotated[int, Flag(PANEL)] = Field(default=16, ge=2)
    """Number of rotations of a map."""
    seed: Annotated[int, Flag(PANEL)] = Field(default=0, ge=0)
    """Seed of the rotations, which are uniform."""


class AnisotropyRun(Settings):
    """What the command adds."""

    map: Annotated[bool, Flag(PANEL, names=("--map",))] = False
    """Instead, only how much random rotations of all moments change the energy: a map of a data set."""
    dtype: Literal["float64"] = "float64"
    """Precision; in float32 anisotropy drowns in rounding."""
    spin_orbit: bool = False
    """Require a model with spin–orbit coupling; anisotropy always does."""

    @override
    def check_given(self, given: frozenset[str]) -> None:
        """Refuse options of a map without `--map`, and those of anisotropy with it."""
        own = set(AnisotropySettings.model_fields) - {"magmoms", "magforce_tol", "max_steps"}
        idle = own if self.map else set(SensitivitySettings.model_fields)
        self.refuse_idle(idle, f"{'with' if self.map else 'without'} --map", given)


def _easy(row: dict[str, Any]) -> str:
    return " ".join(str(part) for part in (row.get("easy"), row.get("easy_crystal")) if part) or "–"


_MICRO, _FORMULA, _VOLUME = "μeV/atom", "meV/f.u.", "MJ/m³"
_RANK = Column(key="rank", text="place by size, among the structures of one model")
_ORDER = Column(key="magnetic_order", text="FM, AFM, ferri or non-collinear")
_MOMENT = Column(key="moment", text="mean length of the moments", unit="μB, mean length of the moments")


def _constant(key: str, unit: str, form: str | None = None, **more: Any) -> Column:
    name, _, _ = key.partition("_")
    what = "E(hard) − E(easy)" if name == "mae" else f"anisotropy constant {name}"
    shown = "MAE" if name == "mae" else name
    heading = None if form is None else f"{shown}\n{unit}"
    return Column(key=key, text=what, unit=unit, heading=heading, form=form or "{}", **more)


_HELP = """Magnetic anisotropy of every magnet in PATHS: which direction of the moments is easy, and what others cost.

    All moments of a structure turn as a body; all directions of all structures are one batch, always in float64. K1 > 0
    is an easy axis (uniaxial) or easy ⟨100⟩ (cubic), MAE = E(hard) − E(easy). Needs a model **with spin–orbit
    coupling**; the default model has none. In the folder of the run: `summary.csv` ranked by MAE, `summary.json`,
    and for each structure `directions.csv` and figures.

    Examples: `mmace-sim anisotropy folder/ -m soc.safetensors`; `mmace-sim anisotropy --map train.extxyz -m
    soc.safetensors`.
    """
_SETTINGS = run_settings("anisotropy", AnisotropySettings, SensitivitySettings, AnisotropyRun, FigureSettings)

SENSITIVITY_MAP = Property(
    name="anisotropy",
    help=_HELP,
    settings=_SETTINGS,
    columns=(
        _RANK,
        *head("name", "file", "index", "formula"),
        Column(key="group", text="config_type of the file, or the composition", heading="group", left=True),
        *head("n_atoms"),
        replace(_ORDER, heading="order", left=True),
        _MOMENT,
        Column(
            key="sensitivity", text="how much rotations change the energy", unit=f"μeV/atom: {SENSITIVITY}",
            heading="rms change\nμeV/atom", form="{:.3f}",
        ),
        Column(
            key="spread", text="the same, whatever the moments point to now",
            unit="μeV/atom, standard deviation of E(R m) over the rotations",
            heading="spread\nμeV/atom", form="{:.3f}",
        ),
        Column(key="largest", text="largest change", unit="μeV/atom, largest |E(R m) - E(m)|"),
        *head("status", "message"),
    ),
    files=(OutputFile("figures/sensitivity.png, .svg", "structures by their sensitivity"),),
    computation="mmace_sim.properties.anisotropy.output:SensitivityComputation",
)  # fmt: skip
"""What ``--map`` gives."""

ANISOTROPY = Property(
    name="anisotropy",
    help=_HELP,
    settings=_SETTINGS,
    columns=(
        _RANK,
        *head("name", "file", "index", "formula"),
        _ORDER,
        _MOMENT,
        Column(key="symmetry", text="crystal system of E(direction)"),
        Column(key="form", text="what was fitted", heading="form", left=True),
        *(_constant(key, _MICRO, "{:.3f}") for key in ("K1", "K2", "K3", "mae")),
        _constant("K1_mev_fu", _FORMULA),
        _constant("mae_mev_fu", _FORMULA, "{:.4f}"),
        _constant("K1_mj_m3", _VOLUME),
        _constant("mae_mj_m3", _VOLUME, "{:.4f}"),
        Column(key="easy", text="easy directions in words", heading="easy", show=_easy, left=True),
        Column(key="easy_crystal", text="easy direction in crystal vectors"),
        Column(key="hard_crystal", text="hard direction in crystal vectors"),
        Column(
            key="fit_residual", text="what the fit leaves of the energies", unit=_MICRO,
            heading="residual\nμeV/atom", form="{:.2g}",
        ),
        *head("status", "message"),
    ),
    quantities=(
        Column(key="convention", text="signs", unit=CONVENTION),
        *(_constant(f"{name}_mev_fu", _FORMULA) for name in ("K2", "K3")),
        *(_constant(f"{name}_mj_m3", _VOLUME) for name in ("K2", "K3")),
        Column(key="constants_order", text="order of the fit",
               unit="highest degree of the functions that were fitted"),
        Column(
            key="constants", text="all constants with their functions and errors",
            unit="μeV/atom, of the functions given beside them; error is the standard error of the fit",
        ),
        Column(key="curve_error", text="difference of harmonics and energies in the planes", unit=_MICRO),
        Column(key="time_reversal_error", text="largest |E(m) − E(−m)|", unit=_MICRO),
        Column(
            key="easy_axis, hard_axis, reference_axis, frame", text="directions",
            unit="Cartesian unit vectors; frame: x, y, z of θ and φ as rows",
        ),
        Column(key="tensor", text="second order as a tensor",
               unit="μeV/atom, symmetric traceless A of the part n.A.n, Cartesian"),
        Column(key="principal_values", text="eigenvalues of the tensor",
               unit="μeV/atom, of A, lowest (easy) first; principal_axes as rows"),
        Column(key="harmonics", text="E(direction)",
               unit="μeV/atom, real orthonormal harmonics (l, m) in the frame"),
        Column(key="cone_angle", text="angle of an easy cone", unit="degrees"),
    ),
    files=(
        OutputFile("NAME/directions.csv", "energy of each direction, and what the fit gives"),
        OutputFile("NAME/anisotropy_planes.png, .svg", "energies in three planes"),
        OutputFile("NAME/anisotropy_surface.png, .svg", "energies on the sphere"),
        OutputFile("figures/ranking.png, .svg", "several structures by MAE"),
    ),
    python="""from ase.build import bulk

from mmace_sim.properties.anisotropy import Anisotropy
from mmace_sim.testing import SingleIonModel

model = SingleIonModel(uniaxial=(80e-6, 0.0))  # any model with spin–orbit coupling
strained = bulk("Fe", cubic=True)
strained.set_cell([2.75, 2.75, 3.0], scale_atoms=True)
(result,) = Anisotropy(model, magmoms="fixed", curve_points=0).run([strained])
print(result.easy, result.mae / len(result.atoms))  # easy axis, eV/atom
""",
    computation="mmace_sim.properties.anisotropy.output:AnisotropyComputation",
    variants={"map": SENSITIVITY_MAP},
)  # fmt: skip
"""Anisotropy; its variant is a map of a data set."""
