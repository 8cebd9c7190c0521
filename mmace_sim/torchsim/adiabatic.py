"""Moments that follow the atoms: a model whose moments are relaxed inside every evaluation."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from mmace_sim.base.quantities import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS
from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.torchsim.fire import (
    DegreesOfFreedom,
    MagneticFireState,
    largest_per_system,
    magnetic_fire_init,
    magnetic_fire_step,
)
from mmace_sim.torchsim.quasi_newton import MEMORY, dot_per_system, newton_step, remember

FOLLOW_STEPS: int = 12
"""Quasi-Newton steps along a trajectory before FIRE takes over."""

MEMORY_EXTRAS: tuple[str, str, str] = ("moment_path", "moment_changes", "moment_responses")
"""Atom extras of a state in which the model keeps what it knows of each system: the relaxed moments of the last two
evaluations, and the last changes of the moments with what these took from the magforces."""

EVALUATIONS: str = "moment_evaluations_of_atom"
"""Atom extra with the number of evaluations that the last relaxed moments of its system took."""

MAX_FOLLOW: float = 0.1
"""Largest change of a moment in one quasi-Newton step or extrapolation, in μB."""


class AdiabaticModel(ModelInterface):
    """Relaxes the moments at fixed atoms until −∂E/∂m vanishes, then gives energy, forces and stress there.

    By the Hellmann–Feynman theorem those are the derivatives of the adiabatic energy min_m E(r, m). The relaxed
    moments are an output, which TorchSim's optimisers and integrators write back into the state.

    A system whose moments are those of its last output continues a trajectory. Its moments are then extrapolated from
    the last two steps and corrected by quasi-Newton steps, with the stiffnesses that earlier steps have measured: in
    molecular dynamics about two evaluations of the model for each step. Any other system starts from its own moments,
    by FIRE. The result is the same within `magforce_tol`. What a system remembers is an output too (`MEMORY_EXTRAS`),
    so that it moves with the system from batch to batch and can be stored; the model itself has no memory.

    Args:
        model: A model that gives magforces.
        magforce_tol: Largest remaining magforce, in eV/μB.
        max_steps: Steps after which the moments are taken as they are; the magforces, which are an output, tell.
        collinear: Moments keep their axis.
        fix_magnitude: Moments keep their length.

    Raises:
        UnsupportedOptionError: If the model gives no stress.
    """

    def __init__(
        self,
        model: ModelInterface,
        *,
        magforce_tol: float = 1e-3,
        max_steps: int = 200,
        collinear: bool = False,
        fix_magnitude: bool = False,
    ) -> None:
        super().__init__()
        if not model.compute_stress:
            raise UnsupportedOptionError(
                f"{type(model).__name__} gives no stress, which is relaxed along with the moments: set compute_stress."
            )
        self.model = model
        self.magforce_tol = magforce_tol
        self.max_steps = max_steps
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
        fire = self._start(state, memory.extrapolated(keep_lengths=self.freedom.fix_magnitude))
        steps = self._follow(fire, memory)
        for _ in range(steps, self.max_steps):
            active = self._active(fire) & ~memory.held
            if not bool(active.any()):
                break
            memory.n_evaluations += active
            before = getattr(fire, TORCHSIM_MAGMOMS), fire.moment_forces()
            fire = magnetic_fire_step(fire, self.model, active=active)
            _learn(memory, fire, before, active)
        relaxed = getattr(fire, TORCHSIM_MAGMOMS)
        return {
            "energy": fire.energy,
            "forces": fire.forces,
            "stress": fire.stress,
            TORCHSIM_MAGFORCES: fire.moment_forces(),
            TORCHSIM_MAGMOMS: relaxed,
            EVALUATIONS: memory.n_evaluations[memory.system_idx],
            **memory.extras(relaxed),
        }

    def _start(self, state: SimState, magmoms: Float[Tensor, "n_atoms 3"]) -> MagneticFireState:
        """Evaluate the model at given moments; constraints and momenta are no business of the moments."""
        plain = SimState(
            positions=state.positions,
            masses=state.masses,
            cell=state.cell,
            pbc=state.pbc,
            atomic_numbers=state.atomic_numbers,
            system_idx=state.system_idx,
            _atom_extras={TORCHSIM_MAGMOMS: magmoms},
        )
        return magnetic_fire_init(plain, self.model, freedom=self.freedom, dt_start=0.5)

    def _active(self, fire: MagneticFireState) -> Bool[Tensor, " n_systems"]:
        return largest_per_system(fire.moment_forces(), fire) > self.magforce_tol

    def _follow(self, fire: MagneticFireState, memory: "_Memory") -> int:
        """Quasi-Newton steps of the systems that continue and need them, in place; returns their number."""
        for step in range(min(FOLLOW_STEPS, self.max_steps)):
            active = self._active(fire) & memory.follows & ~memory.held
            if not bool(active.any()):
                return step
            memory.n_evaluations += active
            magmoms, magforces = getattr(fire, TORCHSIM_MAGMOMS), fire.moment_forces()
            change = _limited(memory.newton_step(magforces))
            moved = fire.moved_moments(torch.where(active[fire.system_idx, None], change, 0.0))
            setattr(fire, TORCHSIM_MAGMOMS, moved)
            out = self.model(fire)
            fire.energy, fire.forces, fire.stress = out["energy"], out["forces"], out["stress"]
            fire.store_model_extras(out)
            _learn(memory, fire, (magmoms, magforces), active)
        return min(FOLLOW_STEPS, self.max_steps)


class _Memory:
    """What the last evaluations tell about each system of a batch: where its moments go, and ∂²E/∂m∂m."""

    def __init__(self, state: SimState, held: Bool[Tensor, " n_systems"] | None = None) -> None:
        self.held = torch.zeros_like(state.n_atoms_per_system, dtype=torch.bool) if held is None else held
        self.n_evaluations: Int[Tensor, " n_systems"] = torch.ones_like(state.n_atoms_per_system)
        self.system_idx: Int[Tensor, " n_atoms"] = state.system_idx
        self.n_systems = state.n_systems
        self.magmoms: Float[Tensor, "n_atoms 3"] = getattr(state, TORCHSIM_MAGMOMS)
        nothing = self.magmoms.new_zeros(state.n_atoms, MEMORY, 3)
        path, changes, responses = (state.atom_extras.get(name) for name in MEMORY_EXTRAS)
        if path is None:
            path, changes, responses = torch.full_like(nothing[:, :2], float("nan")), nothing, nothing
        moved = (path[:, 1] != self.magmoms).any(dim=1)
        n_moved = torch.zeros_like(state.n_atoms_per_system).index_add(0, self.system_idx, moved.long())
        self.follows: Bool[Tensor, " n_systems"] = n_moved == 0
        known = self.follows[self.system_idx, None, None]
        self.before: Float[Tensor, "n_atoms 3"] = path[:, 0]
        self.changes, self.responses = torch.where(known, changes, 0.0), torch.where(known, responses, 0.0)

    def extras(self, relaxed: Float[Tensor, "n_atoms 3"]) -> dict[str, Tensor]:
        """What to keep of an evaluation."""
        before = torch.where(self.follows[self.system_idx, None], self.magmoms, float("nan"))
        path = torch.stack([before, relaxed], dim=1)
        return dict(zip(MEMORY_EXTRAS, (path, self.changes, self.responses), strict=True))

    def extrapolated(self, *, keep_lengths: bool) -> Float[Tensor, "n_atoms 3"]:
        """Moments after as long a step as the last one, of the systems that continue."""
        guess = self.magmoms + _limited(self.magmoms - self.before)
        if keep_lengths:
            length = torch.linalg.norm(self.magmoms, dim=1, keepdim=True)
            guess = guess * (length / torch.linalg.norm(guess, dim=1, keepdim=True).clamp(min=1e-30))
        known = self.follows[self.system_idx, None] & self.before.isfinite()
        return torch.where(known, guess, self.magmoms)

    def learn(
        self,
        change: Float[Tensor, "n_atoms 3"],
        response: Float[Tensor, "n_atoms 3"],
        active: Bool[Tensor, " n_systems"],
    ) -> None:
        """Remember a step of the active systems and what it took from their magforces, if their energy curves up."""
        upward = self._dot(change, response) > 1e-4 * self._dot(change, change)
        new = (active & upward)[self.system_idx]
        self.changes = remember(self.changes, change, new)
        self.responses = remember(self.responses, response, new)

    def newton_step(self, magforces: Float[Tensor, "n_atoms 3"]) -> Float[Tensor, "n_atoms 3"]:
        """(∂²E/∂m∂m)⁻¹ times the magforces, as far as it is known."""
        return newton_step(magforces, self.changes, self.responses, self.system_idx, self.n_systems)

    def _dot(
        self, a: Float[Tensor, "n_atoms 3"], b: Float[Tensor, "n_atoms 3"]
    ) -> Float[Tensor, " n_systems"]:
        return dot_per_system(a, b, self.system_idx, self.n_systems)


def _learn(
    memory: _Memory,
    fire: MagneticFireState,
    before: tuple[Tensor, Tensor],
    active: Bool[Tensor, " n_systems"],
) -> None:
    change = getattr(fire, TORCHSIM_MAGMOMS) - before[0]
    memory.learn(change, before[1] - fire.moment_forces(), active)


def _limited(change: Float[Tensor, "n_atoms 3"]) -> Float[Tensor, "n_atoms 3"]:
    """A change of moments, no moment by more than `MAX_FOLLOW`."""
    length = torch.linalg.norm(change, dim=1, keepdim=True)
    return change * (MAX_FOLLOW / length.clamp(min=MAX_FOLLOW))
