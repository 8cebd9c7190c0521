"""Spins with more than Heisenberg exchange: biquadratic, chiral, and uniaxial terms."""

from collections.abc import Sequence
from typing import Any, override

import torch
from jaxtyping import Float
from torch import Tensor

from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.testing.toys import HeisenbergModel, shell_sum


class SpinModel(HeisenbergModel):
    """`HeisenbergModel` with biquadratic exchange, Dzyaloshinskii–Moriya interaction and an easy axis.

    To the energy of `HeisenbergModel` come − Σ_{i<j} [B(r) (s_i·s_j)² + D(r) r̂·(s_i × s_j)] − K Σ_i (m_i·n/|m_i|)²,
    r̂ from i to j. D is for chiral crystals: it needs no inversion centre in the middle of a pair, which this toy does
    not know.

    Known answers, with unit vectors:

    - **Biquadratic**: second derivatives give J' + 2B at a ferromagnetic pair and J' − 2B at an antiferromagnetic one;
      four states of tilt θ give J' + 2B cos²θ, that is J' at 90°. Cones of θ give J' + 2B cos²θ for the pair r and
      ½ B sin²θ for the pair 2r.
    - **Chiral**: the vector D of a pair is D r̂. Magnons e^{i(q·r − ωt)} of a ferromagnet along n: ħω = (2/m) Σ_j
      [J' (1 − cos q·r) + D r̂·n sin q·r], different for q and −q.
    - **Easy axis**: magnons of a ferromagnet along n have a gap of 4K/m.

    Without unit vectors, lengths are soft: a ferromagnet and every spiral have m² = (h − a)/(2b) and the energy E0 −
    (h − a)²/(4b) per atom (a, b from `landau`), h = ½ Σ_s z_s J'_s c_s; c_s: mean cosine of the angles to shell s.

    Args:
        biquadratic_shells: Pairs of a distance in Å and B in eV (eV/μB⁴ without unit vectors).
        dmi_shells: Pairs of a distance in Å and D in eV (eV/μB²).
        uniaxial: K in eV; positive is an easy axis.
        axis: n; made a unit vector.
        options: Of `HeisenbergModel`.
    """

    axis: Tensor

    def __init__(
        self,
        *,
        biquadratic_shells: Sequence[tuple[float, float]] = (),
        dmi_shells: Sequence[tuple[float, float]] = (),
        uniaxial: float = 0.0,
        axis: Sequence[float] = (0.0, 0.0, 1.0),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.biquadratic_shells, self.dmi_shells = list(biquadratic_shells), list(dmi_shells)
        self.uniaxial = uniaxial
        reach = [distance + 0.3 for distance, _ in (*self.biquadratic_shells, *self.dmi_shells)]
        self.r_max = max([self.r_max, *reach])
        self.metadata = {"name": "spin-toy"}
        direction = torch.tensor(axis, dtype=torch.float64)
        self.register_buffer("axis", direction / torch.linalg.norm(direction), persistent=False)

    @property
    @override
    def spin_orbit(self) -> bool:
        """Whether directions of moments couple to space."""
        return super().spin_orbit or bool(self.dmi_shells) or self.uniaxial != 0.0

    @override
    def site_energies(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"]
    ) -> Float[Tensor, " n_atoms"]:
        node_energy = super().site_energies(graph, vectors)
        if self.uniaxial == 0.0:
            return node_energy
        along = graph.magmoms @ self.axis.to(graph.magmoms.dtype)
        easy = -self.uniaxial * along**2 / (graph.magmoms * graph.magmoms).sum(dim=1)
        return node_energy + easy.double()

    @override
    def _pair_energy(
        self,
        vectors: Float[Tensor, "n_edges 3"],
        spins_j: Float[Tensor, "n_edges 3"],
        spins_i: Float[Tensor, "n_edges 3"],
    ) -> Float[Tensor, " n_edges"]:
        pairs = super()._pair_energy(vectors, spins_j, spins_i)
        lengths = torch.linalg.norm(vectors, dim=1)
        squares = (spins_i * spins_j).sum(dim=1) ** 2
        chiral = (vectors * torch.linalg.cross(spins_i, spins_j)).sum(dim=1) / lengths
        return (
            pairs
            - shell_sum(self.biquadratic_shells, lengths) * squares
            - shell_sum(self.dmi_shells, lengths) * chiral
        )
