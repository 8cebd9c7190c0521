"""One-body energies of the published architecture and of those that differ from it by them."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmace_sim.architectures.paper_moments import moment_functions, saturate_outside
from mmace_sim.model.reference import ReferenceEnergy
from mmace_sim.nn.spline import natural_spline


class PaperReference(ReferenceEnergy):
    """E0_z + E1_z(m·m) in the Chebyshev functions T₁ … of 1 − 2 m·m/m_max², minus their values at m = 0.

    Args:
        max_moment: Largest moment of each element, in μB.
        num_basis: Number of functions.
        saturated: Whether moments saturate and a wall rises above the largest moment.
        clamped: Whether the functions are constant above the largest moment.
    """

    def __init__(
        self, max_moment: Sequence[float], num_basis: int, *, saturated: bool, clamped: bool
    ) -> None:
        super().__init__(max_moment, num_basis)
        self.saturated = saturated
        self.clamped = clamped

    def basis(
        self, magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_atoms n_basis"]:
        """Functions of m·m that vanish for a zero moment."""
        max_moment = self.max_moment[species]
        if self.saturated:
            magmoms = saturate_outside(magmoms, max_moment)
        return moment_functions(magmoms, max_moment, self.num_basis, clamped=self.clamped) - 1.0

    def wall(
        self, magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """The wall, in eV; none in the published function."""
        wall = super().wall(magmoms, species)
        return wall if self.saturated else torch.zeros_like(wall)


class SplineReference(PaperReference):
    """E0_z + E1_z(m·m) as a natural cubic spline with equidistant knots in m·m, constant beyond the last.

    E1 is linear in its values at the knots, which are the coefficients. A barrier, if there is one, adds
    a d + ½ b d² + λ (2y)³/(1 − y)² of d = |m| − m_0 > 0, y = d/((f − 1) m_0).

    Args:
        max_moment: Largest moment of each element, in μB.
        num_basis: Number of knots, the first at zero.
        saturated: Whether moments saturate and a wall rises above the largest moment.
        clamped: Not used: a spline is constant beyond its knots.
    """

    last_knot: Tensor
    barrier: Tensor
    barrier_constants: Tensor
    pieces: Tensor

    def __init__(
        self, max_moment: Sequence[float], num_basis: int, *, saturated: bool, clamped: bool
    ) -> None:
        super().__init__(max_moment, num_basis, saturated=saturated, clamped=clamped)
        n = len(max_moment)
        self.register_buffer("last_knot", torch.tensor(max_moment, dtype=torch.float64))
        self.register_buffer("barrier", torch.zeros(n, 4, dtype=torch.float64))
        self.register_buffer("barrier_constants", torch.zeros(3, dtype=torch.float64))
        self.register_buffer("pieces", natural_spline(num_basis), persistent=False)

    def basis(
        self, magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_atoms n_basis"]:
        """Splines that are one at one knot and zero at the others, minus their values at m = 0."""
        if self.saturated:
            magmoms = saturate_outside(magmoms, self.max_moment[species])
        square = (magmoms * magmoms).sum(-1) / self.last_knot[species] ** 2
        x = square.clamp(max=1.0) * (self.num_basis - 1)
        piece = x.detach().long().clamp(max=self.num_basis - 2)
        t = x - piece
        powers = torch.stack([torch.ones_like(t), t, t**2, t**3], dim=1)
        return torch.einsum("np,npk->nk", powers, self.pieces[piece]) - self.pieces[0, 0]

    def wall(
        self, magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """The barrier of the checkpoint and, if moments saturate, the wall, in eV."""
        wall = super().wall(magmoms, species)
        present, strength, eps = self.barrier_constants
        if present == 0.0:
            return wall
        onset, slope, curvature, factor = self.barrier[species].unbind(-1)
        square = (magmoms * magmoms).sum(-1)
        excess = torch.relu(square.clamp(min=1e-12).sqrt() - onset)
        y = (excess / ((factor - 1.0) * onset)).clamp(max=1.0 - float(eps))
        steep = strength * (2.0 * y) ** 3 / (1.0 - y + eps) ** 2
        return wall + slope * excess + 0.5 * curvature * excess**2 + steep
