"""What is recorded of a simulation: numbers, a structure, and what it takes to go on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Float
from torch import Tensor

from mmace_sim.base.quantities import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS
from mmace_sim.graph.cells import has_volume, physical_stress
from mmace_sim.torchsim.spin_dynamics import SpinLatticeState, drifts, kinetic_energy, removed_degrees
from mmace_sim.torchsim.spin_temperature import SpinTemperature
from mmace_sim.torchsim.state import state_to_atoms
from mmace_sim.units import BOLTZMANN_EV_PER_K, EV_PER_A3_IN_GPA

_STATE = (
    "positions", "momenta", "fields", "cell", "energy", "forces", "stress", "moment_residual",
    "seed", "n_steps", "moment_evaluations", "unsettled",
)  # fmt: skip


@dataclass
class Checkpoint:
    """State of one system: what it takes to go on.

    Attributes:
        arrays: Positions, momenta, cell, results of the model, last fields, seed and counts in TorchSim's layout, and
            all extras of the atoms: moments, magforces, what adiabatic moments remember.
        forces_uncertainty: Of its least certain force, in eV/Å; None if not known.

    Raises:
        ValueError: If something is missing.
    """

    arrays: dict[str, np.ndarray]
    forces_uncertainty: float | None = None

    def __post_init__(self) -> None:
        missing = [name for name in (*_STATE, TORCHSIM_MAGMOMS) if name not in self.arrays]
        if missing:
            raise ValueError(f"without {', '.join(missing)}")

    @classmethod
    def of(cls, state: SpinLatticeState, forces_uncertainty: float | None = None) -> "Checkpoint":
        """Take the state of a single system.

        Args:
            state: Its state.
            forces_uncertainty: As in the attribute.
        """
        values = {name: getattr(state, name) for name in _STATE} | dict(state.atom_extras)
        arrays = {name: value.cpu().numpy().copy() for name, value in values.items()}
        return cls(arrays, forces_uncertainty)

    def restore(self, state: SpinLatticeState) -> None:
        """Write into the state of the same system, which is then where it was left, to the last bit.

        Args:
            state: State of the structure that the simulation began with.
        """
        for name, values in self.arrays.items():
            like = getattr(state, name)
            setattr(state, name, torch.as_tensor(values, dtype=like.dtype, device=like.device))

    @property
    def n_steps(self) -> int:
        """Steps that were done."""
        return int(self.arrays["n_steps"][0])


@dataclass
class Snapshot:
    """One record of one system.

    Attributes:
        values: Numbers by column, see `mmace_sim.properties.md.declaration.THERMO`.
        atoms: Structure with momenta, moments and results.
        checkpoint: What it takes to go on from here.
    """

    values: dict[str, Any]
    atoms: Atoms
    checkpoint: Checkpoint


def temperatures(state: SpinLatticeState, *, free_momentum: bool) -> Float[Tensor, " n_systems"]:
    """Temperature of the atoms of each system, in K; NaN where no atom can move.

    Args:
        state: State with momenta.
        free_momentum: Whether a bath acts on the total momentum too. Without one it is conserved, and has no part in
            the temperature.
    """
    degrees = 3 * state.n_atoms_per_system - removed_degrees(state)
    kinetic = kinetic_energy(state)
    if not free_momentum:
        idx = state.system_idx
        momentum = torch.zeros_like(state.cell[:, 0]).index_add(0, idx, state.momenta)
        mass = torch.zeros_like(kinetic).index_add(0, idx, state.masses)
        apart = drifts(state)
        degrees = torch.where(apart, degrees - 3, degrees)
        kinetic = torch.where(apart, kinetic - 0.5 * momentum.square().sum(dim=1) / mass, kinetic)
    return 2.0 * kinetic / (degrees * BOLTZMANN_EV_PER_K)


def record(
    state: SpinLatticeState,
    template: Atoms,
    *,
    timestep: float,
    free_momentum: bool,
    spin: SpinTemperature | None,
    doubt: tuple[float, float] | None = None,
) -> Snapshot:
    """Record a single system.

    Args:
        state: Its state.
        template: The structure that it began with.
        timestep: In fs.
        free_momentum: See `temperatures`.
        spin: Of this system; None where moments have no temperature.
        doubt: Uncertainty of its least certain force in eV/Å, and its distance from the data; None if not known.
    """
    n_atoms, step = state.n_atoms, int(state.n_steps)
    magmoms, magforces = getattr(state, TORCHSIM_MAGMOMS), getattr(state, TORCHSIM_MAGFORCES)
    kinetic, potential = float(kinetic_energy(state)), float(state.energy)
    volume = float(torch.linalg.det(state.cell).abs()) if has_volume(template) else None
    trace = float(state.stress.diagonal(dim1=1, dim2=2).sum())
    torque, curvature = (None, None) if spin is None else (float(spin.torque), float(spin.curvature))
    values = {
        "step": step,
        "time": step * timestep,
        "energy_potential": potential,
        "energy_kinetic": kinetic,
        "energy_total": potential + kinetic,
        "temperature": float(temperatures(state, free_momentum=free_momentum)),
        "spin_temperature": torque / curvature / BOLTZMANN_EV_PER_K if curvature else None,
        "spin_torque": torque,
        "spin_curvature": curvature,
        "mean_magmom": float(torch.linalg.norm(magmoms, dim=1).mean()),
        "total_magmom": float(torch.linalg.norm(magmoms.sum(dim=0))) / n_atoms,
        "max_magforce": float(torch.linalg.norm(magforces, dim=1).max()),
        "volume": volume,
        "pressure": (2.0 * kinetic / volume - trace) / 3.0 * EV_PER_A3_IN_GPA if volume else None,
        "n_evaluations": step + 1 + int(state.moment_evaluations),
        "domain_distance": None if doubt is None else doubt[1],
        "forces_uncertainty": None if doubt is None else doubt[0],
    }
    checkpoint = Checkpoint.of(state, values["forces_uncertainty"])
    return Snapshot(values, _structure(state, template, values), checkpoint)


def _structure(state: SpinLatticeState, template: Atoms, values: dict[str, Any]) -> Atoms:
    (atoms,) = state_to_atoms(state, [template])
    atoms.info |= {key: values[key] for key in ("step", "time", "temperature")}
    results = {
        "energy": values["energy_potential"],
        "forces": state.forces.cpu().numpy().astype(float),
        "magmoms": getattr(state, TORCHSIM_MAGMOMS).cpu().numpy().astype(float),
    }
    stress = physical_stress(state.stress[0].cpu().numpy().astype(float), template)
    if stress is not None:
        results["stress"] = full_3x3_to_voigt_6_stress(stress)
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.arrays["magforces"] = getattr(state, TORCHSIM_MAGFORCES).cpu().numpy().astype(float)
    return atoms
