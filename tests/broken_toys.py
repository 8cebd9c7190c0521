"""A toy with one more term, each of which breaks something that every magnetic potential must obey."""

import torch
from torch import nn

from mmace_sim.calculator import MMACECalculator
from mmace_sim.testing import HeisenbergModel


class Broken(nn.Module):
    """A toy plus one term that breaks something."""

    def __init__(self, term, **attributes):
        super().__init__()
        self.toy, self.term = HeisenbergModel(), term
        self.elements, self.r_max, self.spin_orbit = [26], self.toy.r_max, False
        self.device, self.dtype = self.toy.device, self.toy.dtype
        self.energy_per_atom = self.toy.energy_per_atom
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, graph, edge_vectors=None):
        vectors = graph.edge_vectors() if edge_vectors is None else edge_vectors
        out = self.toy(graph, vectors)
        extra = self.term(graph, vectors)
        energy = out["energy"].index_add(0, graph.system_idx, extra)
        return {"energy": energy, "node_energy": out["node_energy"] + extra}


def per_atom(graph, pair_energy):
    return torch.zeros_like(graph.magmoms[:, 0]).index_add(0, graph.edge_index[1], pair_energy)


def smooth_cutoff(vectors, r_max=3.4):
    return (1 - vectors.norm(dim=1) / r_max).clamp(min=0) ** 4


def moment_along_bond(graph, vectors):
    """Polar m: even under time reversal only in pairs, odd under inversion."""
    sender, receiver = graph.edge_index
    weight = smooth_cutoff(vectors)
    return per_atom(
        graph, weight * (graph.magmoms[receiver] * vectors).sum(1) * graph.magmoms[sender].square().sum(1)
    )


def dzyaloshinskii_of_the_vacuum(graph, vectors):
    """m_i × m_j · r_ij: invariant under rotations and time reversal, but not under inversion."""
    sender, receiver = graph.edge_index
    cross = torch.linalg.cross(graph.magmoms[receiver], graph.magmoms[sender])
    return per_atom(graph, smooth_cutoff(vectors) * (cross * vectors).sum(1))


def field_along_z(graph, _vectors):
    return 0.1 * graph.magmoms[:, 2]


def easy_axis_along_z(graph, _vectors):
    return -0.1 * graph.magmoms[:, 2] ** 2


def bond_axis(graph, vectors):
    """A spin–orbit term in a model that says it has none."""
    receiver = graph.edge_index[1]
    return per_atom(graph, smooth_cutoff(vectors) * (graph.magmoms[receiver] * vectors).sum(1) ** 2)


def jump(graph, vectors):
    return per_atom(graph, 0.01 * torch.exp(-vectors.norm(dim=1)))


def cosine_cutoff(graph, vectors):
    """Nothing wrong: energy and forces are continuous, the second derivatives are not."""
    return per_atom(graph, 0.02 * (1 + torch.cos(torch.pi * vectors.norm(dim=1).clamp(max=3.4) / 3.4)))


def kink(graph, _vectors):
    return 0.1 * graph.magmoms.norm(dim=1)


def blow_up(graph, vectors):
    """A polynomial outside of the range that it was made for, as upstream's Chebyshev basis."""
    receiver = graph.edge_index[1]
    return per_atom(graph, smooth_cutoff(vectors) * (graph.magmoms[receiver].square().sum(1) / 9.0) ** 6)


def other_systems(graph, _vectors):
    return torch.full_like(graph.magmoms[:, 0], 1e-4) * graph.n_systems


def order_of_atoms(graph, _vectors):
    return 0.1 * torch.arange(graph.n_atoms) * graph.magmoms.square().sum(1)


def size_of_cell(graph, _vectors):
    return torch.full_like(graph.magmoms[:, 0], 0.1) * torch.linalg.det(graph.cell)[graph.system_idx]


def place_in_space(graph, _vectors):
    return 0.1 * graph.positions[:, 0]


def not_the_reference_energy(graph, _vectors):
    return torch.full_like(graph.magmoms[:, 0], 0.1)


def detached_moments(graph, _vectors):
    return graph.magmoms.detach().square().sum(1)


def detached_pairs(graph, vectors):
    return per_atom(graph, smooth_cutoff(vectors.detach()))


def chirality(graph, vectors):
    """m_i · (A_i × B_i) of two sums over neighbours: invariant under rotations and inversion, odd in the moments."""
    sender, receiver = graph.edge_index
    weight = smooth_cutoff(vectors)[:, None]
    first = torch.zeros_like(graph.magmoms).index_add(0, receiver, weight * graph.magmoms[sender])
    second = torch.zeros_like(graph.magmoms).index_add(0, receiver, weight**2 * graph.magmoms[sender])
    return (graph.magmoms * torch.linalg.cross(first, second)).sum(1)


class Altered(MMACECalculator):
    """The toy as an ASE calculator whose results are changed before anybody sees them."""

    def __init__(self, alter):
        super().__init__(HeisenbergModel())
        self.alter = alter

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.alter(self.results)


def wrong_sign_of_forces(results):
    results["forces"] = -results["forces"]


def wrong_sign_of_magforces(results):
    results["magforces"] = -results["magforces"]


def no_magforces(results):
    del results["magforces"]


def other_name_of_magforces(results):
    results["magnetic_forces"] = results.pop("magforces")
