"""The exchange test: one Heisenberg model fitted to the torques, and what the energies say about its size.

For spins far apart the work test fails, as no two structures are close. On a fixed lattice this one helps: the
constants J of E = E0 − ½ Σ_ij J_ij e_i·e_j (one per shell of neighbours, e = m/|m|) are fitted to the torques
m_i × (−∂E/∂m_i) alone; the slope of the energies against what these J predict must be 1. Where there are forces, the
energy of the displacements u from the mean structure, −½ Σ F·u to second order, is taken out of the energies first:
small as they are, they may cost as much as the tilts of the moments, and go with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from mmace_sim.graph.neighbors import near_pairs
from mmace_sim.io.frames import Frame
from mmace_sim.quality.preflight.work import Factor

MIN_FRAMES = 15
MIN_QUALITY = 0.9
"""The test counts only where the model describes this share of the variance of torques and of energies."""

_CUTOFFS = (4.5, 6.0)
_SHELL_WIDTH = 0.1
_MAX_DISPLACEMENT = 0.05
_MIN_MOMENT = 0.1


@dataclass(frozen=True)
class ExchangeFit:
    """Result of the exchange test.

    Attributes:
        name: config_type of the structures.
        n_frames: Number of structures.
        factor: Slope of the energies against the model of the torques.
        torque_quality: Share of the variance of the torques that the model describes.
        energy_quality: Share of the variance of the energies.
    """

    name: str
    n_frames: int
    factor: Factor
    torque_quality: float
    energy_quality: float

    @property
    def is_usable(self) -> bool:
        """Whether the Heisenberg model describes these data well enough to judge them."""
        return min(self.torque_quality, self.energy_quality) > MIN_QUALITY and self.factor.is_certain

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "config_type": self.name,
            "n_frames": self.n_frames,
            "factor": self.factor.value,
            "uncertainty": self.factor.uncertainty,
            "torque_quality": self.torque_quality,
            "energy_quality": self.energy_quality,
        }


def fit_exchange(frames: Sequence[Frame], name: str) -> ExchangeFit | None:
    """Compare exchange constants from torques with energies.

    Args:
        frames: Structures, of which those on the lattice of the first are used.
        name: What to call them.

    Returns:
        The fit with the cutoff (4.5 or 6 Å) that describes the energies best; None if there are too few structures on
        one lattice, or their moments never differ.
    """
    alike = _on_one_lattice([f for f in frames if "magforces" in f.labels and "energy" in f.labels])
    if len(alike) < MIN_FRAMES:
        return None
    lengths = np.mean([np.linalg.norm(f.magmoms, axis=1) for f in alike], axis=0)
    magnetic = lengths > _MIN_MOMENT
    energies = np.array([float(f.labels["energy"]) for f in alike]) - _elastic_energies(alike)
    if not magnetic.any() or np.ptp(energies) == 0.0:
        return None
    fits = [_fit(alike, magnetic, energies, cutoff, name) for cutoff in _CUTOFFS]
    usable = [fit for fit in fits if fit is not None]
    return max(usable, key=lambda fit: fit.energy_quality) if usable else None


def _on_one_lattice(frames: Sequence[Frame]) -> list[Frame]:
    if not frames:
        return []
    first = frames[0].atoms
    alike = []
    for frame in frames:
        atoms = frame.atoms
        if len(atoms) != len(first) or (atoms.numbers != first.numbers).any():
            continue
        shift = _shift(atoms, first)
        same_cell = np.abs(atoms.cell.array - first.cell.array).max() < 1e-3
        if same_cell and np.sqrt((shift**2).sum(axis=1).mean()) < _MAX_DISPLACEMENT:
            alike.append(frame)
    return alike


def _shift(atoms: Atoms, first: Atoms) -> np.ndarray:
    """Way of each atom from one structure to another of the same cell, in Å."""
    shift = atoms.get_scaled_positions(wrap=False) - first.get_scaled_positions(wrap=False)
    return (shift - np.round(shift)) @ first.cell.array


def _elastic_energies(frames: Sequence[Frame]) -> np.ndarray:
    """Energy of the displacements from the mean structure by the forces, in eV; zero if a structure has none."""
    if not all("forces" in frame.labels for frame in frames):
        return np.zeros(len(frames))
    ways = np.array([_shift(frame.atoms, frames[0].atoms) for frame in frames])
    displacements = ways - ways.mean(axis=1, keepdims=True)
    displacements -= displacements.mean(axis=0)
    return -0.5 * (np.array([frame.labels["forces"] for frame in frames]) * displacements).sum(axis=(1, 2))


def _fit(
    frames: Sequence[Frame], magnetic: np.ndarray, energies: np.ndarray, cutoff: float, name: str
) -> ExchangeFit | None:
    i, j, shell, n_shells = _shells(frames[0], magnetic, cutoff)
    if not n_shells:
        return None
    fields, torques, sums = [], [], []
    for frame in frames:
        spins = frame.magmoms / np.maximum(np.linalg.norm(frame.magmoms, axis=1), 1e-9)[:, None]
        fields_of = np.zeros((n_shells, len(spins), 3))
        np.add.at(fields_of, (shell, i), spins[j])
        fields.append(np.cross(spins[None], fields_of)[:, magnetic].reshape(n_shells, -1))
        torques.append(np.cross(frame.magmoms, frame.labels["magforces"])[magnetic].ravel())
        sums.append(-0.5 * np.bincount(shell, (spins[i] * spins[j]).sum(axis=1), n_shells))
    design, target, shells = np.array(fields), np.array(torques), np.array(sums)
    everything = np.arange(len(frames))
    if not (target**2).sum():
        return None
    slope, constants = _slope(design, target, shells, energies, everything)
    predicted = shells @ constants
    if not np.ptp(predicted):
        return None
    blocks = [
        _slope(design, target, shells, energies, np.delete(everything, everything[k::10]))[0]
        for k in range(10)
    ]
    uncertainty = np.sqrt(0.9 * ((np.array(blocks) - np.mean(blocks)) ** 2).sum())
    left = target - np.einsum("fsk,s->fk", design, constants)
    quality = 1.0 - float((left**2).sum() / (target**2).sum())
    explained = float(np.corrcoef(predicted, energies)[0, 1] ** 2)
    systematic = 0.5 * abs(slope) * np.sqrt(max(1.0 - explained, 0.0))
    factor = Factor(float(slope), float(np.hypot(uncertainty, systematic)))
    return ExchangeFit(name, len(frames), factor, quality, explained)


def _shells(
    frame: Frame, magnetic: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    i, j, distance = near_pairs("ijd", frame.atoms, cutoff)
    kept = magnetic[i] & magnetic[j]
    i, j, distance = i[kept], j[kept], distance[kept]
    numbers = np.sort(np.stack([frame.atoms.numbers[i], frame.atoms.numbers[j]], axis=1), axis=1)
    label = np.column_stack([numbers, np.round(distance / _SHELL_WIDTH).astype(int)])
    kinds, shell = np.unique(label, axis=0, return_inverse=True)
    return i, j, shell.reshape(-1), len(kinds)


def _slope(
    design: np.ndarray, target: np.ndarray, shells: np.ndarray, energies: np.ndarray, chosen: np.ndarray
) -> tuple[float, np.ndarray]:
    n_shells = design.shape[1]
    matrix = design[chosen].transpose(1, 0, 2).reshape(n_shells, -1).T
    constants = np.linalg.lstsq(matrix, target[chosen].ravel(), rcond=1e-6)[0]
    predicted = shells[chosen] @ constants
    centred = predicted - predicted.mean()
    return float((centred * energies[chosen]).sum() / max((centred**2).sum(), 1e-300)), constants
