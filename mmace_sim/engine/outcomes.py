"""How the relaxation of a structure ended: status, numbers, and what the curvature of its moments says."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from ase import Atoms
from jaxtyping import Float
from torch import Tensor

from mmace_sim.torchsim.curvature import FLAT


class Status(StrEnum):
    """How a relaxation ended."""

    CONVERGED = "converged"
    SADDLE = "saddle"
    MAX_STEPS = "max_steps"
    UNCERTAIN = "uncertain"
    RUNAWAY = "runaway"
    NON_FINITE = "non_finite"
    FAILED = "failed"


UNUSABLE: frozenset[Status] = frozenset({Status.RUNAWAY, Status.NON_FINITE, Status.FAILED})
"""Statuses without a result."""

STATIONARY: frozenset[Status] = frozenset({Status.CONVERGED, Status.SADDLE})
"""Statuses of what is at rest."""


@dataclass(frozen=True)
class Curvature:
    """The lowest eigenvalue of ∂²E/∂m∂m within the constraints; common rotations that cost nothing are left out.

    Attributes:
        values: Ritz values in ascending order, in eV/μB²: each at least the eigenvalue of its rank; all different
            eigenvalues if there are few.
        error: Some eigenvalue is within this distance of the lowest value, in eV/μB².
        noise: What the rest of the magforces and the differences may contribute, in eV/μB².
        direction: Change of the moments that the lowest value belongs to, of length 1 over all atoms.
    """

    values: Float[np.ndarray, " n"]
    error: float
    noise: float
    direction: Float[np.ndarray, "n_atoms 3"]

    @property
    def lowest(self) -> float:
        """The lowest one, in eV/μB²."""
        return float(self.values[0])

    @property
    def is_stable(self) -> bool:
        """Whether no direction goes downhill."""
        return self.lowest > -max(FLAT * float(np.abs(self.values).max()), self.noise)

    def describe(self, magmoms: Float[np.ndarray, "n_atoms 3"]) -> str:
        """The lowest direction in words.

        Args:
            magmoms: Moments that it belongs to, in μB.
        """
        lengths = np.linalg.norm(magmoms, axis=1, keepdims=True)
        axes = np.where(lengths > 0.05, magmoms / lengths.clip(min=1e-12), 0.0)
        along = float(((self.direction * axes).sum(axis=1) ** 2).sum())
        alone = float((self.direction[lengths[:, 0] <= 0.05] ** 2).sum())
        if alone > 0.5:
            return "moments that are zero grow"
        return "moments change their lengths" if along > 0.5 else "moments turn"


@dataclass
class StructureResult:
    """Outcome for one structure.

    Attributes:
        atoms: Relaxed structure, moments in ``initial_magmoms``; results on a ``SinglePointCalculator``. The structure
            as it was given if it failed before the first step or ran away.
        initial_atoms: Structure as it was given.
        status: How the relaxation ended.
        message: What to know or do; empty if all is well.
        steps: Number of steps.
        energy: Energy of the cell, in eV; NaN if there is none.
        energy_initial: Energy before the first step, in eV.
        magforces: −∂E/∂m, shape (n_atoms, 3), in eV/μB.
        max_force: Largest force on atoms that are not fixed, in eV/Å, also if positions did not relax.
        max_stress: Largest component of the stress, in GPa, also if the cell did not relax; NaN if the structure has no
            volume (a molecule, a slab), unless a part of its cell relaxed, whose stress it then is.
        max_magforce: Largest magforce that the constraints leave, in eV/μB, also if moments did not relax.
        curvature: Of the energy with respect to the moments; None if it was not looked at, or nothing may move.
        n_pushes: How often the moments were pushed off a saddle point.
        saddle_energy: Energy of the cell at the last one, in eV; NaN without any.
    """

    atoms: Atoms
    initial_atoms: Atoms
    status: Status
    message: str = ""
    steps: int = 0
    energy: float = float("nan")
    energy_initial: float = float("nan")
    magforces: np.ndarray | None = None
    max_force: float = float("nan")
    max_stress: float = float("nan")
    max_magforce: float = float("nan")
    curvature: Curvature | None = None
    n_pushes: int = 0
    saddle_energy: float = float("nan")


@dataclass
class RelaxResult:
    """Outcomes in the order of the structures."""

    results: list[StructureResult]

    @property
    def atoms(self) -> list[Atoms]:
        """Relaxed structures."""
        return [r.atoms for r in self.results]

    @property
    def n_converged(self) -> int:
        """Number of structures that converged, to a minimum or to a saddle point."""
        return sum(r.status in STATIONARY for r in self.results)

    def __iter__(self) -> Iterator[StructureResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> StructureResult:
        return self.results[index]


@dataclass
class RelaxProgress:
    """State of a running relaxation: steps of the batch and numbers of structures."""

    step: int
    n_total: int
    n_finished: int
    n_active: int


@dataclass(frozen=True)
class Plan:
    """What happens next to the systems of a batch: a boolean for each.

    Attributes:
        probed: At rest, and their curvature is not yet known.
        pushed: At a saddle point that they shall leave.
        done: At rest, and nothing is left to do.
        saddle: Their energy curves down.
    """

    probed: Tensor
    pushed: Tensor
    done: Tensor
    saddle: Tensor


def status_of(finite: bool, gone: bool, done: bool, saddle: bool, late: bool) -> Status | None:
    """Status of a system; None if it goes on.

    Args:
        finite: Its numbers are.
        gone: It has run away.
        done: Nothing is left to do.
        saddle: Its energy curves down.
        late: It has no steps left.
    """
    if not finite:
        return Status.NON_FINITE
    if gone:
        return Status.RUNAWAY
    if done:
        return Status.SADDLE if saddle else Status.CONVERGED
    return Status.MAX_STEPS if late else None
