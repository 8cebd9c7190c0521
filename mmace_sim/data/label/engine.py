"""What an engine is: writes the inputs of a calculation, runs it, and reads its labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.data.label.calculation import Calculation
from mmace_sim.data.label.outcome import Failure
from mmace_sim.data.label.settings import LabelSettings
from mmace_sim.errors import ConfigError, MmaceError

ENTRY_POINT_GROUP: str = "mmace_sim.engines"
"""Entry points of this group take `LabelSettings` and give an `Engine`: other packages add engines by them."""

MODEL = "model:"
"""Before the name of a model that is the engine."""

_OWN: dict[str, str] = {
    "gpaw": "mmace_sim.data.label.engines.gpaw:GpawEngine",
    "abinit": "mmace_sim.data.label.engines.abinit:AbinitEngine",
    "vasp": "mmace_sim.data.label.engines.vasp:VaspEngine",
    "abacus": "mmace_sim.data.label.engines.abacus:AbacusEngine",
    "qe": "mmace_sim.data.label.engines.espresso:EspressoEngine",
}
"""Where our engines are."""


class EngineError(MmaceError, RuntimeError):
    """A calculation gave no labels."""


class NotConvergedError(EngineError):
    """Another try with other mixing may help."""


class MissingOutputError(EngineError):
    """Nothing has been computed yet, or it is not finished."""


@dataclass(frozen=True)
class Labels:
    """What a calculation gave.

    Attributes:
        energy: Energy of the cell without any penalty, in eV.
        magmoms: Moments that were reached, in μB.
        forces: −∂E/∂r, in eV/Å; None if the engine has none that can be trusted.
        stress: (1/V) ∂E/∂ε, in eV/Å³, tension positive; None if there is none.
        magforces: −∂E/∂m at these moments, in eV/μB; None if they are not known.
        info: What else to write beside them: version, settings that matter, ...
    """

    energy: float
    magmoms: Float[np.ndarray, "n_atoms 3"]
    forces: Float[np.ndarray, "n_atoms 3"] | None = None
    stress: Float[np.ndarray, "3 3"] | None = None
    magforces: Float[np.ndarray, "n_atoms 3"] | None = None
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Limits:
    """What a calculation may use.

    Attributes:
        timeout: Wall time, in seconds.
    """

    timeout: float


class Engine(Protocol):
    """One code, with the settings of a run.

    Attributes:
        name: Its name.
        moment_kind: What its moments are, such as "PAW sphere".
        energy_kind: What its energies are, such as "free energy".
        moment_tol: Largest distance (μB) of held moments from their targets at which labels are as good as ever.
        attempts: How often a calculation that does not converge is tried, each time with other mixing.
        keeps: Patterns of the names of files that stay; all are text.
    """

    name: str
    moment_kind: str
    energy_kind: str
    moment_tol: float
    attempts: int
    keeps: Sequence[str]

    def refuse(self, calculation: Calculation) -> str:
        """Why it cannot compute this, and what could; "" if it can."""

    def write(self, calculation: Calculation, folder: Path, attempt: int = 0) -> None:
        """Write all inputs."""

    def script(self, folder: Path) -> None:
        """Write ``run.sh`` and all that it needs to run what was written on another machine."""

    def run(self, folder: Path, limits: Limits) -> None:
        """Run what was written; raises `EngineError` if it fails or takes too long."""

    def collect(self, calculation: Calculation, folder: Path) -> Labels:
        """Read the labels; raises `EngineError` if there are none."""


@runtime_checkable
class BatchEngine(Protocol):
    """An engine that computes all at once and writes no files."""

    name: str
    moment_kind: str
    energy_kind: str
    moment_tol: float

    def refuse(self, calculation: Calculation) -> str:
        """Why it cannot compute this, and what could; "" if it can."""

    def compute(
        self,
        calculations: Sequence[Calculation],
        store: Callable[[Calculation, Labels | EngineError], None],
    ) -> None:
        """Compute all, and hand over each as soon as it is finished."""


class MissingProgramError(ConfigError):
    """A code that runs on clusters is not on this machine; the message begins with its name and a colon."""


def load_engine(settings: LabelSettings) -> Engine | BatchEngine:
    """The engine of a run.

    Raises:
        ConfigError: If there is none of that name, or it cannot work as it is set up.
        ModelFileError: If a model cannot be loaded.
    """
    name = settings.engine
    if name.startswith(MODEL):
        from mmace_sim.data.label.engines.model import ModelEngine

        return ModelEngine(settings)
    if name in _OWN:
        module, _, kind = _OWN[name].partition(":")
        return getattr(import_module(module), kind)(settings)
    others = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in others:
        known = ", ".join([*_OWN, *others, f"{MODEL}FILE"])
        raise ConfigError(f"--engine {name}: there is no such engine; choose {known}.")
    return others[name].load()(settings)


def refusals(engine: Engine | BatchEngine, calculations: Sequence[Calculation]) -> list[Failure]:
    """What an engine cannot compute, with the reasons.

    Args:
        engine: The engine.
        calculations: What is asked for.
    """
    reasons = [(calculation, engine.refuse(calculation)) for calculation in calculations]
    return [Failure(c.config_id, reason, c.index) for c, reason in reasons if reason]


def mesh_name(counts: Sequence[int]) -> str:
    """A mesh of k points around Γ, as frames tell it.

    Args:
        counts: Numbers of points, from `k_points`.
    """
    return "x".join(map(str, counts)) + " gamma"


def k_points(atoms: Atoms, length: float) -> tuple[int, int, int]:
    """Numbers of k points of a mesh of the same density for all cells.

    Args:
        atoms: Structure.
        length: Their density, in Å: number of points times spacing of lattice planes.

    Returns:
        One number for each axis; 1 where the structure is not periodic.
    """
    spacing = np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
    counts = [max(1, round(length * float(b))) if p else 1 for b, p in zip(spacing, atoms.pbc, strict=True)]
    return counts[0], counts[1], counts[2]
