"""Energies that depend on one atom alone: E0 of each element and E1 of its moment, fitted before training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmace_sim.model.config import SMALL_MOMENT
from mmace_sim.nn.moments import SATURATION_RATIO, moment_basis, saturate
from mmace_sim.nn.ops import Float64Module

WALL_EV: float = 20.0
"""Strength of the wall above the largest moment: 20 (m²/m_max² − 1)³ eV, 0.02 eV at 1.05 m_max, 14 eV at 1.38 m_max."""

SPRING: float = 1.0
"""Energy of m·m of elements without moments in the data, in eV/μB²: as stiff as a weakly magnetic atom."""

SPRING_OF_FOLLOWERS: float = 0.05
"""The same of elements whose moments only follow from those of their neighbours: they cost next to nothing."""


class ReferenceEnergy(Float64Module):
    """E0_z + E1_z(m·m), with E1(0) = 0 and a convex wall above the largest moment of the data.

    Always evaluated in float64, so that all-electron totals (ABINIT's −3386 eV for iron) survive a float32 model.

    A model of several data sets (heads) has one row of every table for each element of each head, one head after the
    other: where this class says "species", that of element k in head h is k + h · n_elements.

    Args:
        max_moment: Moment scale of each element (of each head), in μB.
        num_basis: Number of Chebyshev functions of m·m.
        wall_moment: Where the wall of each stands, in μB; None: at `max_moment`.
    """

    atomic_energies: Tensor
    one_body: Tensor
    max_moment: Tensor
    wall_moment: Tensor

    def __init__(
        self, max_moment: Sequence[float], num_basis: int, wall_moment: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.num_basis = num_basis
        n = len(max_moment)
        self.register_buffer("atomic_energies", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("one_body", torch.zeros(n, num_basis, dtype=torch.float64))
        for name, moments in (("max_moment", max_moment), ("wall_moment", wall_moment or max_moment)):
            self.register_buffer(name, torch.tensor(moments, dtype=torch.float64), persistent=False)

    def forward(
        self, magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """Energy of each atom, in eV and float64.

        Args:
            magmoms: Moments, in μB.
            species: Index of each atom's element in the model's list.
        """
        magmoms = magmoms.double()
        one_body = (self.basis(magmoms, species) * self.one_body[species]).sum(-1)
        return self.atomic_energies[species] + one_body + self.wall(magmoms, species)

    def basis(
        self, magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_atoms n_basis"]:
        """Functions of m·m that vanish for a zero moment, of which E1 is a combination.

        Args:
            magmoms: Moments, in μB.
            species: Index of each atom's element in the model's list.
        """
        return moment_basis(saturate(magmoms, self.max_moment[species]), self.num_basis)

    def wall(
        self, magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """Energy that keeps moments from growing far above the largest moment, in eV.

        Args:
            magmoms: Moments, in μB.
            species: Index of each atom's element in the model's list.
        """
        square = (magmoms * magmoms).sum(-1) / self.wall_moment[species] ** 2
        return WALL_EV * torch.relu(square - 1.0) ** 3


@dataclass
class ReferenceSample:
    """What the one-body fit needs to know of one structure.

    Attributes:
        atomic_numbers: Shape (n_atoms,).
        magmoms: Shape (n_atoms, 3), in μB.
        energy: Total energy, in eV.
        magforces: Shape (n_atoms, 3), in eV/μB, or None where there is no label.
    """

    atomic_numbers: np.ndarray
    magmoms: np.ndarray
    energy: float
    magforces: np.ndarray | None = None


def fit_reference(
    reference: ReferenceEnergy,
    elements: Sequence[int],
    samples: Sequence[ReferenceSample],
    *,
    head: int = 0,
    curvature: float = 1e-3,
    atomic_energies: Mapping[int, float] | None = None,
    spring: float = SPRING,
    followers: Sequence[int] = (),
) -> dict[str, float]:
    """Fit E0 and E1 of one head to energies per atom and longitudinal magforces by penalised least squares.

    Minimises Σ (E/n − …)² + Σ (T·m̂ + dE1/d|m|)² / n_T + `curvature`² Σ_z ∫ (d²E1/dx²)² dx, which is linear in
    all unknowns. Directions of E0 that the data do not fix (compounds of one composition) get the minimum-norm
    solution around the mean energy per atom.

    Args:
        reference: Module whose buffers receive the result.
        elements: Atomic numbers in the model's order.
        samples: Training structures of that head.
        head: Which one; the others are left as they are.
        curvature: Weight of the penalty, in eV.
        atomic_energies: E0 of elements for which it is known, in eV, by atomic number. It takes the place of the
            fitted one in the end: what lies between them is cohesion, which is the network's and no matter of E1.
        spring: Energy of m·m of elements whose moments in the data are too small to tell, in eV/μB².
        followers: Atomic numbers of elements whose moments are those that their neighbours give them.

    Returns:
        Root mean square errors left over: "energy" (eV/atom) and "magforces" (eV/μB, longitudinal).
    """
    n_z, n_b = len(elements), reference.num_basis
    sizes = np.array([len(s.atomic_numbers) for s in samples])
    energies = np.array([s.energy for s in samples]) / sizes
    mean = float(energies.mean())
    A_e, A_t, b_t = _equations(reference, elements, samples, head)
    weight_t = np.sqrt(len(samples) / max(len(b_t), 1))
    penalty = _curvature_rows(n_z, n_b) * curvature * np.sqrt(len(samples))
    A = np.concatenate([A_e, A_t * weight_t, penalty])
    b = np.concatenate([energies - mean, b_t * weight_t, np.zeros(len(penalty))])
    strengths = dict.fromkeys(followers, min(spring, SPRING_OF_FOLLOWERS))
    known = _springs(reference, elements, samples, head, spring, strengths)
    solution = np.zeros(A.shape[1])
    solution[list(known)] = list(known.values())
    free = np.setdiff1d(np.arange(len(solution)), list(known))
    solution[free] = np.linalg.lstsq(A[:, free], b - A @ solution, rcond=1e-10)[0]
    for z, energy in (atomic_energies or {}).items():
        solution[list(elements).index(z)] = energy - mean
    own = slice(head * n_z, (head + 1) * n_z)
    reference.atomic_energies[own] = torch.from_numpy(solution[:n_z] + mean)
    reference.one_body[own] = torch.from_numpy(solution[n_z:].reshape(n_z, n_b))
    return {
        "energy": float(np.sqrt(np.mean((A_e @ solution + mean - energies) ** 2))),
        "magforces": float(np.sqrt(np.mean((A_t @ solution - b_t) ** 2))) if len(b_t) else float("nan"),
    }


def _springs(
    reference: ReferenceEnergy,
    elements: Sequence[int],
    samples: Sequence[ReferenceSample],
    head: int,
    spring: float,
    others: Mapping[int, float],
) -> dict[int, float]:
    """E1 of elements without moments of their own, of which the data can tell nothing: a weak spring.

    By the index of the unknown. Of the functions of m·m only the first, which is −2 m̃·m̃/s², is not zero.
    """
    numbers = np.concatenate([s.atomic_numbers for s in samples])
    lengths = np.linalg.norm(np.concatenate([s.magmoms for s in samples]), axis=1)
    n_z, n_b = len(elements), reference.num_basis
    springs: dict[int, float] = {}
    for k, z in enumerate(elements):
        largest = float(reference.max_moment[head * n_z + k])
        small = bool((lengths[numbers == z] <= SMALL_MOMENT).all())
        follows = z in others and largest > SMALL_MOMENT  # in the data of one head at least
        if small or follows:
            strength = others[z] if follows else spring
            unit = SATURATION_RATIO * largest
            values = [-0.5 * strength * unit**2] + [0.0] * (n_b - 1)
            springs |= {n_z + k * n_b + b: value for b, value in enumerate(values)}
    return springs


def _equations(
    reference: ReferenceEnergy, elements: Sequence[int], samples: Sequence[ReferenceSample], head: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the energies per atom (unknowns: E0 − mean, then E1 of each element), and rows and values of T·m̂."""
    n_z, n_b = len(elements), reference.num_basis
    sizes = np.array([len(s.atomic_numbers) for s in samples])
    numbers = np.concatenate([s.atomic_numbers for s in samples])
    magmoms = np.concatenate([s.magmoms for s in samples])
    unknown = np.full((1, 3), np.nan)
    magforces = np.concatenate(
        [
            unknown.repeat(n, 0) if s.magforces is None else s.magforces
            for s, n in zip(samples, sizes, strict=True)
        ]
    )
    species = np.array([list(elements).index(z) for z in numbers.tolist()])
    values, slopes = _basis_and_slopes(reference, magmoms, torch.from_numpy(species) + head * n_z)
    columns = n_z + species[:, None] * n_b + np.arange(n_b)
    A_e = np.zeros((len(samples), n_z * (1 + n_b)))
    owner = np.repeat(np.arange(len(samples)), sizes)
    np.add.at(A_e, (owner, species), 1.0)
    np.add.at(A_e, (owner[:, None], columns), values)
    length = np.linalg.norm(magmoms, axis=1)
    told = np.flatnonzero((length > 0.05) & np.isfinite(magforces).all(axis=1))
    A_t = np.zeros((len(told), n_z * (1 + n_b)))
    A_t[np.arange(len(told))[:, None], columns[told]] = -slopes[told]
    return A_e / sizes[:, None], A_t, (magforces[told] * magmoms[told]).sum(axis=1) / length[told]


def _basis_and_slopes(
    reference: ReferenceEnergy, magmoms: np.ndarray, species: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Basis functions of each moment and their derivatives by its length, in 1/μB."""
    m = torch.tensor(magmoms, dtype=torch.float64, requires_grad=True)
    values = reference.basis(m, species)
    unit = m.detach() / torch.linalg.norm(m.detach(), dim=1, keepdim=True).clamp(min=1e-12)
    slopes = [
        (torch.autograd.grad(values[:, k].sum(), m, retain_graph=True)[0] * unit).sum(-1)
        for k in range(reference.num_basis)
    ]
    return values.detach().numpy(), torch.stack(slopes, dim=1).numpy()


def _curvature_rows(n_species: int, n_basis: int) -> np.ndarray:
    """Second derivatives of the basis by x on a grid, one block for each element."""
    x = np.linspace(-1, 1, 41)
    block = np.stack(
        [np.polynomial.chebyshev.Chebyshev.basis(k).deriv(2)(x) for k in range(1, n_basis + 1)], axis=1
    ) / np.sqrt(len(x))
    rows = np.zeros((n_species * len(x), n_species * (1 + n_basis)))
    for z in range(n_species):
        columns = slice(n_species + z * n_basis, n_species + (z + 1) * n_basis)
        rows[z * len(x) : (z + 1) * len(x), columns] = block
    return rows
