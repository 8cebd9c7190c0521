"""Moments that follow the atoms: a model whose moments are relaxed inside every evaluation."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from mmace_sim.base.devices import uploaded
from mmace_sim.base.quantities import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS
from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.torchsim.freedom import DegreesOfFreedom, complete, largest_per_system
from mmace_sim.torchsim.lbfgs import MomentLbfgsState, moment_lbfgs_at, moment_lbfgs_step
from mmace_sim.torchsim.quasi_newton import MEMORY, newton_step
from mmace_sim.torchsim.trial import count_atoms, trial_state

MEMORY_EXTRAS: tuple[str, str, str] = ("moment_path", "moment_changes", "moment_responses")
"""Atom extras of a state in which the model keeps what it knows of each system: the relaxed moments of the last two
evaluations, and the last changes of the moments with what these took from the magforces."""

EVALUATIONS: str = "moment_evaluations_of_atom"
"""Atom extra with the number of evaluations that the last relaxed moments of its system took."""

MAX_FOLLOW: float = 0.1
"""Largest change of a moment in one quasi-Newton step or extrapolation, in μB."""

WHOLE_STEPS: int = 2
"""Inner steps whose evaluations give forces too, because they are probably the last; further ones give magforces alone,
which takes two thirds of the time, and one whole evaluation follows."""

STRESS_LENGTH: float = 2.5
"""Å: a strain moves atoms by about this much times itself, which makes −Vσ of an atom comparable with forces."""


class AdiabaticModel(ModelInterface):
    """Relaxes the moments at fixed atoms until −∂E/∂m vanishes, then gives energy, forces and stress there.

    By the Hellmann–Feynman theorem those are the derivatives of the adiabatic energy min_m E(r, m). The relaxed
    moments are an output, which TorchSim's optimisers and integrators write back into the state.

    A system whose moments are those of its last output continues a trajectory: its moments are extrapolated from the
    last two steps and corrected by what is left of its magforces, with the stiffnesses that earlier steps have
    measured. Where that does not suffice, quasi-Newton steps follow (`mmace_sim.torchsim.lbfgs`), in which only
    the systems that need them are evaluated: along a trajectory one or two evaluations for each step. Any other system
    starts from its own moments. The result is the same within `magforce_tol`. What a system remembers is an output too
    (`MEMORY_EXTRAS`), so that it moves with the system from batch to batch and can be stored; the model itself has no
    memory.

    Args:
        model: A model that gives magforces.
        magforce_tol: Largest remaining magforce, in eV/μB.
        max_steps: Steps after which the moments are taken as they are; the magforces, which are an output, tell.
        collinear: Moments keep their axis.
        fix_magnitude: Moments keep their length.
        inexact: For relaxations, whose forces are wrong by far more than their tolerance until the end: magforces need
            not be smaller than this many Å/μB times the largest force of their system.

    Raises:
        UnsupportedOptionError: If the model gives no stress.

    References:
        Dembo, Eisenstat and Steihaug, 10.1137/0719025 (inexact Newton methods).
    """

    def __init__(
        self,
        model: ModelInterface,
        *,
        magforce_tol: float = 1e-3,
        max_steps: int = 200,
        collinear: bool = False,
        fix_magnitude: bool = False,
        inexact: float = 0.0,
    ) -> None:
        super().__init__()
        if not model.compute_stress:
            raise UnsupportedOptionError(
                f"{type(model).__name__} gives no stress, which is relaxed along with the moments: set compute_stress."
            )
        self.model = model
        self.magforce_tol = magforce_tol
        self.max_steps = max_steps
        self.inexact = inexact
        self.freedom = DegreesOfFreedom(
            relax_positions=False, relax_cell=False, collinear=collinear, fix_magnitude=fix_magnitude
        )
        self._device = model.device
        self._dtype = model.dtype
        self._compute_forces = True
        self._compute_stress = True
        self._memory_scales_with = model.memory_scales_with

    def forward(
        self, state: SimState, *, held: Bool[Tensor, " n_systems"] | None = None, **_kwargs: Any
    ) -> dict[str, Tensor]:
        """Energy, forces, stress, remaining magforces, the relaxed "magnetic_moments", and `MEMORY_EXTRAS`.

        Args:
            state: State with moments.
            held: Systems whose moments stay as they are.
        """
        memory = _Memory(state, held)
        start = trial_state(state, memory.predicted(keep_lengths=self.freedom.fix_magnitude), bare=True)
        out = self.model(start)
        inner = moment_lbfgs_at(
            start, out, freedom=self.freedom, history=memory.history, max_change=MAX_FOLLOW
        )
        self._relax(inner, memory)
        return {
            "energy": inner.energy,
            "forces": inner.forces,
            "stress": inner.stress,
            TORCHSIM_MAGFORCES: inner.moment_forces(),
            TORCHSIM_MAGMOMS: getattr(inner, TORCHSIM_MAGMOMS),
            EVALUATIONS: memory.n_evaluations[memory.system_idx],
            **memory.extras(inner),
        }

    def _relax(self, inner: MomentLbfgsState, memory: "_Memory") -> None:
        """Inner steps of the systems that need them, in place; the host reads once for each."""
        limit, incomplete = self._limit(inner), set[int]()
        for step in range(self.max_steps):
            active = (largest_per_system(inner.moment_forces(), inner) > limit) & ~memory.held
            systems = [k for k, is_active in enumerate(active.tolist()) if is_active]
            if not systems:
                break
            memory.n_evaluations += active
            alone = step >= WHOLE_STEPS
            incomplete = incomplete | set(systems) if alone else incomplete - set(systems)
            moment_lbfgs_step(
                inner,
                self.model,
                active=active,
                max_change=MAX_FOLLOW,
                evaluation={"moments_only": alone, "systems": systems},
            )
        if incomplete:
            complete(inner, self.model, sorted(incomplete))
            memory.n_evaluations[uploaded(np.array(sorted(incomplete)), memory.held.device)] += 1

    def _limit(self, inner: MomentLbfgsState) -> Float[Tensor, " n_systems"]:
        """Magforces that need not become smaller, in eV/μB."""
        force = largest_per_system(inner.forces, inner)
        if not self.inexact:
            return torch.full_like(force, self.magforce_tol)
        n_atoms, volume = inner.n_atoms_per_system, torch.linalg.det(inner.cell).abs()
        strain_force = inner.stress.abs().amax(dim=(1, 2)) * volume / (n_atoms * STRESS_LENGTH)
        return (self.inexact * torch.maximum(force, strain_force)).clamp(min=self.magforce_tol)


class _Memory:
    """What the last evaluations tell about each system of a batch: where its moments go, and ∂²E/∂m∂m."""

    def __init__(self, state: SimState, held: Bool[Tensor, " n_systems"] | None = None) -> None:
        counts = count_atoms(state)
        self.held = torch.zeros_like(counts, dtype=torch.bool) if held is None else held
        self.n_evaluations: Int[Tensor, " n_systems"] = torch.ones_like(counts)
        self.system_idx: Int[Tensor, " n_atoms"] = state.system_idx
        self.magmoms: Float[Tensor, "n_atoms 3"] = getattr(state, TORCHSIM_MAGMOMS)
        self.magforces = state.atom_extras.get(TORCHSIM_MAGFORCES, torch.zeros_like(self.magmoms))
        nothing = self.magmoms.new_zeros(state.n_atoms, MEMORY, 3)
        path, *history = (state.atom_extras.get(name) for name in MEMORY_EXTRAS)
        if path is None:
            path, history = torch.full_like(nothing[:, :2], float("nan")), [nothing, nothing]
        self._kept = (path, *history)
        moved = (path[:, 1] != self.magmoms).any(dim=1)
        self.follows: Bool[Tensor, " n_systems"] = ~_any_per_system(moved, state)
        known = self.follows[self.system_idx, None, None]
        self.before: Float[Tensor, "n_atoms 3"] = path[:, 0]
        self.history: tuple[Tensor, Tensor] = (
            torch.where(known, history[0], 0.0),
            torch.where(known, history[1], 0.0),
        )

    def extras(self, inner: MomentLbfgsState) -> dict[str, Tensor]:
        """What to keep of an evaluation; of systems that are held, what was known before."""
        before = torch.where(self.follows[self.system_idx, None], self.magmoms, float("nan"))
        path = torch.stack([before, getattr(inner, TORCHSIM_MAGMOMS)], dim=1)
        held = self.held[self.system_idx, None, None]
        new = (path, inner.changes, inner.responses)
        return {
            name: torch.where(held, kept, found)
            for name, kept, found in zip(MEMORY_EXTRAS, self._kept, new, strict=True)
        }

    def predicted(self, *, keep_lengths: bool) -> Float[Tensor, "n_atoms 3"]:
        """Moments of the systems that continue: as long a step as the last one, and a quasi-Newton step from there.

        Args:
            keep_lengths: Whether lengths are fixed.
        """
        last = torch.where(self.before.isfinite(), self.magmoms - self.before, 0.0)
        correction = newton_step(self.magforces, *self.history, self.system_idx, len(self.held))
        guess = self.magmoms + _limited(last) + _limited(correction)
        if keep_lengths:
            length = torch.linalg.norm(self.magmoms, dim=1, keepdim=True)
            guess = guess * (length / torch.linalg.norm(guess, dim=1, keepdim=True).clamp(min=1e-30))
        return torch.where((self.follows & ~self.held)[self.system_idx, None], guess, self.magmoms)


def _any_per_system(flags: Bool[Tensor, " n_atoms"], state: SimState) -> Bool[Tensor, " n_systems"]:
    count = torch.zeros(len(state.cell), dtype=torch.long, device=flags.device)
    return count.index_add(0, state.system_idx, flags.long()) > 0


def _limited(change: Float[Tensor, "n_atoms 3"]) -> Float[Tensor, "n_atoms 3"]:
    """A change of moments, no moment by more than `MAX_FOLLOW`."""
    length = torch.linalg.norm(change, dim=1, keepdim=True)
    return change * (MAX_FOLLOW / length.clamp(min=MAX_FOLLOW))
