"""Settings of ``mmace-sim evaluate``."""

from typing import Annotated

from pydantic import AfterValidator, Field

from mmace_sim.base.settings import MACHINE, Flag
from mmace_sim.engine.settings import FigureSettings, ModelRunSettings
from mmace_sim.executors.interface import ExecutorChoice

COMPARISON = "Comparison"
FORMATS = (
    "extended XYZ, ASE databases (LMDB, SQLite), DeePMD-kit folders, MLIP .cfg, outputs of VASP, ABINIT, Quantum "
    "ESPRESSO and ABACUS, ..."
)
"""What the commands read that take labelled structures."""

HELP = """Compare a model with reference labels: energy, forces, stress and magnetic forces.

Errors overall and by config_type, magnetic order and element; energies also without a constant for each
composition; direction and length of magnetic forces, torques; the order of energies of the magnetic states of one
crystal; the time it took; with `--relax-moments` the errors at the moments that the model finds by itself. In the
folder of the run: `report.html`, `summary.json`, `structures.csv` (one line for each structure), `figures/`,
`config.yaml` and `log.txt`.

Labels that a structure does not have are left out. Structures without moments or with elements that the model
does not know are reported, and the exit code is 3.

Examples: `mmace-sim evaluate default test.extxyz`;
`mmace-sim evaluate my.safetensors NiO.extxyz --magforce-elements Ni`.
"""


def _symbols(value: list[str] | None) -> list[str] | None:
    from mmace_sim.training.config_loss import check_symbols

    return value and check_symbols(value)


LabelNames = Annotated[
    str | None,
    Flag(metavar="LABEL=KEY,...", shown="REF_energy, REF_forces, REF_stress, REF_magmom, REF_magforces"),
    Field(description="Names of labels in the files, such as `energy=dft_energy,magmoms=spins`."),
]
"""How the files of users name labels."""
ElementsWithMagforces = Annotated[list[str] | None, AfterValidator(_symbols)]
"""Elements whose magnetic forces are labels."""


class EvaluateSettings(FigureSettings, ModelRunSettings):
    """Everything that decides the result of ``mmace-sim evaluate``."""

    output: Annotated[str, Flag(metavar="DIR", names=("--output", "-o"))] = "evaluate"
    """Folder of the run."""
    model: Annotated[str, Flag(metavar="MODEL", argument=True)] = "default"
    """Model: a name (see `mmace-sim models`) or a file."""
    data: Annotated[list[str], Flag(metavar="DATA...", argument=True)] = Field(
        default_factory=list,
        description=f"Files with moments and labels, REF_magmom, REF_energy, ... in extended XYZ: {FORMATS}.",
    )
    keys: LabelNames = None
    magforce_elements: Annotated[ElementsWithMagforces, Flag(COMPARISON, shown="all")] = None
    """Elements whose magnetic forces are labels, such as `Ni`: those that the reference constrained."""
    angle_threshold: Annotated[float, Flag(COMPARISON, unit="eV/μB")] = Field(default=0.01, ge=0)
    """Smallest magnetic force of the reference whose direction is compared."""
    geometry_tol: Annotated[float, Flag(COMPARISON)] = Field(default=0.01, gt=0)
    """Structures whose cells and positions differ by less (Å) are one crystal in different magnetic states."""
    relax_moments: Annotated[bool, Flag(COMPARISON, names=("--relax-moments",))] = False
    """Compare energies, forces and moments also at the model's own moments, relaxed at fixed atoms: for data without
    constrained moments."""
    batch_size: Annotated[int, Flag(MACHINE)] = Field(default=16, ge=1)
    """Structures per batch."""
    executor: ExecutorChoice = None
    report: Annotated[bool, Flag()] = True
    """Write everything as one page, `report.html`."""
