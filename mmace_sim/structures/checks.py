"""Checks of one structure before anything is computed with it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import complete_cell, minkowski_reduce
from jaxtyping import Float

from mmace_sim.errors import MissingMomentsError, StructureError, UnsupportedElementError
from mmace_sim.graph.atoms import check_atomic_numbers, check_magnitudes, get_magmoms, has_magmoms
from mmace_sim.graph.cells import free_strains
from mmace_sim.graph.neighbors import near_pairs

MIN_DISTANCE: float = 0.5
"""Atoms closer than this (Å) are a mistake: no bond is shorter than 0.7 Å."""

MIN_FLATNESS: float = 1e-3
"""Smallest volume of a cell relative to the product of its edge lengths."""

MAX_LENGTH: float = 1e6
"""Cell vectors and coordinates beyond this (Å) are a mistake."""

_ALL_PAIRS = 64


@dataclass(frozen=True)
class StructureCheck:
    """What a checked structure allows.

    Attributes:
        cell_can_relax: True for crystals (periodic in all three directions, without vacuum); otherwise the cell stays
            as it is.
        note: The reason if the cell cannot relax, else "".
    """

    cell_can_relax: bool
    note: str = ""


def check_structure(atoms: Atoms, elements: Iterable[int] | None, name: str = "") -> StructureCheck:
    """Make sure that a structure can be simulated.

    Args:
        atoms: Structure with moments.
        elements: Atomic numbers that the model knows; None skips this check.
        name: Name for the messages.

    Returns:
        Whether its cell can relax.

    Raises:
        StructureError: No atoms or elements, NaN or infinite numbers, flat or left-handed cell, atoms on top of each
            other, moments that no atom has.
        UnsupportedElementError: An element that the model does not know.
        MissingMomentsError: No moments.
        MomentShapeError: Moments of a wrong shape.
    """
    try:
        check = check_geometry(atoms, elements)
        if not has_magmoms(atoms):
            raise MissingMomentsError(
                "the structure carries no magnetic moments. Set them with "
                "mmace_sim.graph.atoms.set_magmoms(atoms, magmoms), or on the command line with "
                "--initial-magmoms high-spin, afm or random:SEED; all zeros mean a non-magnetic start."
            )
        check_moments(atoms)
    except StructureError as error:
        if not name:
            raise
        raise type(error)(f"{name}: {error}") from error
    return check


def check_moments(atoms: Atoms) -> None:
    """Make sure that the moments can be meant.

    Args:
        atoms: Structure with moments.

    Raises:
        StructureError: If one is not finite, or beyond `mmace_sim.graph.atoms.MAX_MOMENT`.
        MomentShapeError: If they have a wrong shape.
    """
    check_magnitudes(get_magmoms(atoms), source="the moment")


def check_geometry(atoms: Atoms, elements: Iterable[int] | None) -> StructureCheck:
    """The part of `check_structure` that is not about moments.

    Args:
        atoms: Structure, with or without moments.
        elements: Atomic numbers that the model knows; None skips this check.

    Returns:
        Whether its cell can relax.

    Raises:
        StructureError: No atoms, NaN or infinite numbers, flat or left-handed cell, atoms on top of each other.
        UnsupportedElementError: An element that the model does not know.
        UnsupportedConstraintError: A constraint that cannot be honoured.
    """
    check_numbers(atoms)
    if elements is not None:
        _check_elements(atoms, {int(number) for number in elements})
    from mmace_sim.torchsim.constraints import fixed_from_ase  # not above: TorchSim's import writes to stderr

    fixed_from_ase(atoms)
    check_distances(atoms)
    free, note = free_strains(atoms)
    return StructureCheck(cell_can_relax=bool(free.any()), note=note)


def check_numbers(atoms: Atoms) -> None:
    """The part of `check_geometry` that asks whether elements, positions and cell can be meant at all.

    Args:
        atoms: Structure, with or without moments.

    Raises:
        StructureError: No atoms, NaN or infinite numbers, flat or left-handed cell.
    """
    if len(atoms) == 0:
        raise StructureError("the structure holds no atoms.")
    check_atomic_numbers(atoms.numbers)
    finite = np.isfinite(atoms.positions).all(axis=1)
    if not finite.all():
        index = int(np.argmin(finite))
        raise StructureError(
            f"the position of atom {index} ({atoms.symbols[index]}) is not finite: {atoms.positions[index]} Å. "
            "Correct the file."
        )
    if np.abs(atoms.positions).max() > MAX_LENGTH:
        index = int(np.argmax(np.abs(atoms.positions).max(axis=1)))
        raise StructureError(
            f"atom {index} ({atoms.symbols[index]}) is {np.abs(atoms.positions[index]).max():.3g} Å from the origin, "
            "beyond any meaning. Correct the file; lengths are in Å."
        )
    _check_cell(atoms)


def _check_elements(atoms: Atoms, elements: set[int]) -> None:
    unknown = sorted(set(atoms.numbers.tolist()) - elements)
    if not unknown:
        return
    from mmace_sim.structures.model_choice import which_model

    names = ", ".join(chemical_symbols[number] for number in unknown)
    known = ", ".join(chemical_symbols[number] for number in sorted(elements))
    raise UnsupportedElementError(
        f"the structure holds {names}; the model knows only {known}. {which_model(set(atoms.numbers.tolist()))}"
    )


def _check_cell(atoms: Atoms) -> None:
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        raise StructureError("the cell holds numbers that are not finite. Correct the file.")
    if np.abs(cell).max() > MAX_LENGTH:
        raise StructureError(
            f"a cell vector is {np.abs(cell).max():.3g} Å long, beyond any meaning. Correct the file; lengths are in Å."
        )
    if not atoms.pbc.any():
        return
    lengths = np.linalg.norm(cell, axis=1)
    if (lengths[atoms.pbc] < 1e-6).any():
        raise StructureError(
            "the structure is periodic but has no cell vector in a periodic direction (zero volume). "
            'Give the lattice in the file, or switch the periodicity off (pbc="F F F") for a molecule.'
        )
    volume = _relative_volume(complete_cell(cell))
    if abs(volume) < MIN_FLATNESS:
        raise StructureError(
            f"the cell vectors lie in one plane (zero volume): {np.round(cell, 4).tolist()} Å. "
            "Correct the lattice in the file."
        )
    if volume < 0 and atoms.pbc.all():
        raise StructureError(
            "the cell is left-handed (negative volume). Swap two cell vectors together with the fractional "
            "coordinates, e.g. atoms.set_cell(atoms.cell[[1, 0, 2]])."
        )


def _relative_volume(cell: Float[np.ndarray, "3 3"]) -> float:
    """Signed volume of the cell over the product of its edges."""
    return float(np.linalg.det(cell / np.linalg.norm(cell, axis=1)[:, None]))


def check_distances(atoms: Atoms) -> None:
    """Raise if two atoms, or an atom and its own periodic image, are closer than `MIN_DISTANCE`."""
    if len(atoms) <= _ALL_PAIRS:
        closest = _closest_pair(atoms)
    else:  # a neighbour list has room for all pairs only where atoms are apart
        closest = _closest_pair(atoms[:1]) or _in_one_box(atoms) or closest_pair(atoms, MIN_DISTANCE)
    if closest is None:
        return
    first, second = sorted(closest[:2])
    distance, symbols = closest[2], atoms.symbols
    other = "its periodic image" if first == second else f"atom {second} ({symbols[second]})"
    raise StructureError(
        f"atom {first} ({symbols[first]}) and {other} are {distance:.3f} Å apart (less than {MIN_DISTANCE} Å). "
        "Remove the duplicate, or check the units and whether coordinates are fractional or Cartesian."
    )


def _closest_pair(atoms: Atoms) -> tuple[int, int, float] | None:
    """All pairs at once, for small cells: a few array operations, so that 10⁴ of them take seconds.

    With fractional differences rounded into [-½, ½], an image k along an axis can only be nearer than the minimum if
    |k| ≤ ½ + MIN_DISTANCE / h, h being the height of the cell along that axis. A cell with a small height is reduced
    first: either it then has a vector shorter than the minimum, or few images are enough.
    """
    n = len(atoms)
    cell = complete_cell(atoms.cell.array) if atoms.pbc.any() else np.eye(3)
    inverse = np.linalg.inv(cell)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    if (heights[atoms.pbc] < 2 * MIN_DISTANCE).any():
        cell = _reduced(cell, atoms.pbc)
        shortest = float(np.linalg.norm(cell[atoms.pbc], axis=1).min())
        if shortest < MIN_DISTANCE:
            return 0, 0, shortest
        inverse = np.linalg.inv(cell)
        heights = 1.0 / np.linalg.norm(inverse, axis=0)
    first, second = np.triu_indices(n)
    difference = (atoms.positions[second] - atoms.positions[first]) @ inverse
    difference[:, atoms.pbc] -= np.round(difference[:, atoms.pbc])
    reach = np.where(atoms.pbc, np.floor(0.5 + MIN_DISTANCE / heights), 0).astype(int)
    axes = [np.arange(-k, k + 1) for k in reach]
    images = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    vectors = (difference[:, None, :] + images[None, :, :]) @ cell
    distances = np.sqrt((vectors**2).sum(axis=-1))
    itself = (first == second)[:, None] & (images == 0).all(axis=1)[None, :]
    distances[itself] = np.inf
    pair, image = np.unravel_index(int(np.argmin(distances)), distances.shape)
    shortest = float(distances[pair, image])
    return None if shortest >= MIN_DISTANCE else (int(first[pair]), int(second[pair]), shortest)


def _in_one_box(atoms: Atoms) -> tuple[int, int, float] | None:
    """Two atoms in one box of a grid whose boxes have `MIN_DISTANCE` as their diagonal; None if each has its own."""
    positions = atoms.get_positions(wrap=bool(atoms.pbc.any()))
    boxes = np.floor(positions * (3**0.5 / MIN_DISTANCE)).astype(np.int64)
    order = np.lexsort(boxes.T)
    shared = (np.diff(boxes[order], axis=0) == 0).all(axis=1)
    if not shared.any():
        return None
    first, second = sorted(order[int(np.argmax(shared)) :][:2].tolist())
    return first, second, float(np.linalg.norm(positions[first] - positions[second]))


def _reduced(cell: Float[np.ndarray, "3 3"], pbc: np.ndarray) -> Float[np.ndarray, "3 3"]:
    try:
        return np.array(minkowski_reduce(cell, pbc=pbc)[0])
    except Exception as error:  # ASE gives up on cells that are all but flat
        raise StructureError(
            f"the cell is too skewed ({error}): {np.round(cell, 4).tolist()} Å. Give a reduced cell."
        ) from error


def closest_pair(atoms: Atoms, reach: float) -> tuple[int, int, float] | None:
    """The closest two atoms, or an atom and its image, by a neighbour list.

    Args:
        atoms: Structure.
        reach: Atoms farther apart than this, in Å, do not count.

    Returns:
        Indices and distance in Å; None if there is no such pair.
    """
    for cutoff in (0.4 * reach, reach):  # the first is often enough
        second, first, distances = near_pairs("ijd", atoms, cutoff)
        if len(first):
            pair = int(np.argmin(distances))
            return int(first[pair]), int(second[pair]), float(distances[pair])
    return None
