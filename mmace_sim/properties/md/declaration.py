"""What ``mmace-sim md`` is: settings, columns, files."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mmace_sim.base.constants import ELECTRON_G
from mmace_sim.base.settings import MOMENTS, Flag
from mmace_sim.engine.declaration import Column, OutputFile, Property, head
from mmace_sim.engine.settings import (
    NOT_PHYSICS,
    AppliedField,
    DoubtSettings,
    FigureSettings,
    run_settings,
)
from mmace_sim.errors import ConfigError

DYNAMICS = "Dynamics"

NEEDS: dict[str, tuple[str, str, frozenset[str]]] = {
    "friction": ("ensemble", "a heat bath", frozenset({"nvt", "npt"})),
    "pressure": ("ensemble", "a barostat", frozenset({"npt"})),
    "pressure_time": ("ensemble", "a barostat", frozenset({"npt"})),
    "damping": ("spins", "precessing moments", frozenset({"llg"})),
    "lengths": ("spins", "precessing moments", frozenset({"llg"})),
    "g_factor": ("spins", "precessing moments", frozenset({"llg"})),
    "solver": ("spins", "precessing moments", frozenset({"llg"})),
    "magforce_tol": ("spins", "moments that follow", frozenset({"adiabatic"})),
    "field": ("spins", "moments that move", frozenset({"adiabatic", "llg"})),
    "length_friction": ("lengths", "fluctuating lengths", frozenset({"langevin"})),
}
"""Settings without effect unless another one has one of these values."""


class MDSettings(DoubtSettings):
    """Settings of molecular dynamics."""

    ensemble: Annotated[Literal["nve", "nvt", "npt"], Flag(DYNAMICS)] = "nvt"
    """Constant energy, a heat bath, or a heat bath and a pressure."""
    temperature: Annotated[float, Flag(DYNAMICS, unit="K", names=("--temperature", "-T"))] = Field(
        default=300.0, ge=0
    )
    """Temperature of the bath, and of velocities that the file does not have."""
    timestep: Annotated[float, Flag(DYNAMICS, unit="fs")] = Field(default=1.0, gt=0)
    """Time step."""
    n_steps: Annotated[int, Flag(DYNAMICS, names=("--steps",))] = Field(default=1000, ge=0)
    """Number of steps."""
    record_every: Annotated[int, Flag(DYNAMICS, names=("--every",))] = Field(default=10, ge=1)
    """Steps between two frames; a killed run goes on from the last one."""
    supercell: Annotated[list[int], Flag(DYNAMICS, metavar="N|NX,NY,NZ", shown="as it is")] = [1]  # noqa: RUF012
    """Repeat every structure: one number, three, or a matrix row by row."""
    friction: Annotated[float, Flag(DYNAMICS, unit="1/ps")] = Field(default=10.0, gt=0)
    """Friction of the atoms in a heat bath."""
    pressure: Annotated[float, Flag(DYNAMICS, unit="GPa")] = 0.0
    """Pressure for `npt`."""
    pressure_time: float = Field(default=0.5, gt=0)
    """Relaxation time of the volume for npt, in ps, for a bulk modulus of 100 GPa."""
    seed: Annotated[int, Flag(DYNAMICS)] = Field(default=0, ge=0)
    """Seed of all noise."""
    spins: Annotated[Literal["frozen", "adiabatic", "llg"], Flag(MOMENTS)] = "frozen"
    """**frozen**: moments stay. **adiabatic**: relaxed at every step. **llg**: they precess and are damped."""
    damping: Annotated[float | None, Flag(MOMENTS, shown="0.1; 0 for nve")] = Field(default=None, ge=0)
    """Gilbert damping α."""
    lengths: Annotated[Literal["fixed", "langevin"], Flag(MOMENTS)] = "fixed"
    """Lengths of moments under `llg`: fixed, or fluctuating with the bath."""
    length_friction: Annotated[float, Flag(MOMENTS, unit="μB²/(eV fs)")] = Field(default=0.05, gt=0)
    """Friction of fluctuating lengths."""
    g_factor: Annotated[
        float | dict[str, float], Flag(MOMENTS, metavar="G|Fe:G,Co:G", shown=f"{ELECTRON_G:.4f}")
    ] = ELECTRON_G
    """g factor of all moments, or by element (others: the electron's)."""
    field: AppliedField = [0.0, 0.0, 0.0]  # noqa: RUF012
    """Applied field in tesla: energy −B·Σm."""
    solver: Annotated[Literal["midpoint", "sib"], Flag(MOMENTS)] = "midpoint"
    """How a step of the moments is solved."""
    moment_tol: float = Field(default=1e-5, gt=0)
    """Convergence of the implicit step of the moments, in μB."""
    magforce_tol: Annotated[float, Flag(MOMENTS, unit="eV/μB")] = Field(default=1e-3, gt=0)
    """Largest magnetic force that `adiabatic` leaves."""

    @field_validator("supercell", mode="before")
    @classmethod
    def _one_number(cls, value: object) -> Any:
        return [value] if isinstance(value, int) else value

    @field_validator("supercell")
    @classmethod
    def _has_volume(cls, value: list[int]) -> list[int]:
        from mmace_sim.structures.supercells import parse_supercell

        parse_supercell(value)
        return value

    @field_validator("g_factor", mode="before")
    @classmethod
    def _by_element(cls, value: object) -> Any:
        """``Fe:2.1,Co:2.2`` is a mapping."""
        if isinstance(value, str) and ":" in value:
            return dict(part.strip().split(":", 1) for part in value.split(","))
        return value

    @field_validator("g_factor")
    @classmethod
    def _of_elements(cls, value: object) -> Any:
        if isinstance(value, dict):
            from ase.data import atomic_numbers

            unknown = sorted(set(value) - set(atomic_numbers))
            if unknown:
                raise ValueError(f"{', '.join(unknown)}: expected symbols of elements")
        return value

    @model_validator(mode="after")
    def _possible(self) -> Any:
        bath = self.ensemble != "nve"
        if self.damping and not bath:
            raise ValueError(f"damping {self.damping} is impossible without a heat bath (nvt or npt)")
        if self.lengths == "langevin" and not (bath and self.spins == "llg"):
            raise ValueError("lengths langevin are impossible without a heat bath (nvt or npt) and spins llg")
        return self

    def check_given(self, given: frozenset[str]) -> None:
        """Refuse what would have no effect.

        What only a file names counts if it differs from the default, because the `config.yaml` of a run names
        everything.
        """
        lines = []
        for name, (switch, what, values) in NEEDS.items():
            said = name in given or getattr(self, name) != type(self).model_fields[name].default
            chosen = getattr(self, switch)
            if said and chosen not in values:
                label = f"--{name.replace('_', '-')}" if name in given else name
                lines.append(
                    f"{label}: has no effect with --{switch} {chosen}; it is for {what} "
                    f"(--{switch} {' or '.join(sorted(values))}). Leave it out, or choose that."
                )
        if lines:
            raise ConfigError("\n".join(lines))


THERMO: tuple[Column, ...] = (
    Column(key="step", text="number of the step", unit="1"),
    Column(key="time", text="time since the start", unit="fs"),
    Column(key="energy_potential", text="potential energy", unit="eV, of the cell; in a field B with −μB B·Σm"),
    Column(key="energy_kinetic", text="kinetic energy", unit="eV, of the cell"),
    Column(key="energy_total", text="their sum", unit="eV, of the cell"),
    Column(key="temperature", text="temperature of the atoms", unit="K, of the atoms"),
    Column(
        key="spin_temperature", text="temperature of the moments",
        unit="K, of the directions of the moments; blank where moments have no temperature",
    ),
    Column(
        key="spin_torque", text="what it follows from",
        unit="eV², Σ|m×B|²; ⟨spin_torque⟩/⟨spin_curvature⟩/k_B is the temperature over a time",
    ),
    Column(
        key="spin_curvature", text="what it follows from",
        unit="eV, Σ∇²E on the sphere of each direction, a sample",
    ),
    Column(key="mean_magmom", text="mean length of the moments", unit="μB, mean length of the moments"),
    Column(
        key="total_magmom", text="length of the total moment",
        unit="μB/atom, length of the total moment over the number of atoms",
    ),
    Column(key="max_magforce", text="largest magnetic force", unit="eV/μB"),
    Column(key="volume", text="volume of the cell", unit="Å³"),
    Column(key="pressure", text="pressure", unit="GPa, with the kinetic part"),
    Column(
        key="n_evaluations", text="evaluations of the model",
        unit="1, evaluations of the model since the start",
    ),
    Column(
        key="domain_distance", text="distance of the farthest atom from the data of the model",
        unit="1, up to 1 is inside, up to 2 at the edge of the domain",
    ),
    Column(
        key="forces_uncertainty", text="uncertainty of a component of the least certain force", unit="eV/Å",
    ),
)  # fmt: skip
"""Columns of ``thermo.csv``."""

_COLUMNS: tuple[Column, ...] = (
    *head("name", "file", "index", "formula", "n_atoms", "status"),
    Column(key="n_steps", text="steps done", heading="steps", show=lambda row: str(row.get("n_steps") or 0)),
    Column(key="time", text="time simulated", unit="fs", heading="time\nps", scale=0.001, form="{:.3f}"),
    Column(
        key="temperature", text="mean temperature of the atoms", unit="K, of the atoms", heading="T\nK",
        form="{:.0f}",
    ),
    Column(
        key="spin_temperature", text="temperature of the directions of the moments",
        unit="K, ⟨Σ|m×B|²⟩/⟨Σ∇²E⟩/k_B of the directions of the moments", heading="T spins\nK", form="{:.0f}",
    ),
    Column(
        key="energy_potential", text="mean potential energy", unit="eV/atom", heading="E pot\neV/atom",
        form="{:.4f}",
    ),
    Column(key="mean_magmom", text="mean length of the moments", unit="μB", heading="|m|\nμB", form="{:.3f}"),
    Column(
        key="total_magmom", text="mean length of the total moment", unit="μB/atom", heading="|M|\nμB/atom",
        form="{:.3f}",
    ),
    Column(key="pressure", text="mean pressure", unit="GPa", heading="P\nGPa", form="{:.2f}"),
    Column(key="volume", text="mean volume", unit="Å³/atom"),
    Column(
        key="energy_drift", text="drift of the total energy",
        unit="meV/atom/ps, slope of the total energy over the whole run; only where there is no heat bath",
        heading="drift\nmeV/atom/ps", form="{:+.3f}",
    ),
    Column(
        key="energy_noise", text="noise of the total energy",
        unit="meV/atom, standard deviation of the total energy about that slope",
    ),
    Column(
        key="evaluations_per_step", text="evaluations of the model in a step",
        unit="1, of the model; those that relax adiabatic moments not counted",
    ),
    *head("message"),
)  # fmt: skip
"""Averages over the second half of the frames."""

MD = Property(
    name="md",
    help="""Simulate every structure in PATHS at constant energy or temperature, moments included, in one batch.

    In the folder of the run: `summary.json` and `summary.csv` (averages), for each structure a folder with
    `trajectory.extxyz` (velocities and moments), `thermo.csv`, figures and a checkpoint, and `config.yaml` and
    `log.txt`. A run that was killed, or is to be longer (`--steps`), goes on with `--resume`. A structure that explodes
    or fails, or with steps whose moments were not solved for (unsettled), ends with exit code 3; the others go on.

    Examples: `mmace-sim md Fe.cif --supercell 3 -T 600`; `mmace-sim md Fe.cif --supercell 3 --spins llg -T 300
    --steps 5000`; `mmace-sim md Fe.cif --ensemble nve --spins adiabatic`.
    """,
    settings=run_settings("md", MDSettings, FigureSettings),
    columns=_COLUMNS,
    quantities=(
        Column(key="n_frames", text="frames recorded"),
        Column(key="KEY_error", text="standard error of each mean, from blocks of frames"),
        *(column for column in THERMO if column.key not in {c.key for c in _COLUMNS}),
    ),
    files=(
        OutputFile("final.extxyz", "the last structure of each simulation"),
        OutputFile("candidates.extxyz", "last structures of what `--max-uncertainty` stopped, for `mmace-sim label`"),
        OutputFile("NAME/trajectory.extxyz", "frames with velocities, moments, energies, forces and magnetic forces"),
        OutputFile("NAME/thermo.csv", "numbers of every frame"),
        OutputFile("NAME/checkpoint.npz", "what `--resume` goes on from, all digits, at every frame"),
        OutputFile("NAME/energies, temperatures, moments .png, .svg", "over time"),
    ),
    python="""from ase.build import bulk

from mmace_sim.properties.md import MolecularDynamics

(result,) = MolecularDynamics(ensemble="nvt", temperature=300, n_steps=10).run([bulk("Fe", cubic=True)])
print(result.status)
""",
    computation="mmace_sim.properties.md.output:MDComputation",
    may_differ=NOT_PHYSICS | {"n_steps"},
)  # fmt: skip
"""Molecular dynamics."""
