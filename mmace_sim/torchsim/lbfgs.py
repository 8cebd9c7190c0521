"""L-BFGS over the magnetic moments of many structures at once, as a TorchSim optimiser.

Every system has its own history, length of step and acceptance, so that it takes the same path alone and in a batch.
``ts.optimize(state, model, optimizer=(moment_lbfgs_init, moment_lbfgs_step))`` works;
:class:`mmace_sim.properties.moments.MomentSearch` adds convergence, failures and statistics.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from mmace_sim.base.quantities import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS
from mmace_sim.torchsim.freedom import (
    DegreesOfFreedom,
    MagneticOptimState,
    largest_per_system,
    perpendicular,
    shared_fields,
    with_moments,
)
from mmace_sim.torchsim.quasi_newton import (
    FIRST_SOFTNESS,
    MEMORY,
    dot_per_system,
    newton_step,
    remember,
)
from mmace_sim.torchsim.trial import CountedState, solver_state

MAX_CHANGE: float = 0.5
"""Largest change of a moment in one step, in μB."""

_ARMIJO = 1e-4
_MAX_REJECTED = 4  # in a row, before the history is forgotten
_TINY = 1e-30
_NOISE = 50.0  # units of the last place of the energy


@dataclass(kw_only=True)
class MomentLbfgsState(MagneticOptimState):
    """State of the optimiser: the last accepted moments, and the direction of the next trial.

    Attributes:
        direction: Change of the moments at full length, in μB, shape (n_atoms, 3).
        changes: Last changes of the moments, the latest first, in μB, shape (n_atoms, MEMORY, 3); zero where empty.
        responses: What they took from the magforces, in eV/μB, same shape.
        fraction: Fraction of `direction` that is tried next.
        stretch: Factor on steps where the energy curves down.
        n_rejected: Trials refused in a row.
    """

    direction: Tensor
    changes: Tensor
    responses: Tensor
    fraction: Tensor
    stretch: Tensor
    n_rejected: Tensor

    _atom_attributes: ClassVar[set[str]] = MagneticOptimState._atom_attributes | {
        "direction",
        "changes",
        "responses",
    }
    _system_attributes: ClassVar[set[str]] = MagneticOptimState._system_attributes | {
        "fraction",
        "stretch",
        "n_rejected",
    }

    def dot(
        self, a: Float[Tensor, "n_atoms ..."], b: Float[Tensor, "n_atoms ..."]
    ) -> Float[Tensor, "n_systems ..."]:
        """Scalar products of each system, summed over atoms and the last axis."""
        return dot_per_system(a, b, self.system_idx, self.n_systems)


def moment_lbfgs_init(
    state: SimState, model: ModelInterface, *, freedom: DegreesOfFreedom | None = None, **_kwargs: Any
) -> MomentLbfgsState:
    """Evaluate the model once and prepare the optimiser; positions and cell stay fixed.

    Args:
        state: State with moments.
        model: Model that gives energy, forces, stress and magforces.
        freedom: Constraints of the moments; none by default.
    """
    out = model(state)
    lbfgs = MomentLbfgsState.from_state(state, **_fields(state, out, freedom))
    lbfgs.store_model_extras(out)
    lbfgs.direction = _next_direction(lbfgs, MAX_CHANGE)
    return lbfgs


def moment_lbfgs_at(
    plain: CountedState,
    out: dict[str, Tensor],
    *,
    freedom: DegreesOfFreedom,
    history: tuple[Float[Tensor, "n_atoms n_memory 3"], Float[Tensor, "n_atoms n_memory 3"]],
    max_change: float = MAX_CHANGE,
) -> MomentLbfgsState:
    """The optimiser where the model has been evaluated already, with what it remembers of earlier steps.

    Args:
        plain: State with moments.
        out: Energy, forces, stress and magforces there.
        freedom: Constraints of the moments.
        history: Changes of the moments and what they took from the magforces, the latest first; zero where empty.
        max_change: Largest change of a moment in a step, in μB.
    """
    fields = _fields(plain, out, freedom) | {"changes": history[0], "responses": history[1]}
    lbfgs = solver_state(MomentLbfgsState, plain, **fields)
    lbfgs.store_model_extras(out)
    lbfgs.direction = _next_direction(lbfgs, max_change)
    return lbfgs


def _fields(state: SimState, out: dict[str, Tensor], freedom: DegreesOfFreedom | None) -> dict[str, Any]:
    """Fields of the optimiser before its first step, without a direction."""
    history = state.positions.new_zeros(state.n_atoms, MEMORY, 3)
    ones = torch.ones(len(state.cell), dtype=state.dtype, device=state.device)
    fixed = replace(freedom or DegreesOfFreedom(), relax_positions=False, relax_cell=False)
    return {
        "direction": torch.zeros_like(state.positions),
        "changes": history,
        "responses": history.clone(),
        "fraction": ones,
        "stretch": ones.clone(),
        "n_rejected": torch.zeros_like(ones).int(),
        **shared_fields(state, out, fixed),
    }


def moment_lbfgs_step(
    state: MomentLbfgsState,
    model: ModelInterface,
    *,
    active: Bool[Tensor, " n_systems"] | None = None,
    max_change: float = MAX_CHANGE,
    evaluation: dict[str, Any] | None = None,
    **_kwargs: Any,
) -> MomentLbfgsState:
    """Try one step of every system: one evaluation of the model.

    A trial is accepted if the energy falls enough (Armijo), or if it is the same within rounding and the slope is
    less steep (Hager and Zhang's approximate condition), which is what decides at tight tolerances. Otherwise the
    system stays where it was and a shorter step along the same direction is tried next; after four of them it forgets
    its history. Pairs are remembered only where the energy curves up; where it curves down, steps double up to
    `max_change`. Moments of fixed length move on their spheres, and the history with them (projected).

    Args:
        state: State of the optimiser; changed only after the model has been evaluated.
        model: Model that gives energy and magforces; forces and stress stay what they were if it gives none.
        active: Systems that move, all by default; the others stay exactly as they are.
        max_change: Largest change of a moment, in μB.
        evaluation: Keywords of the evaluation.

    References:
        Nocedal, 10.1090/S0025-5718-1980-0572855-7; Hager and Zhang, 10.1137/030601880, eq. 4.1; Huang, Gallivan and
        Absil, 10.1137/140955483 (vector transport).
    """
    before, forces = getattr(state, TORCHSIM_MAGMOMS), state.moment_forces()
    moving = torch.ones_like(state.n_rejected, dtype=torch.bool) if active is None else active
    slope = state.dot(forces, state.direction)
    length = torch.where(moving, state.fraction, 0.0)
    trial = state.moved_moments(length[state.system_idx, None] * state.direction)
    out = model(with_moments(state, trial), **(evaluation or {}))
    accepted = _is_accepted(state, trial, out, slope) & moving
    shorter = torch.where(moving, _shorter_fraction(state, out["energy"], slope), state.fraction)

    chosen = accepted[state.system_idx, None]
    setattr(state, TORCHSIM_MAGMOMS, torch.where(chosen, trial, before))
    state.energy = torch.where(accepted, out["energy"], state.energy)
    if "stress" in out:
        state.stress = torch.where(accepted[:, None, None], out["stress"], state.stress)
    if "forces" in out:
        state.set_constrained_forces(torch.where(chosen, out["forces"], state.forces))
    state.store_model_extras(
        {TORCHSIM_MAGFORCES: torch.where(chosen, out[TORCHSIM_MAGFORCES], getattr(state, TORCHSIM_MAGFORCES))}
    )
    _learn(state, before, forces, accepted)
    state.n_rejected = torch.where(accepted, 0, state.n_rejected + moving.int())
    forgets = moving & (state.n_rejected == _MAX_REJECTED)
    forgotten = forgets[state.system_idx, None, None]
    state.changes = torch.where(forgotten, 0.0, state.changes)
    state.responses = torch.where(forgotten, 0.0, state.responses)
    state.direction = torch.where(
        (accepted | forgets)[state.system_idx, None], _next_direction(state, max_change), state.direction
    )
    state.fraction = torch.where(accepted, 1.0, shorter)
    state.n_steps = state.n_steps + moving.int()
    return state


def _is_accepted(
    state: MomentLbfgsState, trial: Tensor, out: dict[str, Tensor], slope: Float[Tensor, " n_systems"]
) -> Tensor:
    """Which trials are better than where they came from."""
    rise = out["energy"] - state.energy
    decreases = rise <= -_ARMIJO * state.fraction * slope
    slope_there = state.dot(state.allowed(out[TORCHSIM_MAGFORCES], trial), state.direction)
    flatter = slope_there.abs() <= (1 - 2 * _ARMIJO) * slope
    n_atoms = state.n_atoms_per_system
    noise = _NOISE * torch.finfo(state.dtype).eps * (state.energy.abs() + n_atoms)
    return decreases | (flatter & (rise <= noise))


def _shorter_fraction(
    state: MomentLbfgsState, energy: Float[Tensor, " n_systems"], slope: Float[Tensor, " n_systems"]
) -> Float[Tensor, " n_systems"]:
    """The lowest point of a parabola through a refused trial, between a tenth and a half of it."""
    rise = (energy - state.energy + state.fraction * slope).clamp(min=_TINY)
    lowest = 0.5 * state.fraction**2 * slope / rise
    usable = torch.where(torch.isfinite(lowest), lowest, 0.0).to(state.dtype)
    return torch.maximum(torch.minimum(usable, 0.5 * state.fraction), 0.1 * state.fraction)


def _learn(state: MomentLbfgsState, before: Tensor, forces: Tensor, accepted: Tensor) -> None:
    """Remember the step of each system that accepted one, if its energy curves up along it."""
    magmoms = getattr(state, TORCHSIM_MAGMOMS)
    change, response = magmoms - before, forces
    if state.freedom.fix_magnitude:
        change, response = perpendicular(change, magmoms), perpendicular(forces, magmoms)
        state.changes = perpendicular(state.changes, magmoms[:, None])
        state.responses = perpendicular(state.responses, magmoms[:, None])
    response = response - state.moment_forces()
    curvature = state.dot(change, response)
    upward = accepted & (curvature > 1e-8 * state.dot(change, change))
    new = upward[state.system_idx]
    state.changes = remember(state.changes, change, new)
    state.responses = remember(state.responses, response, new)
    longer = torch.where(accepted, 2.0 * state.stretch, state.stretch)
    state.stretch = torch.where(upward, 1.0, longer)


def _next_direction(state: MomentLbfgsState, max_change: float) -> Float[Tensor, "n_atoms 3"]:
    """Quasi-Newton step, or down the slope where that is better, no moment further than `max_change`."""
    idx, forces = state.system_idx, state.moment_forces()
    direction = newton_step(forces, state.changes, state.responses, idx, state.n_systems)
    cosine = state.dot(direction, forces)
    lengths = (state.dot(direction, direction) * state.dot(forces, forces)).sqrt()
    downhill = torch.isfinite(cosine) & (cosine > 1e-4 * lengths)
    direction = torch.where(downhill[idx, None], direction, FIRST_SOFTNESS * forces)
    direction = direction * state.stretch[idx, None]
    longest = largest_per_system(direction, state)
    return direction * (max_change / longest.clamp(min=max_change))[idx, None]
