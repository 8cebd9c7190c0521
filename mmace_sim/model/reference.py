"""Energies that depend on one atom alone: E0 of each element and E1 of its moment, fitted before training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmace_sim.nn.moments import moment_basis, saturate

WALL_EV: float = 20.0
"""Strength of the wall above the largest moment: 20 (m²/m_max² − 1)³ eV, 0.02 eV at 1.05 m_max, 14 eV at 1.38 m_max."""


class ReferenceEnergy(nn.Module):
    """E0_z + E1_z(m·m), with E1(0) = 0 and a convex wall above the largest moment of the data.

    Always evaluated in float64, so that all-electron totals (−3386 eV for iron) survive a float32 model.

    A model of several data sets (heads) has one row of every table for each element of each head, one head after the
    other: where this class says "species", that of element k in head h is k + h · n_elements.

    Args:
        max_moment: Moment scale of each element (of each head), in μB.
        num_basis: Number of Chebyshev functions of m·m.
    """

    def __init__(self, max_moment: Sequence[float], num_basis: int) -> None:
        super().__init__()
        self.num_basis = num_basis
        n = len(max_moment)
        self.register_buffer("atomic_energies", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("one_body", torch.zeros(n, num_basis, dtype=torch.float64))
        self.register_buffer("max_moment", torch.tensor(max_moment, dtype=torch.float64), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ReferenceEnergy":  # noqa: ARG002
        """Move with the model, but keep float64 whatever the model is cast to."""
        for name, buffer in self._buffers.items():
            self._buffers[name] = buffer.to(fn(buffer).device)
        return self

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
        square = (magmoms * magmoms).sum(-1) / self.max_moment[species] ** 2
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

    Returns:
        Root mean square errors left over: "energy" (eV/atom) and "magforces" (eV/μB, longitudinal).
    """
    n_z, n_b = len(elements), reference.num_basis
    index = {z: k for k, z in enumerate(elements)}
    mean = float(np.mean([s.energy / len(s.atomic_numbers) for s in samples]))
    rows_e, rhs_e, rows_t, rhs_t = [], [], [], []
    for sample in samples:
        species = torch.tensor([index[int(z)] for z in sample.atomic_numbers])
        values, slopes = _basis_and_slopes(reference, sample.magmoms, species + head * n_z)
        row = np.zeros(n_z * (1 + n_b))
        for k, z in enumerate(species.tolist()):
            row[z] += 1.0
            row[n_z + z * n_b : n_z + (z + 1) * n_b] += values[k]
        rows_e.append(row / len(species))
        rhs_e.append(sample.energy / len(species) - mean)
        if sample.magforces is None:
            continue
        length = np.linalg.norm(sample.magmoms, axis=1)
        for k in np.flatnonzero((length > 0.05) & np.isfinite(sample.magforces).all(axis=1)):
            row = np.zeros(n_z * (1 + n_b))
            z = int(species[k])
            row[n_z + z * n_b : n_z + (z + 1) * n_b] = -slopes[k]
            rows_t.append(row)
            rhs_t.append(sample.magforces[k] @ sample.magmoms[k] / length[k])
    A_e, b_e = np.array(rows_e), np.array(rhs_e)
    A_t, b_t = np.array(rows_t).reshape(-1, n_z * (1 + n_b)), np.array(rhs_t)
    weight_t = np.sqrt(len(b_e) / max(len(b_t), 1))
    penalty = _curvature_rows(n_z, n_b) * curvature * np.sqrt(len(b_e))
    A = np.concatenate([A_e, A_t * weight_t, penalty])
    b = np.concatenate([b_e, b_t * weight_t, np.zeros(len(penalty))])
    solution = np.linalg.lstsq(A, b, rcond=1e-10)[0]
    own = slice(head * n_z, (head + 1) * n_z)
    reference.atomic_energies[own] = torch.from_numpy(solution[:n_z] + mean)
    reference.one_body[own] = torch.from_numpy(solution[n_z:].reshape(n_z, n_b))
    return {
        "energy": float(np.sqrt(np.mean((A_e @ solution - b_e) ** 2))),
        "magforces": float(np.sqrt(np.mean((A_t @ solution - b_t) ** 2))) if len(b_t) else float("nan"),
    }


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
