"""Paths and points in reciprocal space: bands, and where modes are imaginary."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mmace_sim.properties.results import known

if TYPE_CHECKING:
    from phonopy import Phonopy
    from phonopy.structure.cells import Primitive

IMAGINARY_TOL: float = 0.1
"""Modes softer than minus this (THz) count as imaginary; less is noise of the Fourier interpolation."""

_GREEK = {"GAMMA": "Γ", "SIGMA": "Σ", "DELTA": "Δ", "LAMBDA": "Λ"}


@dataclass(frozen=True)
class ImaginaryMode:
    """An unstable mode.

    Attributes:
        q: Wave vector in reciprocal vectors of the primitive cell.
        label: Name of the point, "" if it has none.
        frequency: In THz, negative by phonopy's convention for imaginary ones.
        commensurate: True if the supercell holds whole waves of this mode, so that the frequency is not interpolated.
    """

    q: tuple[float, float, float]
    label: str
    frequency: float
    commensurate: bool

    def __str__(self) -> str:
        where = f"{self.label} " if self.label else ""
        q = ", ".join(f"{round(x, 3) + 0.0:.3f}" for x in self.q)
        doubt = "" if self.commensurate else ", between the points that the supercell holds: try a larger one"
        return f"{self.frequency:.2f} THz at {where}q = ({q}){doubt}"


@dataclass(frozen=True)
class BandPath:
    """A path through the Brillouin zone as phonopy takes it.

    Attributes:
        qpoints: Points of each segment.
        labels: Names of the ends, one for each end that is drawn.
        connections: Whether each segment goes on in the next.
        points: Special points by name.
    """

    qpoints: list[np.ndarray]
    labels: list[str]
    connections: list[bool]
    points: dict[str, tuple[float, float, float]]


def band_path(phonon: "Phonopy", *, n_points: int = 101) -> BandPath:
    """The path of Hinuma et al. for the magnetic primitive cell.

    Atoms with different moments count as different species, so that an antiferromagnet has the path of its magnetic
    lattice. Points are in the basis of phonopy's primitive cell, whatever its setting.

    Args:
        phonon: ``Phonopy`` object.
        n_points: Points on the longest segment; the others have the same spacing.

    Returns:
        The path.

    References:
        Y. Hinuma et al., Comput. Mater. Sci. 128, 140 (2017), doi:10.1016/j.commatsci.2016.10.015.
    """
    primitive, symprec = phonon.primitive, phonon.symmetry.tolerance
    species = _magnetic_species(primitive, symprec)
    pairs, points, segments = zone_path(
        primitive.cell, primitive.scaled_positions, species, n_points=n_points, symprec=symprec
    )
    connections = [end == start for (_, end), (start, _) in pairwise(pairs)] + [False]
    labels = []
    for (start, end), goes_on in zip(pairs, connections, strict=True):
        labels += [start] if goes_on else [start, end]
    return BandPath(segments, labels, connections, {name: tuple(q.tolist()) for name, q in points.items()})


def zone_path(
    cell: Float[np.ndarray, "3 3"],
    positions: Float[np.ndarray, "n_atoms 3"],
    kinds: Sequence[int],
    *,
    n_points: int,
    symprec: float = 1e-5,
) -> tuple[list[tuple[str, str]], dict[str, np.ndarray], list[np.ndarray]]:
    """The path of Hinuma et al. in the basis of a cell, whatever its setting.

    Args:
        cell: Its vectors as rows.
        positions: Of atoms, in these vectors.
        kinds: Number of the kind of each.
        n_points: Points on the longest segment; the others have the same spacing.
        symprec: Tolerance of positions, in Å.

    Returns:
        Names of the ends of each segment, special points by name, and points of each segment.
    """
    import seekpath

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # borderline lattices: any of the valid paths will do
        found = seekpath.get_path_orig_cell((cell, positions, kinds), symprec=symprec)
    points = {_pretty(name): np.array(q) for name, q in found["point_coords"].items()}
    pairs = [(_pretty(start), _pretty(end)) for start, end in found["path"]]
    reciprocal = np.linalg.inv(cell)  # as columns
    lengths = np.array([np.linalg.norm(reciprocal @ (points[b] - points[a])) for a, b in pairs])
    counts = np.rint(lengths / lengths.max() * n_points).astype(int).clip(min=2)
    return (
        pairs,
        points,
        [np.linspace(points[a], points[b], n) for (a, b), n in zip(pairs, counts, strict=True)],
    )


def _pretty(name: str) -> str:
    """Name of a point as it is printed, such as ``Γ`` or ``Δ_0`` for seekpath's ``GAMMA`` or ``DELTA_0``."""
    for word, letter in _GREEK.items():
        name = name.replace(word, letter)
    return name


def _magnetic_species(primitive: "Primitive", tolerance: float) -> list[int]:
    """One number for each kind of atom; moments that differ make different kinds."""
    kinds: list[tuple[int, np.ndarray]] = []
    species = []
    for number, moment in zip(primitive.numbers, known(primitive.magnetic_moments), strict=True):
        for index, (other, value) in enumerate(kinds):
            if number == other and np.abs(moment - value).max() < 10 * tolerance:
                species.append(index + 1)
                break
        else:
            kinds.append((number, moment))
            species.append(len(kinds))
    return species


def imaginary_modes(phonon: "Phonopy", path: BandPath) -> list[ImaginaryMode]:
    """Where the softest mode is imaginary: at the commensurate points, and the softest place of the path.

    At commensurate points the frequencies are those of the supercell itself. An imaginary mode that is found on the
    path only may be a mistake of the interpolation between them: a larger supercell tells.

    Args:
        phonon: ``Phonopy`` object with force constants and a band structure along `path`.
        path: The path.

    Returns:
        One mode for each star of wave vectors, softest first.
    """
    operations = np.asarray(phonon.primitive_symmetry.reciprocal_operations)
    stars = commensurate_points(phonon)
    lowest = phonon.run_qpoints(stars).frequencies.min(axis=1)
    found = [
        ImaginaryMode(tuple(q.tolist()), _label(q, path, operations), float(frequency), True)
        for q, frequency in zip(stars, lowest, strict=True)
        if frequency < -IMAGINARY_TOL
    ]
    bands = known(phonon.band_structure)
    qpoints = np.concatenate(bands.qpoints)
    along = np.concatenate([frequencies.min(axis=1) for frequencies in bands.frequencies])
    softest = int(np.argmin(along))
    if along[softest] < min([-IMAGINARY_TOL, *(mode.frequency - 1e-3 for mode in found)]):
        q = qpoints[softest]
        label = _label(q, path, operations)
        found.append(ImaginaryMode(tuple(q.tolist()), label, float(along[softest]), False))
    return sorted(found, key=lambda mode: mode.frequency)


def commensurate_points(phonon: "Phonopy") -> Float[np.ndarray, "n_stars 3"]:
    """Wave vectors whose waves fit into the supercell, where frequencies are not interpolated.

    Args:
        phonon: ``Phonopy`` object.

    Returns:
        One of each star, in reciprocal vectors of the primitive cell.
    """
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    matrix = np.rint(np.linalg.inv(phonon.primitive.primitive_matrix)).astype(int)
    operations = np.asarray(phonon.primitive_symmetry.reciprocal_operations)
    return _stars(get_commensurate_points(matrix), operations)


def _stars(qpoints: Float[np.ndarray, "n 3"], operations: np.ndarray) -> Float[np.ndarray, "n_stars 3"]:
    """One point of each star, in the first cell around Γ."""
    seen: set[tuple[float, ...]] = set()
    kept = []
    for q in qpoints:
        images = _folded(operations @ q)
        if not seen.intersection(map(tuple, images.tolist())):
            kept.append(q - np.rint(q - 1e-9))
        seen.update(map(tuple, images.tolist()))
    return np.array(kept)


def _label(q: Float[np.ndarray, "3"], path: BandPath, operations: np.ndarray) -> str:
    images = set(map(tuple, _folded(operations @ q).tolist()))
    names = (
        name for name, point in path.points.items() if tuple(_folded(np.array(point)).tolist()) in images
    )
    return next(names, "")


def _folded(q: np.ndarray) -> np.ndarray:
    """Wave vectors modulo reciprocal lattice vectors, rounded so that they can be compared."""
    return np.round(q - np.floor(q + 1e-6), 5) + 0.0
