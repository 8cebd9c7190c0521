"""Molecular dynamics of many structures in one batch, with moments frozen, following, or precessing."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, override

import torch
from ase import Atoms
from ase.data import atomic_numbers

from mmace_sim.base.hosts import ts
from mmace_sim.base.quantities import TORCHSIM_MAGFORCES
from mmace_sim.engine.journal import fingerprint
from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.properties.md.declaration import MDSettings
from mmace_sim.properties.md.frames import Checkpoint, Snapshot
from mmace_sim.properties.md.simulation import MDResult, Simulation
from mmace_sim.properties.relax.relaxation import ModelLike, as_atoms
from mmace_sim.properties.workflow import Workflow
from mmace_sim.torchsim.adiabatic import AdiabaticModel
from mmace_sim.torchsim.freedom import largest_per_system
from mmace_sim.torchsim.langevin_spins import MomentDynamics
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.noise import MEASUREMENT, normal_numbers
from mmace_sim.torchsim.spin_dynamics import (
    FS_PER_TIME,
    SpinLatticeState,
    spin_lattice_init,
    spin_lattice_step,
)
from mmace_sim.torchsim.spin_temperature import SpinTemperature, spin_temperature
from mmace_sim.torchsim.state import StructuresLike, initialize_state
from mmace_sim.torchsim.zeeman import ZeemanModel
from mmace_sim.units import BOLTZMANN_EV_PER_K, EV_PER_A3_IN_GPA

DAMPING: float = 0.1
"""Gilbert damping where there is a heat bath."""


class MolecularDynamics(Workflow[MDSettings]):
    """Simulates structures in batches: settings here, structures in :meth:`run`.

    One integrator does it all (`mmace_sim.torchsim.spin_dynamics`): velocity Verlet for "nve", with Langevin's bath for
    "nvt", with stochastic rescaling of the volume too for "npt". Noise belongs to a structure, not to the batch.

    Its settings are :class:`~mmace_sim.properties.md.declaration.MDSettings`.

    Raises:
        UnsupportedOptionError: If the model lacks what a setting asks for.
    """

    kind = MDSettings

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        settings, self.max_batch_atoms = self.settings, where.pop("max_batch_atoms")
        self.bath, self.rescales = settings.ensemble != "nve", settings.ensemble == "npt"
        if not isinstance(model, ts.models.interface.ModelInterface):
            model = MagneticMaceModel(model, **where)
        self.bare_model = model
        if self.rescales and not model.compute_stress:
            raise UnsupportedOptionError(
                f"{type(model).__name__} gives no stress, without which there is no pressure: set compute_stress."
            )
        if any(settings.field):
            model = ZeemanModel(model, settings.field)
        follows = settings.spins == "adiabatic"
        self.model = AdiabaticModel(model, magforce_tol=settings.magforce_tol) if follows else model
        g_factor = settings.g_factor
        self.g_factor = (
            {atomic_numbers[symbol]: value for symbol, value in g_factor.items()}
            if isinstance(g_factor, Mapping)
            else g_factor
        )
        self._step_settings: dict[str, Any] = {
            "dt": settings.timestep / FS_PER_TIME,
            "kT": settings.temperature * BOLTZMANN_EV_PER_K,
            "friction": settings.friction / 1000.0 if self.bath else 0.0,
            "pressure": settings.pressure / EV_PER_A3_IN_GPA if self.rescales else None,
            "pressure_time": 1000.0 * settings.pressure_time,
            "compressibility": EV_PER_A3_IN_GPA / 100.0,
        }
        if settings.spins == "llg":
            default = DAMPING if self.bath else 0.0
            self._step_settings["moments"] = MomentDynamics(
                damping=default if settings.damping is None else settings.damping,
                length_friction=settings.length_friction if settings.lengths == "langevin" else 0.0,
                solver=settings.solver,
                tolerance=settings.moment_tol,
            )

    def run(
        self,
        structures: StructuresLike,
        *,
        checkpoints: Sequence[Checkpoint | None] | None = None,
        seeds: Sequence[int] | None = None,
        on_frame: Callable[[int, Snapshot], None] | None = None,
        on_finished: Callable[[int, MDResult], None] | None = None,
    ) -> list[MDResult]:
        """Simulate structures; one that fails does not stop the others.

        Args:
            structures: ASE, pymatgen or phonopy structures, one or many, each with moments; velocities are kept.
            checkpoints: Where to go on from, for each structure; None starts. A frame at a checkpoint is not repeated.
            seeds: Of the noise of each structure; by default those of `seeds`.
            on_frame: Called with the index of a structure and each of its frames.
            on_finished: Called with the index and the result of each structure as soon as it is finished.

        Returns:
            One result for each structure, in the same order.
        """
        simulation = Simulation(self, as_atoms(structures), checkpoints, on_frame, on_finished)
        return simulation.run(seeds)

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
        if self.settings.spins != "llg":
            return None
        noise, _ = normal_numbers(
            state.seed, state.n_steps, state.system_idx, 3, state.positions, stream=MEASUREMENT
        )
        return spin_temperature(state, self.model, noise=noise)

    def seeds(self, images: Sequence[Atoms], names: Sequence[str] | None = None) -> list[int]:
        """Seeds of structures: the same in any batch, different for copies.

        Args:
            images: Structures.
            names: What tells copies apart, where not all of them are here; by default, how many there were before.
        """
        seen: Counter[str] = Counter()
        seeds = []
        for index, atoms in enumerate(images):
            print_ = fingerprint(atoms)
            text = f"{self.settings.seed} {print_} {seen[print_] if names is None else names[index]}"
            seen[print_] += 1
            seeds.append(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))
        return seeds
