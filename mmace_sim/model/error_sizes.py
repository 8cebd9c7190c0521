"""Sizes of errors as a regression: what they are a function of, and the function."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmace_sim.nn.surroundings import N_SURROUNDINGS

N_SIZES: int = 3
SMALLEST_DISTANCE: float = 0.01
FORCE_FLOOR: float = 0.01
MAGFORCE_FLOOR: float = 0.001
"""Added to the lengths of forces (eV/Å) and of both parts of magnetic forces (eV/μB) before their logarithm."""
SMALLEST_MOMENT: float = 0.05
"""Moments below this, in μB, count as this long where their direction is needed."""
LARGEST_SQUARE: float = 2.0
"""Where coordinates stop growing before they are squared, in standard deviations of the calibration data."""
COORDINATE_UNIT: float = 3.0
COLLINEAR: float = 1e-10
"""Moments count as collinear if the tensor Σ m mᵀ has this much outside of one direction, relative to its square."""


def transverse_length(
    magforces: Float[Tensor, "n_atoms 3"], magmoms: Float[Tensor, "n_atoms 3"]
) -> Float[Tensor, " n_atoms"]:
    """Length of the part of each magnetic force that turns its moment, in eV/μB.

    Args:
        magforces: Magnetic forces, in eV/μB.
        magmoms: Moments, in μB.
    """
    along = moment_directions(magmoms)
    return torch.linalg.norm(magforces - (magforces * along).sum(1, keepdim=True) * along, dim=1)


def moment_directions(magmoms: Float[Tensor, "n_atoms 3"]) -> Float[Tensor, "n_atoms 3"]:
    """Unit vectors along the moments, shorter for moments close to zero.

    Args:
        magmoms: Moments, in μB.
    """
    return magmoms / torch.linalg.norm(magmoms, dim=1, keepdim=True).clamp(min=SMALLEST_MOMENT)


def collinear(
    magmoms: Float[Tensor, "n_atoms 3"], system_idx: Int[Tensor, " n_atoms"], n_systems: int
) -> Bool[Tensor, " n_systems"]:
    """Which structures have all moments along one line.

    Args:
        magmoms: Moments, in μB.
        system_idx: Structure of each atom.
        n_systems: Number of structures.
    """
    products = magmoms[:, :, None] * magmoms[:, None, :]
    tensors = products.new_zeros(n_systems, 3, 3).index_add(0, system_idx, products)
    whole = tensors.diagonal(dim1=1, dim2=2).sum(dim=1).square()
    return whole - tensors.square().sum(dim=(1, 2)) <= COLLINEAR * whole


def log_sizes(
    forces: Float[Tensor, "n_atoms 3"],
    magforces: Float[Tensor, "n_atoms 3"],
    magmoms: Float[Tensor, "n_atoms 3"],
) -> Float[Tensor, "n_atoms n_sizes"]:
    """Logarithms of the lengths of forces and of both parts of magnetic forces: large ones have large errors.

    Args:
        forces: In eV/Å.
        magforces: In eV/μB.
        magmoms: In μB.
    """
    along = (magforces * moment_directions(magmoms)).sum(1).abs()
    sizes = [torch.linalg.norm(forces, dim=1) + FORCE_FLOOR, along + MAGFORCE_FLOOR]
    sizes.append(transverse_length(magforces, magmoms) + MAGFORCE_FLOOR)
    return torch.stack([size.to(magmoms.dtype) for size in sizes], dim=1).log()


def predictors(
    coordinates: Float[Tensor, "n_atoms n_surroundings"],
    species: Int[Tensor, " n_atoms"],
    sizes: Float[Tensor, "n_atoms n_logarithms"],
    spread: Float[Tensor, " n_surroundings"],
    n_elements: int,
) -> Float[Tensor, "n_atoms n_predictors"]:
    """What the sizes of errors of atoms are a function of; the last columns are squares.

    Args:
        coordinates: From `Uncertainty.coordinates`.
        species: Index of the element, −1 for none.
        sizes: From `log_sizes` and `log_distance`.
        spread: Standard deviations of the coordinates.
        n_elements: Number of elements.
    """
    scaled = coordinates / (COORDINATE_UNIT * spread)
    known = torch.arange(n_elements, device=species.device) == species[:, None]
    squares = scaled.clamp(-LARGEST_SQUARE, LARGEST_SQUARE).square()
    return torch.cat([sizes, known.to(sizes.dtype), scaled, squares], dim=1)


def structure_predictors(
    rows: Float[Tensor, "n_atoms n_predictors"],
    distance: Float[Tensor, " n_atoms"],
    system_idx: Int[Tensor, " n_atoms"],
    n_systems: int,
) -> Float[Tensor, "n_systems n_structure_predictors"]:
    """What the sizes of errors of structures are a function of: means over their atoms, and their distance.

    Args:
        rows: From `predictors`.
        distance: Of each atom.
        system_idx: Structure of each atom.
        n_systems: Number of structures.
    """
    means = mean_of_systems(rows[:, : rows.shape[1] - N_SURROUNDINGS], system_idx, n_systems)
    far = mean_of_systems(distance[:, None], system_idx, n_systems)
    return torch.cat([means, log_distance(far[:, 0])], dim=1)


def log_distance(distance: Float[Tensor, " n"]) -> Float[Tensor, "n 1"]:
    """Logarithm of distances, finite for atoms of the data themselves.

    Args:
        distance: From the data.
    """
    return (distance + SMALLEST_DISTANCE).log()[:, None]


def mean_of_systems(
    rows: Float[Tensor, "n_atoms n"], system_idx: Int[Tensor, " n_atoms"], n_systems: int
) -> Float[Tensor, "n_systems n"]:
    """Mean of the rows of the atoms of each structure.

    Args:
        rows: Of atoms.
        system_idx: Structure of each atom.
        n_systems: Number of structures.
    """
    counts = torch.bincount(system_idx, minlength=n_systems).clamp(min=1)
    return rows.new_zeros(n_systems, rows.shape[1]).index_add(0, system_idx, rows) / counts[:, None]


def max_of_systems(
    values: Float[Tensor, " n_atoms"], system_idx: Int[Tensor, " n_atoms"], n_systems: int
) -> Float[Tensor, " n_systems"]:
    """Largest value of the atoms of each structure; zero without atoms.

    Args:
        values: Of atoms, not negative.
        system_idx: Structure of each atom.
        n_systems: Number of structures.
    """
    return values.new_zeros(n_systems).scatter_reduce(0, system_idx, values, "amax")


def regress(
    rows: Float[Tensor, "n n_predictors"],
    weights: Float[Tensor, "n_predictors n_targets"],
    limits: Float[Tensor, "3 n_targets"],
) -> Float[Tensor, "n n_targets"]:
    """Sizes of errors: exponentials of a linear function that is held within what the calibration data gave.

    Args:
        rows: Predictors.
        weights: One column for each target.
        limits: Constant, smallest and largest logarithm of each.
    """
    return (rows @ weights + limits[0]).clamp(min=limits[1], max=limits[2]).exp()
