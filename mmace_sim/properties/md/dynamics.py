"""Molecular dynamics of many structures in one batch, with moments frozen, following, or precessing."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers

from mmace_sim.base.hosts import ts
from mmace_sim.base.quantities import TORCHSIM_MAGFORCES
from mmace_sim.engine.journal import fingerprint
from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.properties.md.frames import Checkpoint, Frame
from mmace_sim.properties.md.simulation import MDResult, Simulation
from mmace_sim.properties.relax.relaxation import ModelLike, as_atoms
from mmace_sim.torchsim.adiabatic import AdiabaticModel
from mmace_sim.torchsim.freedom import largest_per_system
from mmace_sim.torchsim.langevin_spins import ELECTRON_G, MomentDynamics
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.noise import MEASUREMENT, normal_numbers
from mmace_sim.torchsim.spin_dynamics import (
    FS_PER_TIME,
    SpinLatticeState,
    spin_lattice_init,
    spin_lattice_step,
)
from mmace_sim.torchsim.spin_temperature import SpinTemperature, spin_temperature
from mmace_sim.torchsim.state import initialize_state
from mmace_sim.torchsim.zeeman import ZeemanModel
from mmace_sim.units import BOLTZMANN_EV_PER_K, EV_PER_A3_IN_GPA

ENSEMBLES: tuple[str, ...] = ("nve", "nvt", "npt")
SPINS: tuple[str, ...] = ("frozen", "adiabatic", "llg")
LENGTHS: tuple[str, ...] = ("fixed", "langevin")

DAMPING: float = 0.1
"""Gilbert damping where there is a heat bath."""

LENGTH_FRICTION: float = 0.05
"""Friction of the lengths, in μB²/(eV fs): with 1 eV/μB² they relax within 20 fs."""


class MolecularDynamics:
    """Simulates structures in batches: settings here, structures in :meth:`run`.

    One integrator does it all (`mmace_sim.torchsim.spin_dynamics`): velocity Verlet for "nve", with Langevin's bath for
    "nvt", with stochastic rescaling of the volume too for "npt". Noise belongs to a structure, not to the batch.

    Args:
        model: Model, its name or path, or any TorchSim model that gives magforces.
        ensemble: "nve", "nvt" or "npt".
        spins: "frozen": moments stay. "adiabatic": they are relaxed to `magforce_tol` at every step. "llg": they obey
            the equation of Landau, Lifshitz and Gilbert.
        temperature: Of the baths and of velocities that the structures do not have, in K.
        timestep: In fs.
        n_steps: Number of steps.
        record_every: Steps between two frames.
        friction: Of the atoms, in 1/ps ("nvt", "npt").
        pressure: In GPa ("npt").
        pressure_time: Relaxation time of the volume, in ps, for a bulk modulus of 100 GPa.
        damping: Gilbert's α ("llg"); by default 0.1, and 0 for "nve", which has no bath.
        lengths: "fixed", or "langevin": they fluctuate so that exp(−E/k_BT) d³m is sampled.
        length_friction: η of lengths under "langevin", in μB²/(eV fs).
        g_factor: Of all moments, or by symbol of the element.
        solver: "midpoint" or "sib", see `MomentDynamics`.
        moment_tol: Convergence of the implicit step of the moments, in μB.
        magforce_tol: Largest magforce left by "adiabatic", in eV/μB.
        field: Applied field in tesla; energies then contain −μB B·Σm.
        seed: With the structure, it decides all noise; copies of a structure have noise of their own.
        device: Where to run.
        dtype: Floating-point type.
        max_batch_atoms: Largest number of atoms in one batch; by default estimated from the memory.

    Raises:
        UnsupportedOptionError: If settings are unknown, impossible or contradict each other.
    """

    def __init__(
        self,
        model: ModelLike = "default",
        *,
        ensemble: str = "nvt",
        spins: str = "frozen",
        temperature: float = 300.0,
        timestep: float = 1.0,
        n_steps: int = 1000,
        record_every: int = 10,
        friction: float = 10.0,
        pressure: float = 0.0,
        pressure_time: float = 0.5,
        damping: float | None = None,
        lengths: str = "fixed",
        length_friction: float = LENGTH_FRICTION,
        g_factor: float | Mapping[str, float] = ELECTRON_G,
        solver: str = "midpoint",
        moment_tol: float = 1e-5,
        magforce_tol: float = 1e-3,
        field: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
        seed: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        max_batch_atoms: int | None = None,
    ) -> None:
        self.bath, self.rescales = ensemble != "nve", ensemble == "npt"
        damping = (DAMPING if self.bath else 0.0) if damping is None else damping
        _check(
            ensemble=ensemble in ENSEMBLES,
            spins=spins in SPINS,
            lengths=lengths in LENGTHS and (lengths == "fixed" or (self.bath and spins == "llg")),
            damping=damping == 0.0 or self.bath,
            temperature=temperature >= 0,
            timestep=timestep > 0,
            n_steps=n_steps >= 0,
            record_every=record_every >= 1,
            friction=friction > 0,
            pressure_time=pressure_time > 0,
            length_friction=length_friction > 0,
            magforce_tol=magforce_tol > 0,
            seed=seed >= 0,
        )
        if not isinstance(model, ts.models.interface.ModelInterface):
            model = MagneticMaceModel(model, device=device, dtype=dtype)
        self.bare_model = model
        if self.rescales and not model.compute_stress:
            raise UnsupportedOptionError(
                f"{type(model).__name__} gives no stress, without which there is no pressure: set compute_stress."
            )
        field_model = model
        if isinstance(model, MagneticMaceModel):
            field_model = MagneticMaceModel(model.model, compute_forces=False, compute_stress=False)
        if np.any(np.asarray(field, dtype=float) != 0.0):
            model, field_model = ZeemanModel(model, field), ZeemanModel(field_model, field)
        self.model = AdiabaticModel(model, magforce_tol=magforce_tol) if spins == "adiabatic" else model
        self.field_model, self.spins = field_model, spins
        self.temperature, self.timestep, self.seed = temperature, timestep, seed
        self.n_steps, self.record_every, self.max_batch_atoms = n_steps, record_every, max_batch_atoms
        unknown = set(g_factor) - set(atomic_numbers) if isinstance(g_factor, Mapping) else set()
        if unknown:
            raise UnsupportedOptionError(
                f"g_factor names {', '.join(sorted(unknown))}, expected symbols of elements."
            )
        self.g_factor = (
            {atomic_numbers[symbol]: value for symbol, value in g_factor.items()}
            if isinstance(g_factor, Mapping)
            else g_factor
        )
        self._step_settings: dict[str, Any] = {
            "dt": timestep / FS_PER_TIME,
            "kT": temperature * BOLTZMANN_EV_PER_K,
            "friction": friction / 1000.0 if self.bath else 0.0,
            "pressure": pressure / EV_PER_A3_IN_GPA if self.rescales else None,
            "pressure_time": 1000.0 * pressure_time,
            "compressibility": EV_PER_A3_IN_GPA / 100.0,
            "field_model": field_model,
        }
        if spins == "llg":
            self._step_settings["moments"] = MomentDynamics(
                damping=damping,
                length_friction=length_friction if lengths == "langevin" else 0.0,
                solver=solver,
                tolerance=moment_tol,
            )

    def run(
        self,
        structures: Any,
        *,
        checkpoints: Sequence[Checkpoint | None] | None = None,
        on_frame: Callable[[int, Frame], None] | None = None,
        on_finished: Callable[[int, MDResult], None] | None = None,
    ) -> list[MDResult]:
        """Simulate structures; one that fails does not stop the others.

        Args:
            structures: ASE, pymatgen or phonopy structures, one or many, each with moments; velocities are kept.
            checkpoints: Where to go on from, for each structure; None starts. A frame at a checkpoint is not repeated.
            on_frame: Called with the index of a structure and each of its frames.
            on_finished: Called with the index and the result of each structure as soon as it is finished.

        Returns:
            One result for each structure, in the same order.
        """
        simulation = Simulation(self, as_atoms(structures), checkpoints, on_frame, on_finished)
        return simulation.run()

    def step(self, state: SpinLatticeState) -> SpinLatticeState:
        """One step of a batch.

        Args:
            state: The batch.
        """
        state = spin_lattice_step(state, self.model, **self._step_settings)
        moments = self._step_settings.get("moments")
        if moments is not None and moments.solver == "midpoint":
            state.unsettled = state.unsettled + (state.moment_residual > moments.tolerance)
        elif isinstance(self.model, AdiabaticModel):
            left = largest_per_system(getattr(state, TORCHSIM_MAGFORCES), state)
            state.unsettled = state.unsettled + (left > self.model.magforce_tol)
        return state

    def start(self, atoms: Atoms, seed: int, checkpoint: Checkpoint | None = None) -> SpinLatticeState:
        """State of one structure before its first step, or where it was left.

        Args:
            atoms: The structure.
            seed: Of its noise.
            checkpoint: Where to go on from.
        """
        plain = initialize_state([atoms], device=self.bare_model.device, dtype=self.bare_model.dtype)
        seeds = torch.tensor([seed])
        kT = self._step_settings["kT"]
        state = spin_lattice_init(plain, self.model, kT=kT, seed=seeds, g_factor=self.g_factor)
        if checkpoint is not None:
            checkpoint.restore(state)
        return state

    def spin_temperature(self, state: SpinLatticeState) -> SpinTemperature | None:
        """What the temperature of the directions follows from; None where they have none.

        Args:
            state: The batch.
        """
        if self.spins != "llg":
            return None
        noise, _ = normal_numbers(
            state.seed, state.n_steps, state.n_atoms_per_system, 3, state.positions, stream=MEASUREMENT
        )
        return spin_temperature(state, self.field_model, noise=noise)

    def seeds(self, images: Sequence[Atoms]) -> list[int]:
        """Seeds of structures: the same in any batch, different for copies.

        Args:
            images: Structures.
        """
        seen: Counter[str] = Counter()
        seeds = []
        for atoms in images:
            print_ = fingerprint(atoms)
            text = f"{self.seed} {print_} {seen[print_]}"
            seen[print_] += 1
            seeds.append(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))
        return seeds


def _check(**conditions: bool) -> None:
    wrong = [name for name, holds in conditions.items() if not holds]
    if not wrong:
        return
    raise UnsupportedOptionError(
        f"{', '.join(wrong)}: impossible. Expected an ensemble {', '.join(ENSEMBLES)}; spins {', '.join(SPINS)}; "
        "positive times, frictions and tolerances; and, for damping or lengths = 'langevin', a heat bath (nvt or npt) "
        "and llg."
    )
