"""Moments that follow the atoms: a model whose moments are relaxed inside every evaluation."""

from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from mmace_sim.keys import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS
from mmace_sim.torchsim.fire import (
    DegreesOfFreedom,
    largest_per_system,
    magnetic_fire_init,
    magnetic_fire_step,
)


class AdiabaticModel(ModelInterface):
    """Relaxes the moments at fixed atoms until −∂E/∂m vanishes, then gives energy, forces and stress there.

    By the Hellmann–Feynman theorem those are the derivatives of the adiabatic energy min_m E(r, m). The relaxed
    moments are an output, which TorchSim's optimisers and integrators write back into the state, so each step
    starts from the last.

    Args:
        model: A model that gives magforces.
        magforce_tol: Largest remaining magforce, in eV/μB.
        max_steps: Steps after which the moments are taken as they are; the magforces, which are an output, tell.
        collinear: Moments keep their axis.
        fix_magnitude: Moments keep their length.
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

    def forward(self, state: SimState, **_kwargs: object) -> dict[str, Tensor]:
        """Energy, forces, stress, remaining magforces and the relaxed "magnetic_moments"."""
        plain = SimState(
            positions=state.positions,
            masses=state.masses,
            cell=state.cell,
            pbc=state.pbc,
            atomic_numbers=state.atomic_numbers,
            system_idx=state.system_idx,
            _atom_extras={TORCHSIM_MAGMOMS: getattr(state, TORCHSIM_MAGMOMS)},
        )
        fire = magnetic_fire_init(plain, self.model, freedom=self.freedom, dt_start=0.5)
        for _ in range(self.max_steps):
            active = largest_per_system(fire.moment_forces(), fire) > self.magforce_tol
            if not bool(active.any()):
                break
            fire = magnetic_fire_step(fire, self.model, active=active)
        return {
            "energy": fire.energy,
            "forces": fire.forces,
            "stress": fire.stress,
            TORCHSIM_MAGFORCES: fire.moment_forces(),
            TORCHSIM_MAGMOMS: getattr(fire, TORCHSIM_MAGMOMS),
        }
