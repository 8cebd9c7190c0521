"""Molecular dynamics of atoms and moments as a TorchSim integrator, ``(spin_lattice_init, spin_lattice_step)``.

One step is symmetric in time: half a kick of the momenta, half a drift, then at fixed atoms the heat bath, the barostat
and a whole step of the moments, half a drift, one evaluation of the model, half a kick. Without moments that move,
without bath and barostat it is velocity Verlet; with the bath, BAOAB. All noise belongs to the seed of a system.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch_sim.integrators.md import MDState, momentum_step, position_step
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState
from torch_sim.units import MetalUnits

from mmace_sim.base.constants import ELECTRON_G
from mmace_sim.base.quantities import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS
from mmace_sim.graph.batch import sum_by_system
from mmace_sim.torchsim.adiabatic import EVALUATIONS
from mmace_sim.torchsim.langevin_spins import (
    NOISE_COLUMNS,
    MomentDynamics,
    Spins,
    gyromagnetic_ratio,
    moment_step,
)
from mmace_sim.torchsim.noise import FIRST_DRAW, normal_numbers
from mmace_sim.torchsim.state import MOMENTA, state_magmoms
from mmace_sim.torchsim.trial import CountedState, next_state

FS_PER_TIME: float = 1000.0 / MetalUnits.time
"""TorchSim's unit of time, Å (amu/eV)^½, in fs (10.18)."""

_NOISE_COLUMNS = 3 + NOISE_COLUMNS
"""Momenta and moments."""


@dataclass(kw_only=True)
class SpinLatticeState(CountedState, MDState):
    """Atoms with momenta and moments.

    Attributes:
        stress: In eV/Å³, tension positive; zero if the model gives none.
        seed: Of the noise of each system.
        n_steps: Steps taken by each system.
        gyromagnetic: γ of each atom, in rad/fs per eV/μB.
        fields: Magforces on each atom at the last two midpoints, from which the next is guessed; shape
            (n_atoms, 2, 3), in eV/μB; NaN where there were none.
        moment_residual: Largest change of a moment in the last iteration of the implicit step, in μB.
        moment_evaluations: Evaluations of the magforces since the start, beside one of the model for each step.
        unsettled: Steps whose moments were not converged; counted by `MolecularDynamics`.
    """

    stress: Tensor
    seed: Tensor
    n_steps: Tensor
    gyromagnetic: Tensor
    fields: Tensor
    moment_residual: Tensor
    moment_evaluations: Tensor
    unsettled: Tensor

    _atom_attributes: ClassVar[set[str]] = MDState._atom_attributes | {"gyromagnetic", "fields"}
    _system_attributes: ClassVar[set[str]] = MDState._system_attributes | {
        "stress",
        "seed",
        "n_steps",
        "moment_residual",
        "moment_evaluations",
        "unsettled",
    }


def spin_lattice_init(
    state: SimState,
    model: ModelInterface,
    *,
    kT: float | Tensor,
    seed: int | Tensor = 0,
    g_factor: float | Mapping[int, float] = ELECTRON_G,
    **_kwargs: Any,
) -> SpinLatticeState:
    """Evaluate the model and draw velocities, unless the state has some.

    Args:
        state: State with moments; its momenta, if any, are kept.
        model: Model that gives energy, forces and magforces.
        kT: Temperature of the velocities, in eV; a number or one for each system.
        seed: One for each system; a number is that of the first system, and the others count up from there.
        g_factor: Of all moments, or by atomic number (others: the electron's).

    Returns:
        State for `spin_lattice_step`. Drawn velocities have no total momentum.
    """
    state_magmoms(state)
    counts, like = state.n_atoms_per_system, state.positions
    if not isinstance(seed, Tensor):
        seed = seed + torch.arange(state.n_systems)
    seed = seed.to(state.device, torch.int64)
    momenta = getattr(state, MOMENTA, None)
    if momenta is None:
        momenta = _thermal_momenta(state, kT, seed)
    out = model(state)
    zeros = like.new_zeros(state.n_systems)
    moving = SpinLatticeState.from_state(
        state,
        momenta=momenta,
        energy=out["energy"],
        forces=out["forces"],
        stress=out.get("stress", torch.zeros_like(state.cell)),
        seed=seed,
        n_steps=torch.zeros_like(counts),
        gyromagnetic=_gyromagnetic(state, g_factor),
        fields=like.new_full((state.n_atoms, 2, 3), float("nan")),
        moment_residual=zeros,
        moment_evaluations=torch.zeros_like(counts),
        unsettled=torch.zeros_like(counts),
    )
    moving.store_model_extras(out)
    _count(moving, out)
    return moving


def spin_lattice_step(
    state: SpinLatticeState,
    model: ModelInterface,
    *,
    dt: float | Tensor,
    kT: float | Tensor,
    friction: float = 0.0,
    moments: MomentDynamics | None = None,
    pressure: float | None = None,
    pressure_time: float = 100.0,
    compressibility: float = 1.0,
) -> SpinLatticeState:
    """One step of atoms, moments and cell; the given state stays as it is.

    Args:
        state: From `spin_lattice_init`.
        model: Model that gives energy, forces and magforces, and stress if there is a pressure. It is asked with
            ``moments_only=True`` where nothing but magforces matters.
        dt: Time step, in TorchSim's unit, as ``ts.integrate`` passes it.
        kT: Temperature of all baths, in eV; a number or one for each system.
        friction: Of the atoms, in 1/fs; 0 is no bath.
        moments: How moments move; None leaves them to the model.
        pressure: External pressure, in eV/Å³; None keeps the cell. Cells keep their shape.
        pressure_time: Relaxation time of the volume, in fs.
        compressibility: Rough estimate that sets, with `pressure_time`, how fast the volume relaxes, in Å³/eV.

    Returns:
        The next state.

    References:
        Leimkuhler, Matthews, 10.1098/rspa.2016.0138 (BAOAB); Bernetti, Bussi, 10.1063/5.0020514, eq. 7 (volume).
    """
    state = next_state(state)
    state.n_steps = state.n_steps + 1
    like, idx = state.positions, state.system_idx
    dt, kT = _as_tensor(dt, like), _as_tensor(kT, like).expand(state.n_systems)
    noise, volume_noise = normal_numbers(state.seed, state.n_steps, state.system_idx, _NOISE_COLUMNS, like)
    momentum_step(state, 0.5 * dt)
    position_step(state, 0.5 * dt)
    if friction > 0:
        keep = torch.exp(-friction * FS_PER_TIME * dt).expand(state.n_systems)[idx, None]
        spread = (state.masses * kT[idx]).sqrt()[:, None] * (1.0 - keep**2).sqrt()
        state.set_constrained_momenta(keep * state.momenta + spread * noise[:, :3])
    if pressure is not None:
        rate = compressibility / pressure_time * FS_PER_TIME
        _rescale(state, dt, kT, pressure, rate, volume_noise)
    if moments is not None:
        _move_moments(state, model, moments, dt, kT[idx], noise[:, 3:])
    position_step(state, 0.5 * dt)
    out = model(state)
    state.energy, state.forces = out["energy"], out["forces"]
    state.stress = out.get("stress", state.stress)
    state.store_model_extras(out)
    _count(state, out)
    momentum_step(state, 0.5 * dt)
    return state


def _count(state: SpinLatticeState, out: dict[str, Tensor]) -> None:
    """Add the evaluations, beyond one, that a model took to relax the moments of each system."""
    if EVALUATIONS in out:
        counts = torch.zeros_like(state.moment_evaluations)
        counts = counts.scatter_reduce(0, state.system_idx, out[EVALUATIONS].to(counts.dtype), "amax")
        state.moment_evaluations = state.moment_evaluations + counts - 1


def kinetic_energy(state: MDState) -> Float[Tensor, " n_systems"]:
    """Kinetic energy of each system, in eV.

    Args:
        state: State with momenta.
    """
    parts = (state.momenta * state.momenta).sum(dim=1) / state.masses
    return 0.5 * sum_by_system(parts, state.system_idx, state.cell.shape[0])


def drifts(state: SimState) -> Bool[Tensor, " n_systems"]:
    """Whether the total momentum of each system is free, and no temperature of an isolated system has a part in it.

    Args:
        state: State with or without constraints; an atom alone has nothing but its total momentum.
    """
    return (state.n_atoms_per_system > 1) & (removed_degrees(state) == 0)


def removed_degrees(state: SimState) -> Int[Tensor, " n_systems"]:
    """Degrees of freedom of the atoms that constraints take from each system.

    Args:
        state: State with or without constraints.
    """
    removed = torch.zeros_like(state.n_atoms_per_system)
    for constraint in state.constraints:
        removed = removed + constraint.get_removed_dof(state)
    return removed


def _thermal_momenta(state: SimState, kT: float | Tensor, seed: Tensor) -> Float[Tensor, "n_atoms 3"]:
    """Maxwell's distribution, without total momentum where that is free."""
    counts, like, idx = state.n_atoms_per_system, state.positions, state.system_idx
    noise, _ = normal_numbers(seed, torch.full_like(counts, FIRST_DRAW), idx, _NOISE_COLUMNS, like)
    kT = _as_tensor(kT, like).expand(state.n_systems)
    momenta = (state.masses * kT[idx]).sqrt()[:, None] * noise[:, :3]
    for constraint in state.constraints:
        constraint.adjust_momenta(state, momenta)
    total, mass = (sum_by_system(values, idx, state.n_systems) for values in (momenta, state.masses))
    shift = torch.where(drifts(state)[:, None], total / mass[:, None], 0.0)
    return momenta - state.masses[:, None] * shift[idx]


def _as_tensor(value: float | Tensor, like: Tensor) -> Tensor:
    """A number is made on the device: copied to it, it would be waited for."""
    return value.to(like) if isinstance(value, Tensor) else like.new_full((), value)


def _gyromagnetic(state: SimState, g_factor: float | Mapping[int, float]) -> Float[Tensor, " n_atoms"]:
    if not isinstance(g_factor, Mapping):
        return state.positions.new_full((state.n_atoms,), gyromagnetic_ratio(g_factor))
    values = [g_factor.get(number, ELECTRON_G) for number in state.atomic_numbers.tolist()]
    return state.positions.new_tensor([gyromagnetic_ratio(value) for value in values])


def _rescale(
    state: SpinLatticeState,
    dt: Tensor,
    kT: Float[Tensor, " n_systems"],
    pressure: float,
    rate: float,
    noise: Float[Tensor, " n_systems"],
) -> None:
    """Stochastic rescaling of each cell, its atoms along and their momenta against it.

    With λ = √V: dλ = −½ rate λ (P₀ − P − k_BT/2V) dt + √(½ rate k_BT) dW, rate = compressibility/τ.
    """
    volume = torch.linalg.det(state.cell).abs()
    trace = state.stress.diagonal(dim1=1, dim2=2).sum(dim=1)
    inside = (2.0 * kinetic_energy(state) / volume - trace) / 3.0
    root = volume.sqrt()
    drift = -0.5 * rate * root * (pressure - inside - 0.5 * kT / volume) * dt
    scale = ((root + drift + (0.5 * rate * kT * dt).sqrt() * noise) / root) ** (2.0 / 3.0)
    state.cell = scale[:, None, None] * state.cell
    state.positions = scale[state.system_idx, None] * state.positions
    state.momenta = state.momenta / scale[state.system_idx, None]


def _move_moments(
    state: SpinLatticeState,
    model: ModelInterface,
    moments: MomentDynamics,
    dt: Tensor,
    kT: Float[Tensor, " n_atoms"],
    noise: Float[Tensor, "n_atoms 9"],
) -> None:
    """A step of the moments at the atoms of the moment."""

    def fields(magmoms: Float[Tensor, "n_atoms 3"]) -> Float[Tensor, "n_atoms 3"]:
        setattr(state, TORCHSIM_MAGMOMS, magmoms)
        return model(state, moments_only=True)[TORCHSIM_MAGFORCES]

    before, last = state.fields[:, 0], state.fields[:, 1]
    last = torch.where(last.isnan(), getattr(state, TORCHSIM_MAGFORCES), last)
    guess = torch.where(before.isnan(), last, 2.0 * last - before)
    step = moment_step(
        Spins(getattr(state, TORCHSIM_MAGMOMS), state.gyromagnetic, kT, state.system_idx, state.n_systems),
        fields,
        moments,
        dt=dt.expand(state.n_systems)[state.system_idx] * FS_PER_TIME,
        noise=noise,
        guess=guess,
    )
    setattr(state, TORCHSIM_MAGMOMS, step.magmoms)
    state.fields = torch.stack([last, step.fields], dim=1)
    state.moment_residual = step.residual
    state.moment_evaluations = state.moment_evaluations + step.n_evaluations
