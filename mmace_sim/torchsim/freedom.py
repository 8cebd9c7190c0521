"""What may move in a relaxation of magnetic structures, and what the optimisers share."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.optimizers import OptimState
from torch_sim.state import SimState

from mmace_sim.base.devices import uploaded
from mmace_sim.base.quantities import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS
from mmace_sim.torchsim.trial import CountedState, trial_state

FREE_MOMENTS: str = "free_moments"
"""Atom extra of a state that says which moments may change; without it, all may."""

FREE_STRAINS: str = "free_strains"
"""System extra of a state, (n_systems, 3, 3), that is 1 where the strain of the cell may change and 0 where not;
without it, all of a crystal's may and none of others."""

MAX_PROBES: int = 12
"""Evaluations of the model that the curvature of the moments of a system may take."""

_NO_AXIS = 1e-3
"""Moments below this (μB) have no axis of their own."""


@dataclass(frozen=True)
class DegreesOfFreedom:
    """What may move.

    Attributes:
        relax_positions: Atoms move.
        relax_cell: The cell changes (of periodic structures).
        relax_moments: Moments change.
        collinear: Moments keep their axis.
        fix_magnitude: Moments keep their length.
    """

    relax_positions: bool = True
    relax_cell: bool = True
    relax_moments: bool = True
    collinear: bool = False
    fix_magnitude: bool = False

    @property
    def evaluation(self) -> dict[str, bool]:
        """Keywords that leave out of evaluations what no step needs (see `complete`)."""
        if not self.relax_moments:
            return {"fixed_moments": True}
        return {} if self.relax_positions or self.relax_cell else {"moments_only": True}


@dataclass(kw_only=True)
class MagneticOptimState(CountedState, OptimState):
    """What the states of all our optimisers hold.

    Attributes:
        moment_axes: Unit vectors that collinear moments keep, shape (n_atoms, 3); zero if they are not.
        moment_lengths: Lengths that moments of fixed magnitude keep, in μB, shape (n_atoms,).
        n_steps: Steps taken by each system.
        energy_initial: Energy before the first step, in eV.
        reference_volume: Volume before the first step, in Å³.
        freedom: What may move; one setting for the whole batch.
        probe_basis: Orthonormal changes of moments along which :mod:`mmace_sim.torchsim.curvature` has looked, shape
            (n_atoms, MAX_PROBES + 1, 3); zero where empty.
        probe_matrix: ∂²E/∂m∂m between them, in eV/μB², shape (n_systems, MAX_PROBES, MAX_PROBES).
        probe_rest: What the last response has outside of them, in eV/μB²; infinite before the first.
        n_probes: How many directions were looked along.
        n_pushes: How often the moments were pushed off a saddle point.
        saddle_energy: Energy at the last saddle point that was left, in eV; NaN without any.
    """

    moment_axes: Tensor
    moment_lengths: Tensor
    n_steps: Tensor
    energy_initial: Tensor
    reference_volume: Tensor
    freedom: DegreesOfFreedom
    probe_basis: Tensor
    probe_matrix: Tensor
    probe_rest: Tensor
    n_probes: Tensor
    n_pushes: Tensor
    saddle_energy: Tensor

    _atom_attributes: ClassVar[set[str]] = OptimState._atom_attributes | {
        "moment_axes",
        "moment_lengths",
        "probe_basis",
    }
    _system_attributes: ClassVar[set[str]] = OptimState._system_attributes | {
        "n_steps",
        "energy_initial",
        "reference_volume",
        "probe_matrix",
        "probe_rest",
        "n_probes",
        "n_pushes",
        "saddle_energy",
    }
    _global_attributes: ClassVar[set[str]] = OptimState._global_attributes | {"freedom"}

    def moment_forces(self) -> Tensor:
        """Magforces without the components that constraints forbid, in eV/μB."""
        return self.allowed(getattr(self, TORCHSIM_MAGFORCES), getattr(self, TORCHSIM_MAGMOMS))

    def allowed(
        self, magforces: Float[Tensor, "n_atoms 3"], magmoms: Float[Tensor, "n_atoms 3"]
    ) -> Float[Tensor, "n_atoms 3"]:
        """What constraints leave of magforces at given moments.

        Args:
            magforces: In eV/μB.
            magmoms: In μB.
        """
        if not self.freedom.relax_moments:
            return torch.zeros_like(magforces)
        return self.within_constraints(magforces, magmoms)

    def within_constraints(
        self, magforces: Float[Tensor, "n_atoms 3"], magmoms: Float[Tensor, "n_atoms 3"]
    ) -> Float[Tensor, "n_atoms 3"]:
        """What masks, axes and lengths leave of magforces at given moments, whoever moves the moments.

        Args:
            magforces: In eV/μB.
            magmoms: In μB.
        """
        if FREE_MOMENTS in self.atom_extras:
            magforces = torch.where(getattr(self, FREE_MOMENTS)[:, None], magforces, 0.0)
        if self.freedom.collinear:
            magforces = (magforces * self.moment_axes).sum(-1, keepdim=True) * self.moment_axes
        return perpendicular(magforces, magmoms) if self.freedom.fix_magnitude else magforces

    def strain_forces(self) -> Tensor:
        """−V σ of each system, in eV, shape (n_systems, 3, 3); zero where the cell is fixed."""
        free = self.system_extras.get(FREE_STRAINS)
        if not self.freedom.relax_cell:
            return torch.zeros_like(self.stress)
        stress = self.stress.clone()
        for constraint in self.constraints:
            constraint.adjust_stress(self, stress)
        strain_forces = -torch.linalg.det(self.cell).abs()[:, None, None] * stress
        return strain_forces * (self.pbc.all() if free is None else free)

    def moved_moments(self, change: Float[Tensor, "n_atoms 3"]) -> Float[Tensor, "n_atoms 3"]:
        """Moments after a change, at their lengths if these are fixed, in μB; masked ones exactly as they were.

        Args:
            change: In μB.
        """
        before = getattr(self, TORCHSIM_MAGMOMS)
        magmoms = before + change
        if self.freedom.fix_magnitude:
            length = torch.linalg.norm(magmoms, dim=1).clamp(min=1e-30)
            magmoms = magmoms * (self.moment_lengths / length)[:, None]
        if FREE_MOMENTS in self.atom_extras:
            magmoms = torch.where(getattr(self, FREE_MOMENTS)[:, None], magmoms, before)
        return magmoms


def shared_fields(
    state: SimState, out: dict[str, Tensor], freedom: DegreesOfFreedom | None
) -> dict[str, Any]:
    """Fields of a `MagneticOptimState` before the first step.

    Args:
        state: State with moments.
        out: Energy, forces and stress there.
        freedom: What may move; everything by default.

    Returns:
        Arguments of the state besides those that come from `state`.
    """
    magmoms, freedom = getattr(state, TORCHSIM_MAGMOMS), freedom or DegreesOfFreedom()
    n = len(state.cell)
    return {
        "forces": out["forces"],
        "energy": out["energy"],
        "stress": out["stress"],
        "moment_axes": _axes(magmoms, state.system_idx, n)
        if freedom.collinear
        else torch.zeros_like(magmoms),
        "moment_lengths": torch.linalg.norm(magmoms, dim=1),
        "n_steps": torch.zeros(n, dtype=torch.int32, device=state.device),
        "energy_initial": out["energy"].clone(),
        "reference_volume": torch.linalg.det(state.cell).abs(),
        "freedom": freedom,
        "n_pushes": torch.zeros(n, dtype=torch.int32, device=state.device),
        "saddle_energy": torch.full_like(out["energy"], float("nan")),
        **no_probes(state),
    }


def no_probes(state: SimState) -> dict[str, Tensor]:
    """Fields of a `MagneticOptimState` whose curvature nobody has looked at."""
    like, n = state.positions, len(state.cell)
    return {
        "probe_basis": like.new_zeros(state.n_atoms, MAX_PROBES + 1, 3),
        "probe_matrix": like.new_zeros(n, MAX_PROBES, MAX_PROBES),
        "probe_rest": like.new_full((n,), float("inf")),
        "n_probes": torch.zeros(n, dtype=torch.int64, device=state.device),
    }


def with_moments(state: SimState, magmoms: Float[Tensor, "n_atoms 3"]) -> SimState:
    """A plain state at other moments.

    Args:
        state: Any state; constraints and momenta are left out.
        magmoms: In μB.
    """
    return trial_state(state, magmoms)


def complete(state: MagneticOptimState, model: ModelInterface, systems: list[int]) -> None:
    """Forces, stress and magforces of systems whose last steps gave a part of them alone, in place.

    Args:
        state: State of an optimiser.
        model: Model that gives energy, forces, stress and magforces.
        systems: Numbers of the systems, ascending.
    """
    if not systems:
        return
    chosen = torch.zeros(len(state.cell), dtype=torch.bool, device=state.device)
    chosen[uploaded(np.array(systems), state.device)] = True
    out = model(with_moments(state, getattr(state, TORCHSIM_MAGMOMS)), systems=systems)
    rows, magforces = chosen[state.system_idx, None], getattr(state, TORCHSIM_MAGFORCES)
    state.set_constrained_forces(torch.where(rows, out["forces"], state.forces))
    state.stress = torch.where(chosen[:, None, None], out["stress"], state.stress)
    state.store_model_extras({TORCHSIM_MAGFORCES: torch.where(rows, out[TORCHSIM_MAGFORCES], magforces)})


def perpendicular(vectors: Tensor, magmoms: Tensor) -> Tensor:
    """Components of vectors that leave the lengths of moments alone; none where there is no moment."""
    square = (magmoms * magmoms).sum(-1, keepdim=True)
    along = (vectors * magmoms).sum(-1, keepdim=True) / square.clamp(min=1e-20)
    return torch.where(square > 1e-20, vectors - along * magmoms, 0.0)


def largest_per_system(vectors: Tensor, state: SimState) -> Tensor:
    """Length of the longest vector of each system."""
    lengths = torch.linalg.norm(vectors, dim=1)
    zeros = lengths.new_zeros(len(state.cell))
    return zeros.scatter_reduce(0, state.system_idx, lengths, "amax", include_self=True)


def _axes(magmoms: Tensor, system_idx: Tensor, n_systems: int) -> Tensor:
    """The axis of each moment; of vanishing ones, that of their system: the leading eigenvector of Σ m mᵀ, or z."""
    outer = magmoms[:, :, None] * magmoms[:, None, :]
    moment = magmoms.new_zeros(n_systems, 3, 3).index_add(0, system_idx, outer)
    tilt = magmoms.new_zeros(3, 3)
    tilt[2, 2] = 1e-12
    common = torch.linalg.eigh(moment + tilt)[1][:, :, -1][system_idx]
    lengths = torch.linalg.norm(magmoms, dim=1, keepdim=True)
    return torch.where(lengths > _NO_AXIS, magmoms / lengths.clamp(min=_NO_AXIS), common)
