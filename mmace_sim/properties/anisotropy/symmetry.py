"""Symmetry of the anisotropy: which rotations hold, their axes, and the functions of the direction that they allow."""

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.graph.spglib_call import call_spglib
from mmace_sim.properties.elastic.symmetry import elastic_rotations
from mmace_sim.structures.magnetic_order import MagneticOrder, classify_order

FORMS: tuple[str, ...] = ("uniaxial", "cubic", "general")
"""Functions that constants belong to."""

UNIAXIAL_SYSTEMS: frozenset[str] = frozenset({"hexagonal", "tetragonal", "trigonal"})
_FOLDS = {3: 1, -1: 2, 0: 3, 1: 4, 2: 6}
_MAX_INDEX, _INDEX_TOL = 5, 0.5
_BROKEN = 1e-3
"""A function that a rotation changes by more is not allowed by symmetry."""

Function = Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, " n"]]
"""A function of unit vectors in the frame."""


@dataclass(frozen=True)
class Term:
    """A function of the direction whose factor is a constant of the anisotropy.

    Attributes:
        text: The function as text.
        degree: Its degree as a polynomial of the components of the direction.
        function: Its values for unit vectors in the frame.
    """

    text: str
    degree: int
    function: Function


def _sine(power: int) -> Term:
    """sin^p θ, p even."""
    return Term(f"sin{_RAISED[power]}θ", power, lambda n: (n[:, 0] ** 2 + n[:, 1] ** 2) ** (power // 2))


def _basal(k: int, degree: int, *, sine: bool) -> Term:
    """sin^p θ times cos kφ or sin kφ, and times cos θ where k is odd; a polynomial of even degree."""
    power = degree - k % 2  # of sin θ

    def function(n: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        value = (n[:, 0] + 1j * n[:, 1]) ** k
        flat = (n[:, 0] ** 2 + n[:, 1] ** 2) ** ((power - k) // 2)
        return (value.imag if sine else value.real) * flat * (n[:, 2] if k % 2 else 1.0)

    angle = f"{'sin' if sine else 'cos'} {k if k > 1 else ''}φ"
    return Term(f"sin{_RAISED[power]}θ{' cosθ' if k % 2 else ''} {angle}", degree, function)


def _basal_terms() -> dict[str, Term]:
    """All of them up to degree 6; the lowest of each angle has no degree in its name."""
    found = {}
    for k in range(1, 7):
        lowest = k + k % 2
        for degree in range(lowest, 7, 2):
            for sine in (False, True):
                name = f"K_{'sin' if sine else 'cos'}{k}" + ("" if degree == lowest else f"_{degree}")
                found[name] = _basal(k, degree, sine=sine)
    return found


_RAISED = {1: "", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶"}

UNIAXIAL_TERMS: dict[str, Term] = {"K1": _sine(2), "K2": _sine(4), "K3": _sine(6)}
"""Those of the angle θ alone."""

BASAL_TERMS: dict[str, Term] = _basal_terms()
"""Those of the angle φ in the basal plane, used where symmetry allows them; with `UNIAXIAL_TERMS` all functions up to
sixth order that are even in the direction."""


def _pairs(n: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    return 0.5 * ((n**2).sum(axis=1) ** 2 - (n**4).sum(axis=1))


CUBIC_TERMS: dict[str, Term] = {
    "K1": Term("α1²α2² + α2²α3² + α3²α1²", 4, _pairs),
    "K2": Term("α1²α2²α3²", 6, lambda n: n.prod(axis=1) ** 2),
    "K2_t": Term(
        "(α1² − α2²)(α2² − α3²)(α3² − α1²)", 6, lambda n: (n**2 - np.roll(n**2, -1, axis=1)).prod(axis=1)
    ),
    "K3": Term("(α1²α2² + α2²α3² + α3²α1²)²", 8, lambda n: _pairs(n) ** 2),
}
"""Up to eighth order; K2_t where there are no four-fold axes, as in pyrite and B20 crystals."""


@dataclass(frozen=True)
class DirectionSymmetry:
    """Symmetry of the energy as a function of the direction.

    Attributes:
        system: Crystal system of its rotations.
        frame: Axes x, y, z as rows: those of the cubic, or z the unique one and x a two-fold axis.
        rotations: Proper rotations; each leaves E(n) unchanged, up to time reversal.
        lattice: Vectors of the conventional cell of the crystal as rows, in Å; None for what is no crystal.
    """

    system: str
    frame: Float[np.ndarray, "3 3"]
    rotations: Float[np.ndarray, "n 3 3"]
    lattice: Float[np.ndarray, "3 3"] | None

    @property
    def form(self) -> str:
        """The one of `FORMS` that fits the symmetry."""
        if self.system == "cubic":
            return "cubic"
        return "uniaxial" if self.system in UNIAXIAL_SYSTEMS else "general"

    def terms(self, form: str) -> dict[str, Term]:
        """Functions of a form that every rotation leaves unchanged: all up to sixth (cubic: eighth) order.

        Args:
            form: One of `FORMS`; "general" has none.
        """
        if form == "general":
            return {}
        inside = self.frame @ self.rotations @ self.frame.T
        points = np.random.default_rng(0).normal(size=(20, 3))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        images = points @ inside.transpose(0, 2, 1)

        def allowed(term: Term) -> bool:
            return all(
                np.abs(term.function(image) - term.function(points)).max() < _BROKEN for image in images
            )

        fixed, others = (
            (UNIAXIAL_TERMS, BASAL_TERMS)
            if form == "uniaxial"
            else ({k: t for k, t in CUBIC_TERMS.items() if k != "K2_t"}, {"K2_t": CUBIC_TERMS["K2_t"]})
        )
        return fixed | {name: term for name, term in others.items() if allowed(term)}

    def standard(self, direction: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
        """Of all directions equivalent by symmetry and time reversal the one nearest to z, then x, of the frame.

        Args:
            direction: A unit vector.
        """
        images = np.concatenate([self.rotations @ direction, -self.rotations @ direction])
        keys = np.round(images @ self.frame.T, 4)[:, [2, 0, 1]]
        return images[max(range(len(images)), key=lambda k: tuple(keys[k].tolist()))]


def direction_symmetry(atoms: Atoms, axis: Float[np.ndarray, " 3"] | None = None) -> DirectionSymmetry:
    """Symmetry of the energy of a crystal whose moments turn together.

    For a collinear order these are the rotations of the crystal that map every moment onto one of the same length and
    sign, or all onto those of the opposite sign. A non-collinear order and a molecule have none.

    Args:
        atoms: Structure with moments; their direction does not matter.
        axis: Unique axis instead of that of the crystal.
    """
    identity = np.eye(3)[None]
    if not atoms.pbc.all():
        return DirectionSymmetry("triclinic", _frame("triclinic", {}, np.eye(3), axis), identity, None)
    lattice = _conventional_lattice(atoms)
    collinear = classify_order(get_magmoms(atoms)) is not MagneticOrder.NON_COLLINEAR
    found = elastic_rotations(atoms, spin_orbit=False) if collinear else identity
    proper = found * np.rint(np.linalg.det(found))[:, None, None]
    _, first = np.unique(np.round(proper, 6) + 0.0, axis=0, return_index=True)
    rotations = proper[np.sort(first)]
    folds = _rotation_folds(rotations)
    system = _system(list(folds.values()))
    return DirectionSymmetry(system, _frame(system, folds, lattice, axis), rotations, lattice)


def _conventional_lattice(atoms: Atoms) -> Float[np.ndarray, "3 3"]:
    """Vectors of the conventional cell of a crystal without its moments, in the orientation of the structure."""
    found = call_spglib("get_symmetry_dataset", atoms, symprec=0.01)
    if found is None:
        raise StructureError("spglib finds no symmetry.")
    return np.linalg.inv(found.transformation_matrix).T @ atoms.cell.array


def _rotation_folds(rotations: Float[np.ndarray, "n 3 3"]) -> dict[tuple[float, ...], int]:
    """The highest order of each rotation axis."""
    folds: dict[tuple[float, ...], int] = {}
    for rotation in rotations:
        fold = _FOLDS[round(float(np.trace(rotation)))]
        if fold == 1:
            continue
        axis = np.linalg.svd(rotation - np.eye(3))[2][2]
        axis = axis * np.sign(axis[np.flatnonzero(np.abs(axis) > 1e-6)[-1]])
        known = next((other for other in folds if abs(np.dot(other, axis)) > 1 - 1e-4), tuple(axis.tolist()))
        folds[known] = max(fold, folds.get(known, 1))
    return folds


def _system(folds: list[int]) -> str:
    if folds.count(3) > 1:
        return "cubic"
    for fold, name in ((6, "hexagonal"), (4, "tetragonal"), (3, "trigonal")):
        if fold in folds:
            return name
    return {0: "triclinic", 1: "monoclinic"}.get(folds.count(2), "orthorhombic")


def _frame(
    system: str,
    folds: dict[tuple[float, ...], int],
    lattice: Float[np.ndarray, "3 3"],
    axis: Float[np.ndarray, " 3"] | None,
) -> Float[np.ndarray, "3 3"]:
    """Right-handed axes as rows."""
    by_fold = {
        fold: np.array([a for a, f in folds.items() if f == fold]).reshape(-1, 3) for fold in (2, 3, 4, 6)
    }
    if axis is None and system in ("cubic", "orthorhombic"):
        axes = by_fold[4] if len(by_fold[4]) == 3 else by_fold[2]
        order = linear_sum_assignment(-np.abs(axes.T))[1]
        frame = axes[order] * np.sign(axes[order].diagonal())[:, None]
        return frame * np.array([[1.0], [1.0], [np.sign(np.linalg.det(frame))]])
    if axis is None and system == "triclinic":
        return np.eye(3)
    main = next(by_fold[f][0] for f in (6, 4, 3, 2) if len(by_fold[f])) if axis is None else axis
    z = main / np.linalg.norm(main)
    flat = [a for a in by_fold[2] if abs(a @ z) < 1e-4] or [
        a - (a @ z) * z for a in lattice if np.linalg.norm(np.cross(a, z)) > 1e-3 * np.linalg.norm(a)
    ]
    sides = [side / np.linalg.norm(side) for side in flat]
    x = max(sides, key=lambda side: round(abs(float(side @ lattice[0])), 6))
    x = x * (np.sign(round(float(x @ lattice[0]), 6)) or 1.0)
    x = x - (x @ z) * z
    x /= np.linalg.norm(x)
    return np.array([x, np.cross(z, x), z])


def crystal_direction(
    direction: Float[np.ndarray, " 3"], lattice: Float[np.ndarray, "3 3"] | None
) -> str | None:
    """A direction in vectors of a lattice.

    Args:
        direction: Cartesian unit vector.
        lattice: Vectors as rows.

    Returns:
        Such as "[1 1 0]" if small integers are within half a degree, else such as "[0.37 1.00 0.00]"; None without a
        lattice.
    """
    if lattice is None:
        return None
    indices = _small_indices()
    vectors = indices @ lattice
    cosines = vectors @ direction / np.linalg.norm(vectors, axis=1)
    best = int(np.argmax(np.round(cosines, 7)))
    if cosines[best] > np.cos(np.radians(_INDEX_TOL)):
        return "[" + " ".join(str(k) for k in indices[best].tolist()) + "]"
    fractions = direction @ np.linalg.inv(lattice)
    fractions = fractions / np.abs(fractions).max()
    return "[" + " ".join(f"{k + 0.0:.2f}" for k in np.round(fractions, 2).tolist()) + "]"


def _small_indices() -> Int[np.ndarray, "n 3"]:
    """Integers without common divisor, the smallest first."""
    span = range(-_MAX_INDEX, _MAX_INDEX + 1)
    found = [(u, v, w) for u in span for v in span for w in span if gcd(u, v, w) == 1]
    return np.array(sorted(found, key=lambda uvw: sum(k * k for k in uvw)))
