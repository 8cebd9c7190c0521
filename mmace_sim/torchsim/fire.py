"""FIRE over positions, cell and magnetic moments of many structures at once, as a TorchSim optimiser.

``ts.optimize(state, model, optimizer=(magnetic_fire_init, magnetic_fire_step))`` works; :func:`mmace_sim.relax` adds
convergence per structure, failures per structure and batches that refill.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from mmace_sim.base.quantities import TORCHSIM_MAGMOMS
from mmace_sim.torchsim.directions import FixDirections
from mmace_sim.torchsim.freedom import (
    DegreesOfFreedom,
    MagneticOptimState,
    largest_per_system,
    shared_fields,
)
from mmace_sim.torchsim.trial import small_exponential, trial_state

__all__ = [
    "MIXING",
    "SLOWING",
    "DegreesOfFreedom",
    "MagneticFireState",
    "largest_per_system",
    "magnetic_fire_init",
    "magnetic_fire_step",
]

MIXING: float = 0.2
"""FIRE's mixing parameter in relaxations: with this and its first time step, tolerances that are right to 0.05
meV/atom and 0.01 μB take as many steps as ten times looser ones with ASE's values."""

SLOWING: float = 0.8
"""What FIRE's time step becomes after a step uphill. ASE's 0.5 takes a third more steps, from pairs of atoms to
interstitials and slabs; 0.9 is better still for two atoms and worse for 54."""

MOMENT_SCALE: float = 0.2
"""Å per μB: moments enter FIRE as this multiple of themselves, which gives them the stiffness of positions."""


@dataclass(kw_only=True)
class MagneticFireState(MagneticOptimState):
    """State of the optimiser.

    Attributes:
        velocities: Of positions and scaled moments, shape (n_atoms, 6).
        cell_velocities: Of the symmetric strain times the number of atoms, shape (n_systems, 3, 3).
        dt: Time step of each system.
        alpha: Mixing parameter of each system.
        n_pos: Steps downhill in a row of each system.
    """

    velocities: Tensor
    cell_velocities: Tensor
    dt: Tensor
    alpha: Tensor
    n_pos: Tensor

    _atom_attributes: ClassVar[set[str]] = MagneticOptimState._atom_attributes | {"velocities"}
    _system_attributes: ClassVar[set[str]] = MagneticOptimState._system_attributes | {
        "cell_velocities",
        "dt",
        "alpha",
        "n_pos",
    }

    def atom_forces(self) -> Tensor:
        """Generalised forces on positions and scaled moments, shape (n_atoms, 6)."""
        forces = self.forces if self.freedom.relax_positions else torch.zeros_like(self.forces)
        return torch.cat([forces, self.moment_forces() / MOMENT_SCALE], dim=1)


def magnetic_fire_init(
    state: SimState,
    model: ModelInterface,
    *,
    dt_start: float = 0.1,
    alpha_start: float = 0.1,
    freedom: DegreesOfFreedom | None = None,
    **_kwargs: Any,
) -> MagneticFireState:
    """Evaluate the model once and prepare the optimiser.

    Args:
        state: State with moments.
        model: Model that gives energy, forces, stress and magforces.
        dt_start: First time step.
        alpha_start: First mixing parameter.
        freedom: What may move; everything by default.
    """
    out = model(state)
    n = state.n_systems

    def per_system(value: float) -> Tensor:
        return torch.full((n,), value, dtype=state.dtype, device=state.device)

    fire = MagneticFireState.from_state(
        state,
        velocities=state.positions.new_zeros(state.n_atoms, 6),
        cell_velocities=torch.zeros_like(state.cell),
        dt=per_system(dt_start),
        alpha=per_system(alpha_start),
        n_pos=per_system(0).int(),
        **shared_fields(state, out, freedom),
    )
    fire.store_model_extras(out)
    return fire


def magnetic_fire_step(
    state: MagneticFireState,
    model: ModelInterface,
    *,
    dt_max: float = 1.0,
    n_min: int = 5,
    f_inc: float = 1.1,
    f_dec: float = 0.5,
    alpha_start: float = 0.1,
    f_alpha: float = 0.99,
    max_step: float = 0.2,
    active: Tensor | None = None,
    evaluation: dict[str, Any] | None = None,
    **_kwargs: Any,
) -> MagneticFireState:
    """One FIRE step of every system, each with its own time step and mixing.

    The coordinates are the positions, the moments times :data:`MOMENT_SCALE` and the symmetric strain times the
    number of atoms; a strain carries the atoms along and leaves moments alone. With cell and moments fixed this is
    ASE's FIRE, step by step.

    Args:
        state: State of the optimiser; changed only after the model has been evaluated.
        model: Model that gives energy, forces, stress and magforces; forces and stress stay what they were if it gives
            none.
        dt_max: Largest time step.
        n_min: Steps downhill before the time step grows.
        f_inc: Growth of the time step.
        f_dec: Shrinkage of the time step after a step uphill.
        alpha_start: Mixing after a step uphill.
        f_alpha: Shrinkage of the mixing.
        max_step: Largest length of a step over all coordinates of a system, in Å.
        active: Systems that move, all by default; the others stay exactly as they are.
        evaluation: Keywords of the evaluation.

    References:
        Bitzek et al., 10.1103/PhysRevLett.97.170201; the variant of ase.optimize.FIRE.
    """
    idx = state.system_idx
    n_atoms = state.n_atoms_per_system.to(state.dtype)[:, None, None]
    forces, cell_forces = state.atom_forces(), state.strain_forces() / n_atoms
    v, cv = state.velocities, state.cell_velocities

    def dot(a: Tensor, ca: Tensor, b: Tensor, cb: Tensor) -> Tensor:
        return (ca * cb).sum(dim=(1, 2)).index_add(0, idx, (a * b).sum(dim=1))

    downhill = dot(forces, cell_forces, v, cv) > 0
    norm_f, norm_v = dot(forces, cell_forces, forces, cell_forces).sqrt(), dot(v, cv, v, cv).sqrt()
    keep = torch.where(downhill, 1.0 - state.alpha, 0.0)
    steer = torch.where(downhill, state.alpha * norm_v / norm_f.clamp(min=1e-30), 0.0)
    grow = downhill & (state.n_pos > n_min)
    shrink = ~downhill & (norm_v > 0)  # what is at rest has not gone uphill
    dt = torch.where(
        grow, (state.dt * f_inc).clamp(max=dt_max), torch.where(shrink, state.dt * f_dec, state.dt)
    )
    alpha = torch.where(grow, state.alpha * f_alpha, torch.where(shrink, alpha_start, state.alpha))

    v = keep[idx, None] * v + (steer + dt)[idx, None] * forces
    cv = keep[:, None, None] * cv + (steer + dt)[:, None, None] * cell_forces
    step, cell_step = dt[idx, None] * v, dt[:, None, None] * cv
    length = dot(step, cell_step, step, cell_step).sqrt()
    factor = (max_step / length.clamp(min=1e-30)).clamp(max=1.0)
    moving = torch.ones_like(downhill) if active is None else active
    factor = torch.where(moving, factor, 0.0)
    trial = _moved(state, step * factor[idx, None], cell_step * factor[:, None, None] / n_atoms)

    out = model(trial, **(evaluation or {}))
    state.positions, state.cell = trial.positions, trial.cell
    setattr(state, TORCHSIM_MAGMOMS, getattr(trial, TORCHSIM_MAGMOMS))
    state.velocities, state.cell_velocities, state.dt, state.alpha = v, cv, dt, alpha
    state.n_pos = torch.where(downhill, state.n_pos + 1, 0)
    state.n_steps = state.n_steps + moving.int()
    state.energy, state.stress = out["energy"], out.get("stress", state.stress)
    if "forces" in out:
        state.set_constrained_forces(out["forces"])
    state.store_model_extras(out)
    return state


def stop(state: MagneticFireState, chosen: Bool[Tensor, " n_systems"], *, dt_start: float = 0.1) -> None:
    """Put systems at rest, in place, as they were before the first step.

    Args:
        state: State of the optimiser.
        chosen: Systems.
        dt_start: Their time step.
    """
    state.velocities = torch.where(chosen[state.system_idx, None], 0.0, state.velocities)
    state.cell_velocities = torch.where(chosen[:, None, None], 0.0, state.cell_velocities)
    state.dt = torch.where(chosen, dt_start, state.dt)
    state.n_pos = torch.where(chosen, 0, state.n_pos)


def _moved(state: MagneticFireState, step: Tensor, strain: Tensor) -> SimState:
    """A plain state after a displacement of positions and scaled moments and a strain of the cell."""
    idx = state.system_idx
    shift = step[:, :3].clone()
    for constraint in state.constraints:
        constraint.adjust_forces(state, shift)
    deformation = small_exponential(0.5 * (strain + strain.mT))
    for constraint in state.constraints:
        if isinstance(constraint, FixDirections):  # along lattice vectors, which turn with the cell
            atoms = constraint.atom_idx[constraint.follows_cell]
            shift[atoms] = torch.einsum("nij,nj->ni", deformation[idx[atoms]], shift[atoms])
    positions = torch.einsum("nij,nj->ni", deformation[idx], state.positions) + shift
    magmoms = state.moved_moments(step[:, 3:] / MOMENT_SCALE)
    return trial_state(state, magmoms, positions=positions, cell=deformation @ state.cell)
