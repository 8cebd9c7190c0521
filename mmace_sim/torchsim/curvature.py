"""The lowest curvature of the energy with respect to the moments, looked for while other systems of a batch relax.

A stationary point of the moments is a minimum if no direction of ∂²E/∂m∂m curves down. Its lowest eigenvalue is found
by Lanczos steps: each is one evaluation of the model at moments that are displaced by a little, in the place of a step
of the optimiser, so that a batch goes on as if nothing was. What is known is part of the state
(:class:`~mmace_sim.torchsim.freedom.MagneticOptimState`). Directions that constraints forbid are left out, and so are
common rotations of all moments where the energy does not depend on them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from mmace_sim.base.quantities import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS
from mmace_sim.torchsim.adiabatic import AdiabaticModel
from mmace_sim.torchsim.fire import MagneticFireState, stop
from mmace_sim.torchsim.freedom import (
    FREE_MOMENTS,
    MAX_PROBES,
    largest_per_system,
    no_probes,
    with_moments,
)
from mmace_sim.torchsim.noise import normal_numbers
from mmace_sim.torchsim.quasi_newton import dot_per_system

RELATIVE_ERROR: float = 0.05
"""A lowest curvature is known once its error is smaller than this part of it plus `ABSOLUTE_ERROR`."""

ABSOLUTE_ERROR: float = 0.003
"""In eV/μB²."""

FLAT: float = 1e-3
"""Curvatures below this fraction of the largest one are zero."""

NOISE: dict[torch.dtype, float] = {torch.float64: 2e-3, torch.float32: 3e-2}
"""eV/μB² that differences of magforces may contribute."""

PUSH: float = 0.3
"""Largest change of a moment by which a system is pushed off a saddle point, in μB."""

_TINY = 1e-12
_UNUSED = 1e6  # eV/μB², above all curvatures


@dataclass(frozen=True)
class LowestCurvature:
    """What is known of each system: the lowest Ritz value of ∂²E/∂m∂m.

    Attributes:
        values: Ritz values in ascending order, in eV/μB², shape (n_systems, MAX_PROBES); beyond the number of
            probes they mean nothing.
        vectors: Coefficients of their directions in the basis, as columns.
        error: Some eigenvalue is within this distance of the lowest value, in eV/μB².
        noise: What differences and the rest of the magforces may contribute, in eV/μB².
    """

    values: Float[Tensor, "n_systems n_probes"]
    vectors: Float[Tensor, "n_systems n_probes n_probes"]
    error: Float[Tensor, " n_systems"]
    noise: Float[Tensor, " n_systems"]

    @property
    def lowest(self) -> Float[Tensor, " n_systems"]:
        """The lowest one, in eV/μB²: an upper bound of the lowest eigenvalue."""
        return self.values[:, 0]

    @property
    def is_downward(self) -> Bool[Tensor, " n_systems"]:
        """Systems whose energy falls along the lowest direction, by more than noise."""
        largest = torch.where(self.values < 0.5 * _UNUSED, self.values.abs(), 0.0).amax(dim=1)
        return self.lowest < -torch.maximum(FLAT * largest, self.noise)


def lowest_curvature(state: MagneticFireState) -> LowestCurvature:
    """Evaluate what the probes of each system have found.

    Args:
        state: State of the optimiser.
    """
    upper = torch.triu(state.probe_matrix)
    matrix = upper + torch.triu(state.probe_matrix, diagonal=1).mT
    number = torch.arange(MAX_PROBES, device=state.device)
    used = number[None] < state.n_probes[:, None]
    both = used[:, :, None] & used[:, None, :]
    matrix = torch.where(both, matrix, torch.diag_embed(torch.where(used, 0.0, _UNUSED).to(matrix.dtype)))
    values, vectors = torch.linalg.eigh(matrix.double())
    last = (state.n_probes - 1).clamp(min=0)[:, None]
    share = vectors[:, :, 0].gather(1, last)[:, 0].abs()
    rest = state.within_constraints(getattr(state, TORCHSIM_MAGFORCES), getattr(state, TORCHSIM_MAGMOMS))
    noise = (2.0 * largest_per_system(rest, state).double()).clamp(min=NOISE[state.dtype])  # over 0.5 μB
    return LowestCurvature(values, vectors, state.probe_rest.double() * share, noise)


def lowest_direction(state: MagneticFireState) -> Float[Tensor, "n_atoms 3"]:
    """Change of the moments along which the energy curves most downwards, of length 1 in each system.

    Args:
        state: State of the optimiser.
    """
    weights = lowest_curvature(state).vectors[:, :, 0].to(state.dtype)[state.system_idx]
    return torch.einsum("np,npa->na", weights, state.probe_basis[:, :MAX_PROBES])


def is_known(state: MagneticFireState) -> Bool[Tensor, " n_systems"]:
    """Systems whose lowest curvature is known well enough, or as well as it will be.

    Args:
        state: State of the optimiser.
    """
    found = lowest_curvature(state)
    precise = found.error <= RELATIVE_ERROR * found.lowest.abs() + ABSOLUTE_ERROR
    return (precise & (state.n_probes > 0)) | (state.n_probes >= MAX_PROBES) | (state.probe_rest <= 0)


def probing_step(
    state: MagneticFireState,
    model: ModelInterface,
    step: Callable[..., MagneticFireState],
    *,
    probed: Bool[Tensor, " n_systems"],
    pushed: Bool[Tensor, " n_systems"],
    rotates_freely: bool,
) -> MagneticFireState:
    """A step of an optimiser, in which some systems are looked at instead, in one evaluation of the model.

    Args:
        state: State of the optimiser; changed only after the model has been evaluated.
        model: Model that gives energy, forces, stress and magforces.
        step: The optimiser, such as `magnetic_fire_step`; takes the systems that move as `active`.
        probed: Systems at rest, whose curvature is looked for: they stay as they are.
        pushed: Systems whose lowest curvature is known: they are moved along it, downhill, and relax on.
        rotates_freely: Whether the energy is the same after any common rotation of all moments.
    """
    if bool(pushed.any()):
        state = _pushed(state, pushed)
    nothing = state.positions.new_zeros(state.n_atoms, 3, 3)
    trivial = _rotations(state) if rotates_freely else nothing
    starts = probed & (state.n_probes == 0)
    basis = torch.where(
        starts[state.system_idx, None, None], _first_direction(state, trivial), state.probe_basis
    )
    evaluation = _Evaluation(state, model, probed, basis)
    before = getattr(state, TORCHSIM_MAGMOMS), getattr(state, TORCHSIM_MAGFORCES)
    state = step(state, evaluation, active=~(probed | pushed))
    state.probe_basis = basis
    _learn(state, evaluation, before, trivial)
    return state


class _Evaluation(ModelInterface):
    """The model for a step: systems that are probed are evaluated at displaced moments, and come back as they were."""

    def __init__(
        self,
        state: MagneticFireState,
        model: ModelInterface,
        probed: Bool[Tensor, " n_systems"],
        basis: Float[Tensor, "n_atoms n_basis 3"],
    ) -> None:
        super().__init__()
        self.state, self.model, self.probed = state, model, probed
        latest = state.n_probes.clamp(max=MAX_PROBES - 1)[state.system_idx]
        self.length = _difference(state)
        self.change = basis[torch.arange(state.n_atoms, device=state.device), latest] * self.length[:, None]
        self.magmoms: Float[Tensor, "n_atoms 3"] | None = None
        self.magforces: Float[Tensor, "n_atoms 3"] | None = None

    def forward(self, state: SimState, **how: Any) -> dict[str, Tensor]:
        atoms = self.probed[self.state.system_idx, None]
        self.magmoms = torch.where(
            atoms, self.state.moved_moments(self.change), getattr(state, TORCHSIM_MAGMOMS)
        )
        held = {"held": self.probed} if isinstance(self.model, AdiabaticModel) else {}
        out = dict(self.model(with_moments(state, self.magmoms), **held, **how))
        self.magforces = out[TORCHSIM_MAGFORCES]
        for name in {"energy", "stress"} & out.keys():
            kept = getattr(self.state, name)
            where = self.probed.view(-1, *[1] * (kept.ndim - 1))
            out[name] = torch.where(where, kept, out[name])
        for name in {"forces", TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS} & out.keys():
            out[name] = torch.where(atoms, getattr(self.state, name), out[name])
        return out


def _difference(state: MagneticFireState) -> Float[Tensor, " n_atoms"]:
    """Length of the change of all moments of a system for a difference, in μB; each moment's is the same in all."""
    one = 2e-4 if state.dtype == torch.float64 else 2e-2
    return one * state.n_atoms_per_system.to(state.dtype).sqrt()[state.system_idx]


def _first_direction(
    state: MagneticFireState, trivial: Float[Tensor, "n_atoms 3 3"]
) -> Float[Tensor, "n_atoms n_basis 3"]:
    """A basis whose first direction has a part of everything that may move; the same alone and in any batch."""
    zeros = torch.zeros_like(state.n_probes)
    noise, _ = normal_numbers(zeros, zeros, state.system_idx, 3, state.positions)
    magmoms = getattr(state, TORCHSIM_MAGMOMS)
    direction = _without(state.within_constraints(noise, magmoms), trivial, state)
    length = dot_per_system(direction, direction, state.system_idx, state.n_systems).sqrt()
    basis = torch.zeros_like(state.probe_basis)
    basis[:, 0] = (
        torch.where(length > _TINY, 1.0 / length.clamp(min=_TINY), 0.0)[state.system_idx, None] * direction
    )
    return basis


def _learn(
    state: MagneticFireState,
    evaluation: _Evaluation,
    before: tuple[Tensor, Tensor],
    trivial: Float[Tensor, "n_atoms 3 3"],
) -> None:
    """What an evaluation at displaced moments tells about ∂²E/∂m∂m, in place."""
    (magmoms, magforces), probed, number = before, evaluation.probed, state.n_probes
    atoms = probed[state.system_idx, None]
    taken = state.within_constraints(magforces, magmoms) - state.within_constraints(
        evaluation.magforces, evaluation.magmoms
    )
    response = state.within_constraints(taken / evaluation.length[:, None], magmoms)
    response = torch.where(atoms, _without(response, trivial, state), 0.0)
    column, rest = _within(state.probe_basis, response, state)
    again, rest = _within(state.probe_basis, _without(rest, trivial, state), state)
    norm = dot_per_system(rest, rest, state.system_idx, state.n_systems).sqrt()
    usable = probed & torch.isfinite(norm) & torch.isfinite(column).all(dim=1)
    nothing = dot_per_system(evaluation.change, evaluation.change, state.system_idx, state.n_systems) == 0

    systems = torch.nonzero(usable)[:, 0]
    state.probe_matrix[systems, :, number[systems]] = (column + again)[systems, :MAX_PROBES]
    new = usable[state.system_idx]
    rows = torch.nonzero(new)[:, 0]
    unit = rest / norm.clamp(min=_TINY)[state.system_idx, None]
    state.probe_basis[rows, number[state.system_idx[rows]] + 1] = unit[rows]
    state.probe_rest = torch.where(usable, norm, torch.where(probed, 0.0, state.probe_rest))
    state.n_probes = torch.where(usable & ~nothing, number + 1, number)


def _within(
    basis: Float[Tensor, "n_atoms n_basis 3"], vectors: Float[Tensor, "n_atoms 3"], state: MagneticFireState
) -> tuple[Float[Tensor, "n_systems n_basis"], Float[Tensor, "n_atoms 3"]]:
    """Coefficients of vectors in a basis of each system, and what is left of them."""
    parts = dot_per_system(basis, vectors[:, None].expand_as(basis), state.system_idx, state.n_systems)
    return parts, vectors - torch.einsum("nb,nba->na", parts[state.system_idx], basis)


def _without(
    vectors: Float[Tensor, "n_atoms 3"], trivial: Float[Tensor, "n_atoms 3 3"], state: MagneticFireState
) -> Float[Tensor, "n_atoms 3"]:
    """Vectors without trivial directions."""
    return _within(trivial, vectors, state)[1]


def _rotations(state: MagneticFireState) -> Float[Tensor, "n_atoms 3 3"]:
    """Orthonormal changes of moments by common rotations, two for collinear ones; zero where these are forbidden."""
    magmoms, idx, n = getattr(state, TORCHSIM_MAGMOMS), state.system_idx, state.n_systems
    axes = torch.eye(3, dtype=magmoms.dtype, device=magmoms.device)
    turns = torch.linalg.cross(
        axes[None].expand(len(magmoms), 3, 3), magmoms[:, None].expand(-1, 3, 3), dim=2
    )
    overlaps = torch.stack(
        [dot_per_system(turns, turns[:, k, None].expand_as(turns), idx, n) for k in range(3)], dim=2
    )
    free = torch.full((n,), not state.freedom.collinear, device=magmoms.device)
    if FREE_MOMENTS in state.atom_extras:
        masked = torch.zeros_like(state.n_probes).index_add(0, idx, (~getattr(state, FREE_MOMENTS)).long())
        free = free & (masked == 0)
    squares, vectors = torch.linalg.eigh(overlaps)
    kept = free[:, None] & (squares > 1e-6 * squares[:, 2:]) & (squares > _TINY)
    scale = torch.where(kept, squares.clamp(min=_TINY).rsqrt(), 0.0)
    return torch.einsum("nka,nkl->nla", turns, (vectors * scale[:, None, :])[idx])


def _pushed(state: MagneticFireState, chosen: Bool[Tensor, " n_systems"]) -> MagneticFireState:
    """A copy in which systems have left their saddle points along the lowest curvature, by `PUSH`, and know nothing."""
    state = state.clone()
    direction = lowest_direction(state)
    uphill = (
        dot_per_system(getattr(state, TORCHSIM_MAGFORCES), direction, state.system_idx, state.n_systems) < 0
    )
    longest = largest_per_system(direction, state).clamp(min=_TINY)
    length = torch.where(chosen, torch.where(uphill, -PUSH, PUSH) / longest, 0.0).to(state.dtype)
    setattr(state, TORCHSIM_MAGMOMS, state.moved_moments(length[state.system_idx, None] * direction))
    for name, nothing in no_probes(state).items():
        kept = getattr(state, name)
        rows = chosen if len(kept) == len(chosen) and name != "probe_basis" else chosen[state.system_idx]
        setattr(state, name, torch.where(rows.view(-1, *[1] * (kept.ndim - 1)), nothing, kept))
    state.saddle_energy = torch.where(chosen, state.energy, state.saddle_energy)
    state.n_pushes = torch.where(chosen, state.n_pushes + 1, state.n_pushes)
    stop(state, chosen)
    return state
