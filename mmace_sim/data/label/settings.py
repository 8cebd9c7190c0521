"""Settings of ``mmace-sim label``."""

from typing import Annotated, Any, Literal

from pydantic import Field

from mmace_sim.base.settings import MACHINE, MOMENTS, Flag, Settings
from mmace_sim.engine.settings import Start
from mmace_sim.executors.interface import ExecutorChoice
from mmace_sim.structures import moment_words

DFT = "Calculation"

HELP = """Compute energy, forces, stress and magnetic forces of CANDIDATES by DFT, with their moments held.

Engines: **gpaw** and **abinit** run here; **vasp**, **abacus** and **qe** write inputs (`--write-only`) and read what a
cluster has computed (`--collect`); **model:FILE** asks a magnetic model. Every calculation is checked (converged?
moments reached? the state that was asked for?), tried again with other mixing, and listed with the reason if it fails.

Each atom keeps its moment if the candidate's `hold_moment` says so; without that array, all moments above 0.01 μB are
held. Candidates without moments are computed without spin.

Writes `labelled.extxyz`, `failures.jsonl`, `summary.json`, `log.txt` and `calculations/ID/` to one folder, and checks
the data at the end. Exit code 3 if anything failed, or the data must not be trained on as they are.

Examples: `mmace-sim label candidates.extxyz --engine gpaw -o batch1`;
`mmace-sim label candidates.extxyz --engine vasp --write-only -o batch1`, then `mmace-sim label --collect -o batch1`.
"""

NOT_PHYSICS: frozenset[str] = frozenset(
    {"candidates", "output", "write_only", "collect", "retry_failed", "timeout", "max_atoms", "command", "gpaw_python",
     "device", "executor"}
)  # fmt: skip
"""Settings that may differ when a run is resumed: they change no label."""


class LabelSettings(Settings):
    """Everything that decides the labels."""

    candidates: Annotated[list[str], Flag(metavar="CANDIDATES", argument=True)] = Field(default_factory=list)
    """Structures with moments, in any format: extended XYZ of `data propose`, CIF, POSCAR, ..."""
    output: Annotated[str, Flag(metavar="DIR", names=("--output", "-o"))] = "label"
    """Folder of the run."""
    engine: Annotated[str, Flag(metavar="NAME|model:FILE", names=("--engine", "-e"))] = "gpaw"
    """What computes: gpaw, abinit, vasp, abacus, qe, an engine of another package, or model:FILE."""
    write_only: Annotated[bool, Flag(names=("--write-only",))] = False
    """Write one folder with inputs and a run script for each calculation, and compute nothing."""
    collect: Annotated[bool, Flag(names=("--collect",))] = False
    """Read what is finished of the calculations that `--write-only` wrote, and list what is missing. Without CANDIDATES
    they are those of the folder."""
    retry_failed: Annotated[bool, Flag(names=("--retry-failed",))] = False
    """With `--resume`, compute again what failed."""
    initial_magmoms: Annotated[
        Start, Flag(MOMENTS, metavar="START", shown="those of the file, else none")
    ] = Field(default=None, description=moment_words.HELP)
    hold: Annotated[Literal["file", "all", "none"], Flag(MOMENTS)] = "file"
    """Which moments are held. **file**: as the candidate's array `hold_moment` says, else all above 0.01 μB that are of
    the file. **none**: all are a start and follow."""
    moment_tol: Annotated[float | None, Flag(MOMENTS, unit="μB", shown="that of the engine")] = Field(
        default=None, gt=0
    )
    """Largest distance of a held moment from its target."""
    stiffness: Annotated[float, Flag(MOMENTS, unit="eV/μB²")] = Field(default=2.0, gt=0)
    """Strength of the penalty that holds moments (GPAW, VASP, Quantum ESPRESSO), above −∂²E/∂m² (iron: 0.5)."""
    cutoff: Annotated[float | None, Flag(DFT, unit="eV", shown="that of the engine")] = Field(
        default=None, gt=0
    )
    """Plane-wave cutoff, the same for all frames."""
    k_length: Annotated[float, Flag(DFT, unit="Å")] = Field(default=22.64, gt=0)
    """Density of k points: along each axis this length times the reciprocal vector without 2π, Γ-centred."""
    smearing: Annotated[float, Flag(DFT, unit="eV")] = Field(default=0.2721, gt=0)
    """Width of the Gaussian smearing."""
    potentials: Annotated[str | None, Flag(DFT, metavar="DIR", shown="those that the engine finds")] = None
    """Folder of pseudopotentials or PAW sets."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further keys of the input of the engine, which win over what is written otherwise."""
    timeout: Annotated[float, Flag(MACHINE, unit="s")] = Field(default=7200.0, gt=0)
    """Time limit of one calculation."""
    max_atoms: Annotated[int | None, Flag(MACHINE, shown="none")] = Field(default=None, ge=1)
    """Candidates with more atoms are refused."""
    command: Annotated[str | None, Flag(MACHINE, shown="that of the engine")] = None
    """How the code is started, such as `mpirun -n 8 vasp_ncl`."""
    gpaw_python: Annotated[str | None, Flag(MACHINE, metavar="FILE", shown="this one")] = None
    """Python interpreter of the environment that has GPAW."""
    executor: ExecutorChoice = None
    device: Annotated[str | None, Flag(MACHINE, metavar="cpu|cuda", shown="a GPU if there is one")] = None
    """Where a model computes."""

    def check_given(self, given: frozenset[str]) -> None:
        """Refuse what contradicts itself or would have no effect.

        Args:
            given: Names of settings that were given on the command line.

        Raises:
            ConfigError: If there is such a setting.
        """
        from mmace_sim.errors import ConfigError

        if self.write_only and self.collect:
            raise ConfigError("--write-only and --collect contradict each other: first write, then collect.")
        if self.engine.startswith("model:"):
            self.refuse_idle(
                ("cutoff", "potentials", "command", "gpaw_python", "moment_tol"), "with a model", given
            )
