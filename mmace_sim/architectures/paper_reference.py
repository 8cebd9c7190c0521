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
    """E0_z + E1_z(m·m) as a natural cubic spline in m·m, constant before the first knot and beyond the last.

    E1 is linear in its values at the knots, which are the coefficients. A barrier, if there is one, adds
    a d + ½ b d² + λ (2y)³/(1 − y)² of d = |m| − m_0 > 0, y = d/((f − 1) m_0).

    Args:
        max_moment: Largest moment of each element, in μB.
        num_basis: Number of knots: at first equidistant from zero to the largest moment squared.
        saturated: Whether moments saturate and a wall rises above the largest moment.
        clamped: Not used: a spline is constant beyond its knots.
    """

    knots: Tensor
    barrier: Tensor
    barrier_constants: Tensor
    pieces: Tensor
    origin: Tensor

    def __init__(
        self, max_moment: Sequence[float], num_basis: int, *, saturated: bool, clamped: bool
    ) -> None:
        super().__init__(max_moment, num_basis, saturated=saturated, clamped=clamped)
        n = len(max_moment)
        largest = torch.tensor(max_moment, dtype=torch.float64) ** 2
        knots = torch.linspace(0.0, 1.0, num_basis, dtype=torch.float64) * largest[:, None]
        self.register_buffer("knots", knots)
        self.register_buffer("barrier", torch.zeros(n, 4, dtype=torch.float64))
        self.register_buffer("barrier_constants", torch.zeros(3, dtype=torch.float64))
        self.register_buffer("pieces", natural_spline(knots), persistent=False)
        self.register_buffer("origin", torch.zeros_like(knots), persistent=False)
        self.set_knots(knots)
        self.register_load_state_dict_post_hook(lambda module, _: module.set_knots(module.knots))

    def set_knots(self, knots: Float[Tensor, "n_species n_basis"]) -> None:
        """Put other knots in place, and what follows from them.

        Args:
            knots: Ascending values of m·m of each element, in μB².
        """
        self.knots.copy_(knots)
        self.pieces.copy_(natural_spline(knots.double()))
        species = torch.arange(len(knots), device=knots.device)
        self.origin.copy_(self._values(torch.zeros_like(knots[:, 0]), species))

    def basis(
        self, magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_atoms n_basis"]:
        """Splines that are one at one knot and zero at the others, minus their values at m = 0."""
        if self.saturated:
            magmoms = saturate_outside(magmoms, self.max_moment[species])
        return self._values((magmoms * magmoms).sum(-1), species) - self.origin[species]

    def _values(
        self, square: Float[Tensor, " n_atoms"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_atoms n_basis"]:
        knots = self.knots[species]
        square = torch.clamp(square, knots[:, 0], knots[:, -1])
        piece = torch.searchsorted(knots[:, 1:].contiguous(), square.detach()[:, None])
        t = square - knots.gather(1, piece)[:, 0]
        powers = torch.stack([torch.ones_like(t), t, t**2, t**3], dim=1)
        return torch.einsum("np,npk->nk", powers, self.pieces[species, piece[:, 0]])

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
