"""The only reader and writer of magnetic moments on ``ase.Atoms``.

ASE knows moments under several names. `get_magmoms` takes the first that it finds in this order:

1. the array ``initial_magmoms``. If it is there it wins, **also when it is all zeros**: a user or a file that
   says zero asks for a non-magnetic start. (It must win over the older results of an attached calculator.)
2. ``atoms.calc.results["magmoms"]``, as left by a DFT run or by a reader of its output;
3. the arrays of `MAGMOM_ARRAYS`, in this order.

A **file** is another matter: there an initial guess and the moments that were computed from it stand side by side, and
the computed ones are meant. `file_magmoms` is what readers of files use.

If none is present the moments are missing, which is an error and never silently zero: ASE's own
``get_initial_magnetic_moments`` returns zeros in that case.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from mmace_sim.base.quantities import QUANTITIES
from mmace_sim.errors import MissingMomentsError, MomentShapeError, StructureError, UnsupportedElementError

MomentsLike = ArrayLike | Sequence[Any]
"""Anything that makes an array of moments (NumPy's own type forgets tuples)."""

INITIAL_MAGMOMS = "initial_magmoms"
"""The array that moments are written to."""

MAGMOM_ARRAYS: tuple[str, ...] = QUANTITIES["magmoms"].read_from
"""Further arrays that moments are read from, in order of precedence."""


MAX_MOMENT: float = 20.0
"""Largest moment (μB) that is taken for one: twice that of holmium and dysprosium (10 μB with their orbital part),
which no atom exceeds. More is another unit or a damaged file."""

MAX_ATOMIC_NUMBER: int = 118


def widen_collinear(magmoms: MomentsLike) -> Float[np.ndarray, "n_atoms 3"]:
    """Write collinear moments as vectors along z.

    Args:
        magmoms: Moments of shape (n_atoms,), (n_atoms, 1) or (n_atoms, 3), in μB.

    Returns:
        A copy of the moments as vectors, in μB.

    Raises:
        MomentShapeError: If the shape is none of the three.
    """
    values = _as_float_array(magmoms)
    if values.ndim == 2 and values.shape[1] == 3:
        return values
    if values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1):
        vectors = np.zeros((len(values), 3))
        vectors[:, 2] = values.reshape(-1)
        return vectors
    raise MomentShapeError(
        f"magnetic moments have shape {values.shape}, expected (n_atoms, 3) in μB, "
        "or (n_atoms,) for collinear moments, which become vectors along z."
    )


def has_magmoms(atoms: Atoms) -> bool:
    """Say whether the structure carries moments, zero or not, that `get_magmoms` would find.

    Args:
        atoms: Structure to look at.

    Returns:
        True if moments are present under any name that is read.
    """
    return _find_magmoms(atoms) is not None


def get_magmoms(atoms: Atoms, *, default: MomentsLike | None = None) -> Float[np.ndarray, "n_atoms 3"]:
    """Read the moments of a structure as vectors; see the module for where they are looked for.

    Args:
        atoms: Structure to read from.
        default: Moments to use if the structure carries none, in μB: one number (along z, for every atom),
            or an array of shape (n_atoms,) or (n_atoms, 3). None makes missing moments an error.

    Returns:
        A copy of the moments, in μB.

    Raises:
        MissingMomentsError: If the structure carries no moments and there is no default.
        MomentShapeError: If they have a wrong shape or number.
        StructureError: If any of them is NaN or infinite.
    """
    found = _find_magmoms(atoms)
    if found is None:
        if default is None:
            raise MissingMomentsError(
                f"{atoms.get_chemical_formula()} carries no magnetic moments. Set them with "
                "mmace_sim.graph.atoms.set_magmoms(atoms, magmoms); all zeros mean a non-magnetic start."
            )
        found = ("default", np.full(len(atoms), default) if np.ndim(default) == 0 else default)
    source, values = found
    return check_magmoms(values, len(atoms), source=source)


def set_magmoms(atoms: Atoms, magmoms: MomentsLike) -> None:
    """Write moments into ``initial_magmoms``, whatever shape was there before.

    ASE refuses to overwrite the scalar moments that e.g. ``bulk("Fe")`` comes with by vectors.

    Args:
        atoms: Structure to change.
        magmoms: Moments of shape (n_atoms, 3), or (n_atoms,) along z, in μB.

    Raises:
        MomentShapeError: If they have a wrong shape or number.
        StructureError: If any of them is NaN or infinite.
    """
    vectors = check_magmoms(magmoms, len(atoms), source="magmoms")
    atoms.arrays.pop(INITIAL_MAGMOMS, None)
    atoms.set_array(INITIAL_MAGMOMS, vectors, dtype=float, shape=(3,))


def bare_copy(atoms: Atoms, magmoms: MomentsLike | None = None) -> Atoms:
    """A structure with moments and nothing else: no results, constraints, names or further arrays.

    Args:
        atoms: Elements, positions, cell and boundaries.
        magmoms: Moments of shape (n_atoms, 3), or (n_atoms,) along z, in μB; by default its own.

    Raises:
        MomentShapeError: If they have a wrong shape or number.
        StructureError: If any of them is NaN or infinite, or there are none.
    """
    bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    set_magmoms(bare, get_magmoms(atoms) if magmoms is None else magmoms)
    return bare


def check_magmoms(magmoms: MomentsLike, n_atoms: int, *, source: str) -> Float[np.ndarray, "n_atoms 3"]:
    """Widen moments to vectors and make sure that there is one finite vector for each atom.

    Args:
        magmoms: Moments, in μB.
        n_atoms: Number of atoms.
        source: Where the moments come from, for the message.

    Returns:
        A copy of the moments as vectors, in μB.

    Raises:
        MomentShapeError: If they have a wrong shape or number.
        StructureError: If any of them is NaN or infinite.
    """
    values = _as_float_array(magmoms)
    if values.ndim == 0 or len(values) != n_atoms:
        raise MomentShapeError(
            f"{source} has shape {values.shape}, expected (n_atoms, 3) = ({n_atoms}, 3) in μB, "
            f"or ({n_atoms},) for collinear moments along z."
        )
    vectors = widen_collinear(values)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise StructureError(f"{source} of atom {bad[0]} is not finite: {vectors[bad[0]]} μB.")
    return vectors


def check_magnitudes(magmoms: Float[np.ndarray, "n_atoms 3"], *, source: str) -> None:
    """Make sure that moments which a user or a file gives can be those of atoms.

    Args:
        magmoms: Moments, in μB.
        source: Where the moments come from, for the message.

    Raises:
        StructureError: If one is beyond `MAX_MOMENT`.
    """
    beyond = np.flatnonzero((np.abs(magmoms) > MAX_MOMENT).any(axis=1))
    if len(beyond):
        raise StructureError(
            f"{source} of atom {beyond[0]} is {magmoms[beyond[0]]} μB, beyond any meaning: no atom has more than "
            f"{MAX_MOMENT:g} μB. Give moments in μB per atom."
        )


def check_atomic_numbers(numbers: Any) -> Int[np.ndarray, " n_atoms"]:
    """Make sure that each number is that of an element.

    Args:
        numbers: Atomic numbers.

    Returns:
        The numbers as an array.

    Raises:
        StructureError: If they are no whole numbers.
        UnsupportedElementError: If one is no element.
    """
    try:
        values = np.array(numbers).reshape(-1)
        whole = values.astype(int)
    except (TypeError, ValueError, OverflowError) as error:
        raise StructureError(f"atomic numbers are no whole numbers ({error}).") from error
    wrong = np.flatnonzero((whole != values) | (whole < 1) | (whole > MAX_ATOMIC_NUMBER))
    if len(wrong):
        name = "X" if values[wrong[0]] == 0 else "no element"
        raise UnsupportedElementError(
            f"the structure holds {name}: atom {wrong[0]} has the atomic number {values[wrong[0]]}, "
            f"which is no element (1 to {MAX_ATOMIC_NUMBER})."
        )
    return whole


def file_magmoms(
    atoms: Atoms, key: str = str(QUANTITIES["magmoms"].extxyz)
) -> tuple[Float[np.ndarray, "n_atoms 3"] | None, str]:
    """Moments of a structure that was just read from a file.

    In a file, the order is: the array `key` (a label), the computed moments (calculator result ``magmoms``, or a column
    ``magmom``), ``initial_magmoms``, then the arrays of `MAGMOM_ARRAYS`.

    Args:
        atoms: Structure with its calculator results.
        key: Name of the array of labels.

    Returns:
        The moments in μB, None if there are none, and a sentence for the log if the file holds another initial guess
        beside them, else "".

    Raises:
        MomentShapeError: If moments have a wrong shape or number.
        StructureError: If any of them is not finite or beyond any meaning.
    """
    results = getattr(atoms.calc, "results", None) or {}
    arrays = atoms.arrays
    candidates = [(key, arrays.get(key)), ("computed moments", results.get("magmoms"))]
    total = results.get("magmom")  # ASE's reader files an extxyz column "magmom" as the total moment
    candidates += [("column magmom", total if total is not None and np.ndim(total) > 0 else None)]
    candidates += [(name, arrays.get(name)) for name in (INITIAL_MAGMOMS, *MAGMOM_ARRAYS)]
    found = [(source, values) for source, values in candidates if values is not None]
    if not found:
        return None, ""
    source, values = found[0]
    taken = check_magmoms(values, len(atoms), source=source)
    check_magnitudes(taken, source=source)
    guess = None if source == INITIAL_MAGMOMS else arrays.get(INITIAL_MAGMOMS)
    if guess is None or np.allclose(widen_collinear(guess), taken, atol=1e-6):
        return taken, ""
    return taken, f"moments are the {source} of the file, not its initial guess (initial_magmoms)"


def _find_magmoms(atoms: Atoms) -> tuple[str, MomentsLike] | None:
    """Return name and value of the moments that take precedence."""
    if INITIAL_MAGMOMS in atoms.arrays:
        return INITIAL_MAGMOMS, atoms.arrays[INITIAL_MAGMOMS]
    results = getattr(atoms.calc, "results", None) or {}
    if results.get("magmoms") is not None:
        return "calculator result magmoms", results["magmoms"]
    return next(((name, atoms.arrays[name]) for name in MAGMOM_ARRAYS if name in atoms.arrays), None)


def _as_float_array(magmoms: MomentsLike) -> np.ndarray:
    try:
        values = np.array(magmoms)
        if values.dtype.kind == "b":
            raise TypeError("true and false")
        return values.astype(float)
    except (TypeError, ValueError) as error:
        raise MomentShapeError(
            "magnetic moments are no rectangular array of numbers; expected (n_atoms, 3) in μB, "
            "or (n_atoms,) for collinear moments."
        ) from error
