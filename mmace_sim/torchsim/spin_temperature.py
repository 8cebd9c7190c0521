"""Temperature of the directions of moments, from a geometric identity: no kinetic energy is needed."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from mmace_sim.base.quantities import TORCHSIM_MAGFORCES
from mmace_sim.graph.batch import sum_by_system
from mmace_sim.torchsim.state import state_magmoms
from mmace_sim.torchsim.trial import next_state

ANGLE: float = 1e-3
"""Rotation of the moments in the finite difference, in rad."""


@dataclass
class SpinTemperature:
    """Both sides of k_BT ⟨∇²E⟩ = ⟨|∇E|²⟩ on the product of the spheres of all directions.

    Average both over time and divide the averages; the ratio at one moment fluctuates.

    Attributes:
        torque: Σ_i |m_i × B_i|², in eV².
        curvature: Σ_i ∇_i²E, in eV; for moments in fields that do not depend on them, 2 Σ_i m_i·B_i.
    """

    torque: Float[Tensor, " n_systems"]
    curvature: Float[Tensor, " n_systems"]


def spin_temperature(
    state: SimState, model: ModelInterface, *, noise: Float[Tensor, "n_atoms 3"]
) -> SpinTemperature:
    """Estimate what the temperature of the directions follows from, with two evaluations of the model.

    The curvature is a sample: every moment is turned by ±`ANGLE` about a random axis across it, independent of the
    others, and the second derivative of the energy along that path has half of Σ_i ∇_i²E as its mean. The form with
    m·B in its place holds only where the energy is linear in each moment, which a general model is not.

    Args:
        state: State with moments; left as it is.
        model: Model that gives magforces.
        noise: Standard normal numbers that choose the axes.

    References:
        Nurdin, Schotte, 10.1103/PhysRevE.61.3579, eq. 8; Rugh, 10.1103/PhysRevLett.78.772.
    """
    magmoms = state_magmoms(state)
    axes = torch.linalg.cross(magmoms, noise)
    axes = axes / torch.linalg.norm(axes, dim=1, keepdim=True).clamp(min=1e-30)
    aside = torch.linalg.cross(axes, magmoms)
    trial = next_state(state)

    def along(angle: float) -> tuple[Tensor, Tensor]:
        """Magforces on turned moments, and dE/dangle of each system."""
        cos, sin = math.cos(angle), math.sin(angle)
        trial.magnetic_moments = cos * magmoms + sin * aside
        fields = model(trial, moments_only=True)[TORCHSIM_MAGFORCES]
        return fields, -_sum((fields * (cos * aside - sin * magmoms)).sum(dim=1), state)

    (up, slope_up), (down, slope_down) = along(ANGLE), along(-ANGLE)
    torque = torch.linalg.cross(magmoms, 0.5 * (up + down))
    return SpinTemperature(
        torque=_sum((torque * torque).sum(dim=1), state),
        curvature=(slope_up - slope_down) / ANGLE,
    )


def _sum(values: Float[Tensor, " n_atoms"], state: SimState) -> Float[Tensor, " n_systems"]:
    return sum_by_system(values, state.system_idx, state.cell.shape[0])
