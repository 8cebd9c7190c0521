"""Coordinates in which surroundings of atoms are compared, and the atoms that distances are measured from."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmace_sim.nn.surroundings import column_sizes
from mmace_sim.training.calibration.evidence import Evidence

WHITENING: float = 0.3
"""Directions in which the data hardly vary are stretched to unit variance as if they had this share of the largest."""
SMALLEST_SHARE: float = 0.02
"""Smallest standard deviation of a number of the surroundings, over its mean size."""
ABSENT: float = 1e-3
ABSENT_SHARE: float = 0.1
"""The same, over its order of magnitude (`column_sizes`), of a number that the data have less than that share of:
collinear data say nothing of how much an angle matters, and measured by their own spread, which is rounding, any angle
would be far."""
CHUNK: int = 2000


def fit_coordinates(
    rows: Float[Tensor, "n_atoms n_surroundings"], numbers: Int[Tensor, " n_atoms"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coordinates that vary alike in the data, around the mean of each element.

    Args:
        rows: Surroundings of the atoms, from `mmace_sim.nn.surroundings.surroundings`.
        numbers: Their atomic numbers.

    Returns:
        Mean surroundings of each element (ascending), the matrix that makes coordinates of what is left, coordinates of
        the atoms, and the index of their element.
    """
    elements, species = torch.unique(numbers, return_inverse=True)
    counts = torch.bincount(species).to(rows)[:, None]
    means = torch.zeros(len(elements), rows.shape[1], dtype=rows.dtype).index_add(0, species, rows) / counts
    left = rows - means[species]
    sizes, usual = rows.abs().mean(dim=0), column_sizes(rows)
    smallest = torch.where(sizes > ABSENT * usual, SMALLEST_SHARE * sizes, ABSENT_SHARE * usual) + 1e-6
    scale = 1.0 / torch.maximum(left.square().mean(dim=0).sqrt(), smallest)
    scaled = left * scale
    variances, directions = torch.linalg.eigh(scaled.T @ scaled / len(scaled))
    stretch = (variances.clamp(min=0) + WHITENING * variances.max().clamp(min=1e-12)).rsqrt()
    matrix = scale[:, None] * directions * stretch
    return means, matrix, left @ matrix, species


def choose_landmarks(
    coordinates: Float[Tensor, "n_atoms n"], numbers: Int[Tensor, " n_atoms"], n_landmarks: int
) -> Int[Tensor, " n_landmarks"]:
    """Atoms that all others are close to: each the farthest from those before it; atoms of other elements are far.

    Args:
        coordinates: Of the atoms.
        numbers: Their atomic numbers.
        n_landmarks: How many at most.

    Returns:
        Their indices. Copies of one another are left out.
    """
    distance = torch.full_like(coordinates[:, 0], torch.inf)
    chosen: list[int] = []
    for _ in range(min(n_landmarks, len(coordinates))):
        k = int(distance.argmax())
        if chosen and distance[k] <= 1e-6:
            break
        chosen.append(k)
        same = numbers == numbers[k]
        nearer = torch.linalg.norm(coordinates[same] - coordinates[k], dim=1)
        distance[same] = torch.minimum(distance[same], nearer)
    return torch.tensor(chosen)


def nearest_of_others(
    coordinates: Float[Tensor, "n_atoms n"], evidence: Evidence, marks: Int[Tensor, " n_landmarks"]
) -> Float[Tensor, " n_atoms"]:
    """Distance of each atom to the nearest landmark of its element in another structure; infinite if there is none.

    Args:
        coordinates: Of the atoms.
        evidence: Their elements and structures.
        marks: Indices of the landmarks.
    """
    nearest = []
    for start in range(0, len(coordinates), CHUNK):
        part = slice(start, start + CHUNK)
        distance = torch.cdist(coordinates[part], coordinates[marks])
        same = evidence.numbers[part, None] == evidence.numbers[marks]
        other = evidence.system[part, None] != evidence.system[marks]
        nearest.append(torch.where(same & other, distance, torch.inf).amin(dim=1))
    return torch.cat(nearest)
