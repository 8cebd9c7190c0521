"""Toy magnetic models whose answers are known on paper."""

from collections.abc import Sequence
from typing import Any, override

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmace_sim.graph.batch import MagneticGraph

_SHELL_WIDTH = 0.3  # Å


class ToyModel(nn.Module):
    """An energy model like `mmace_sim.model.magnetic_mace.MagneticMACE`, that can be used wherever that can.

    Args:
        name: In its metadata.
        elements: Atomic numbers that are accepted; all are alike.
    """

    species_table: Tensor
    _unit: Tensor

    def __init__(self, name: str, elements: Sequence[int]) -> None:
        super().__init__()
        self.elements = sorted(elements)
        self.metadata: dict[str, Any] = {"name": name}
        table = torch.full((120,), -1, dtype=torch.long)
        table[self.elements] = 0
        self.register_buffer("species_table", table, persistent=False)
        self.register_buffer("_unit", torch.ones((), dtype=torch.float64), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the model."""
        return self._unit.dtype

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self._unit.device

    def forward(
        self, graph: MagneticGraph, edge_vectors: Float[Tensor, "n_edges 3"] | None = None
    ) -> dict[str, Tensor]:
        """Energies of the structures of a batch.

        Args:
            graph: The batch, with pairs up to the cutoff (longer ones do no harm).
            edge_vectors: Pair vectors to use instead of the graph's own, in Å.

        Returns:
            "energy" of each structure and "node_energy" of each atom, in eV and float64.
        """
        vectors = graph.edge_vectors() if edge_vectors is None else edge_vectors
        node_energy = self.site_energies(graph, vectors).double()
        energy = node_energy.new_zeros(graph.n_systems).index_add(0, graph.system_idx, node_energy)
        return {"energy": energy, "node_energy": node_energy}

    def site_energies(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"]
    ) -> Float[Tensor, " n_atoms"]:
        """Energy of each atom, in eV: what a toy is.

        Args:
            graph: The batch.
            vectors: Vector of each pair, in Å.
        """
        raise NotImplementedError


class HeisenbergModel(ToyModel):
    """Classical spins on springs: exchange, Landau energy of the moments, Morse pairs.

    E = Σ_i [E0 + a m_i² + b m_i⁴] + Σ_{i<j} w(r_ij) [V(r_ij) − J'(r_ij) s_i·s_j − K (s_i·r̂_ij)(s_j·r̂_ij)],
    V(r) = D [(1 − e^{−α (r − r₀)})² − 1], J'(r) = J'₀ e^{−λ (r − r₀)},

    over unique pairs, with s_i = m_i (in μB) or, with ``unit_vectors``, s_i = m_i/|m_i| as in DESIGN §7. The
    factor w is 1 below `r_on` and goes to zero at `r_max` with three continuous derivatives. All elements are
    alike.

    Known answers, for a lattice with z neighbours at the distance r₀, no other atom closer than `r_max`, λ =
    K = 0: r₀ is the relaxed distance, and the relaxed ferromagnet has m² = (z J'₀/2 − a)/(2b), or m² =
    −a/(2b) with unit vectors. The lattice must be rigid under springs between nearest neighbours: fcc and hcp
    are, bcc and simple cubic are not.

    With `exchange_shells` every spiral or collinear order on a Bravais lattice has m² = (h − a)/(2b) and the energy
    E0 − (h − a)²/(4b) per atom beside the springs, h = ½ Σ_s z_s J'_s c_s, where c_s is the mean cosine of the
    angles between an atom and its z_s neighbours of shell s.

    Args:
        exchange: J'₀ in eV (unit vectors) or eV/μB²; positive is ferromagnetic.
        exchange_decay: λ in 1/Å; couples the exchange to distances.
        pseudo_dipolar: K, in the unit of `exchange`; couples spins to the lattice, like a spin–orbit
            interaction.
        landau: (a, b) in eV/μB² and eV/μB⁴.
        morse: (D, α, r₀) in eV, 1/Å and Å.
        energy_per_atom: E0 in eV.
        exchange_shells: Pairs of a distance in Å and J' there, instead of `exchange`: within 0.3 Å of that
            distance the exchange is J' (1 − x²)⁴, x = (r − distance)/0.3 Å, and beyond there is none.
        unit_vectors: Whether exchange acts on directions only. The energy then is not smooth at m = 0.
        elements: Atomic numbers that are accepted.
        r_on: Distance where the cutoff begins to act, in Å.
        r_max: Cutoff radius, in Å; larger where `exchange_shells` ask for it.
    """

    def __init__(
        self,
        *,
        exchange: float = 0.02,
        exchange_decay: float = 0.0,
        pseudo_dipolar: float = 0.0,
        landau: tuple[float, float] = (-0.4, 0.05),
        morse: tuple[float, float, float] = (0.4, 1.4, 2.5),
        energy_per_atom: float = -8.0,
        exchange_shells: Sequence[tuple[float, float]] = (),
        unit_vectors: bool = False,
        elements: Sequence[int] = (26,),
        r_on: float = 2.9,
        r_max: float = 3.4,
    ) -> None:
        super().__init__("heisenberg-toy", elements)
        self.exchange, self.exchange_decay, self.pseudo_dipolar = exchange, exchange_decay, pseudo_dipolar
        self.landau, self.morse, self.energy_per_atom = landau, morse, energy_per_atom
        self.exchange_shells = [(float(distance), float(value)) for distance, value in exchange_shells]
        self.unit_vectors = unit_vectors
        self.r_on, self.r_off = r_on, r_max
        self.r_max = max([r_max, *(distance + _SHELL_WIDTH for distance, _ in self.exchange_shells)])

    @property
    def spin_orbit(self) -> bool:
        """Whether directions of moments couple to space."""
        return self.pseudo_dipolar != 0.0

    def relaxed_moment(self, n_neighbors: int) -> float:
        """Length of the moments of the relaxed ferromagnet, in μB, for λ = K = 0.

        Args:
            n_neighbors: Number z of nearest neighbours of each atom.
        """
        a, b = self.landau
        field = 0.0 if self.unit_vectors else 0.5 * n_neighbors * self.exchange
        return max((field - a) / (2 * b), 0.0) ** 0.5

    def relaxed_energy(self, n_neighbors: int) -> float:
        """Energy per atom of the relaxed ferromagnet, in eV, for λ = K = 0.

        Args:
            n_neighbors: Number z of nearest neighbours of each atom.
        """
        a, b = self.landau
        square = self.relaxed_moment(n_neighbors) ** 2
        spins = 1.0 if self.unit_vectors else square
        pairs = -0.5 * n_neighbors * (self.morse[0] + self.exchange * spins)
        return self.energy_per_atom + a * square + b * square**2 + pairs

    @override
    def site_energies(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"]
    ) -> Float[Tensor, " n_atoms"]:
        sender, receiver = graph.edge_index
        square = (graph.magmoms * graph.magmoms).sum(dim=1)
        spins = graph.magmoms / square.sqrt()[:, None] if self.unit_vectors else graph.magmoms
        pairs = self._pair_energy(vectors, spins[sender], spins[receiver])
        node_energy = self.energy_per_atom + self.landau[0] * square + self.landau[1] * square**2
        return node_energy.double().index_add(0, receiver, 0.5 * pairs.double())

    def _pair_energy(
        self,
        vectors: Float[Tensor, "n_edges 3"],
        spins_j: Float[Tensor, "n_edges 3"],
        spins_i: Float[Tensor, "n_edges 3"],
    ) -> Float[Tensor, " n_edges"]:
        depth, stiffness, distance = self.morse
        lengths = torch.linalg.norm(vectors, dim=1)
        directions = vectors / lengths[:, None]
        stretch = lengths - distance
        morse = depth * ((1.0 - torch.exp(-stiffness * stretch)) ** 2 - 1.0)
        products = (spins_i * spins_j).sum(dim=1)
        dipolar = (spins_i * directions).sum(dim=1) * (spins_j * directions).sum(dim=1)
        x = ((lengths - self.r_on) / (self.r_off - self.r_on)).clamp(0.0, 1.0)
        switch = 1.0 - x**4 * (35.0 - 84.0 * x + 70.0 * x**2 - 20.0 * x**3)
        within = switch * (morse - self.pseudo_dipolar * dipolar)
        if self.exchange_shells:
            return within - shell_sum(self.exchange_shells, lengths) * products
        return within - switch * self.exchange * torch.exp(-self.exchange_decay * stretch) * products


def shell_sum(shells: Sequence[tuple[float, float]], lengths: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """A value for each distance: v (1 − x²)⁴ within 0.3 Å of the shell of v, x = (r − distance)/0.3 Å.

    Args:
        shells: Pairs of a distance in Å and a value.
        lengths: Distances, in Å.

    Returns:
        Values in the unit of the shells.
    """
    total = torch.zeros_like(lengths)
    for distance, value in shells:
        inside = (1.0 - ((lengths - distance) / _SHELL_WIDTH) ** 2).clamp(min=0.0)
        total = total + value * inside**4
    return total


class TensorExchangeModel(ToyModel):
    """Classical spins with a whole exchange tensor for each pair, and nothing else.

    E = Σ_i b (m_i² − 1)² − Σ_{i<j} w(r_ij) s_i·J(r̂_ij)·s_j, with s = m/|m| and J = J' 1 + K (r̂ r̂ᵀ − ⅓) + [D]×, so that
    s_i·[D]×·s_j = D·(s_i × s_j), D = D₁ r̂ + D₂ ẑ × r̂, over unique pairs. D₁ belongs to a chiral crystal and D₂ to a
    surface: a crystal with inversion has neither, which this toy does not know. It is not smooth at m = 0.

    Args:
        exchange: J' in eV.
        dmi: D₁ and D₂ in eV.
        anisotropic: K in eV.
        elements: Atomic numbers that are accepted.
        decay: w(r) = e^{−decay · r} (1 − (r/r_max)²)³, in 1/Å.
        r_max: Cutoff radius, in Å.
    """

    def __init__(
        self,
        *,
        exchange: float = 0.02,
        dmi: tuple[float, float] = (0.0, 0.0),
        anisotropic: float = 0.0,
        elements: Sequence[int] = (26,),
        decay: float = 0.0,
        r_max: float = 4.0,
    ) -> None:
        super().__init__("tensor-exchange-toy", elements)
        self.exchange, self.dmi, self.anisotropic = exchange, dmi, anisotropic
        self.decay, self.r_max = decay, r_max
        self.spin_orbit = any(dmi) or anisotropic != 0.0

    def tensor(self, vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
        """Tensors w J of pairs: what exchange constants should be.

        Args:
            vectors: From the first to the second atom, in Å.

        Returns:
            Tensors in eV; [α, β] couples component α of the first with β of the second.
        """
        lengths = torch.linalg.norm(vectors, dim=1)
        unit = vectors / lengths[:, None]
        eye = torch.eye(3, dtype=vectors.dtype)
        up = eye[2].expand_as(unit)
        d = self.dmi[0] * unit + self.dmi[1] * torch.linalg.cross(up, unit)
        zero = torch.zeros_like(lengths)
        rows = (zero, d[:, 2], -d[:, 1], -d[:, 2], zero, d[:, 0], d[:, 1], -d[:, 0], zero)
        chiral = torch.stack(rows, dim=1).reshape(-1, 3, 3)
        weights = torch.exp(-self.decay * lengths) * (1 - (lengths / self.r_max) ** 2).clamp(min=0) ** 3
        dipolar = self.anisotropic * (unit[:, :, None] * unit[:, None, :] - eye / 3)
        return weights[:, None, None] * (self.exchange * eye + dipolar + chiral)

    @override
    def site_energies(
        self, graph: MagneticGraph, vectors: Float[Tensor, "n_edges 3"]
    ) -> Float[Tensor, " n_atoms"]:
        sender, receiver = graph.edge_index
        square = (graph.magmoms * graph.magmoms).sum(dim=1)
        spins = graph.magmoms / square.sqrt()[:, None]
        pairs = -torch.einsum("ea,eab,eb->e", spins[receiver], self.tensor(vectors), spins[sender])
        return (0.05 * (square - 1) ** 2).index_add(0, receiver, 0.5 * pairs)
