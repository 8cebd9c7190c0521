"""Moments in a crystal field, whose anisotropy constants are given."""

from collections.abc import Sequence
from typing import override

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.testing.toys import ToyModel


class SingleIonModel(ToyModel):
    """Independent moments with uniaxial and cubic anisotropy about axes that are fixed in space.

    E = Σ_i [E0 + a m_i² + b m_i⁴ + K1 sin²θ + K2 sin⁴θ + K3 sin⁶θ + B4 sin⁴θ cos 4φ + B4' sin⁶θ cos 4φ
             + B6 sin⁶θ cos 6φ + C1 p + C2 α1²α2²α3² + C3 p²],   p = α1²α2² + α2²α3² + α3²α1²,

    α the components of m_i/|m_i| along the axes x, y, z; θ is the angle to z, φ that of the projection to x. The
    energy is even in the moments and does not depend on positions. It is not invariant when a structure is turned,
    because the axes stay, nor smooth at m = 0.

    Known answers, per atom: the constants are those given. With `per_square` everything but E0, a and b is
    multiplied by m², and relaxed lengths give, if K1 is the only constant, E(θ) = E0 − (a + K1 sin²θ)²/(4b), that is
    constants K1 m² at θ = 0 and −K1²/(4b).

    Args:
        uniaxial: (K1, K2, K3) in eV, or the first of them; positive K1 is an easy axis.
        basal: B4 in eV, or (B4, B4', B6).
        cubic: (C1, C2, C3) in eV, or the first of them; positive C1 is an easy ⟨100⟩.
        axes: Axes as rows; made unit vectors.
        landau: (a, b) in eV/μB² and eV/μB⁴.
        per_square: Whether the constants are those of 1 μB and go with m².
        energy_per_atom: E0 in eV.
        elements: Atomic numbers that are accepted.
        r_max: Cutoff radius, in Å; no pair matters.
    """

    axes: Tensor

    def __init__(
        self,
        *,
        uniaxial: Sequence[float] = (),
        basal: float | Sequence[float] = 0.0,
        cubic: Sequence[float] = (),
        axes: Sequence[Sequence[float]] | np.ndarray = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        landau: tuple[float, float] = (-0.4, 0.05),
        per_square: bool = False,
        energy_per_atom: float = -8.0,
        elements: Sequence[int] = (26,),
        r_max: float = 3.0,
    ) -> None:
        super().__init__("single-ion-toy", elements)
        self.uniaxial, self.basal, self.cubic = (
            (*np.atleast_1d(values).tolist(), 0.0, 0.0, 0.0)[:3] for values in (uniaxial, basal, cubic)
        )
        self.landau, self.per_square, self.energy_per_atom = landau, per_square, energy_per_atom
        self.r_max = r_max
        rows = np.asarray(axes, dtype=float)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self.register_buffer("axes", torch.as_tensor(rows), persistent=False)

    @property
    def spin_orbit(self) -> bool:
        """Whether directions of moments couple to space."""
        return any((*self.uniaxial, *self.basal, *self.cubic))

    def relaxed_moment(self) -> float:
        """Length of the relaxed moments without anisotropy, in μB."""
        a, b = self.landau
        return max(-a / (2 * b), 0.0) ** 0.5

    @override
    def site_energies(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"]
    ) -> Float[Tensor, " n_atoms"]:
        del vectors  # they do not matter
        square = (graph.magmoms * graph.magmoms).sum(dim=1)
        x, y, z = (graph.magmoms @ self.axes.T / square.sqrt()[:, None]).unbind(dim=1)
        sine = x * x + y * y
        fourfold = x**4 - 6 * x * x * y * y + y**4
        sixfold = x**6 - 15 * x**4 * y * y + 15 * x * x * y**4 - y**6
        pairs = x * x * y * y + sine * z * z
        functions = (
            *(sine, sine**2, sine**3),
            *(fourfold, fourfold * sine, sixfold),
            *(pairs, (x * y * z) ** 2, pairs**2),
        )
        constants = (*self.uniaxial, *self.basal, *self.cubic)
        field = sum(constant * function for constant, function in zip(constants, functions, strict=True))
        field = field * square if self.per_square else field
        return self.energy_per_atom + self.landau[0] * square + self.landau[1] * square**2 + field
