"""Which parts of a cell may relax: vacuum is no crystal, and a direction without periodicity has no length."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float

from mmace_sim.errors import StructureError, UnsupportedOptionError

MIN_VACUUM: float = 6.0
"""An empty layer from this width on (Å), from nucleus to nucleus, is vacuum: larger than any distance of neighbouring
planes in a crystal (caesium, the largest, 4.3 Å), and beyond the cutoff of the models."""

COMPONENTS: tuple[str, ...] = ("xx", "yy", "zz", "yz", "xz", "xy")
"""Components of a strain, in Voigt's order."""

_KINDS = {1: "a slab", 2: "a wire", 3: "a cluster in a box"}


def vacuum_widths(atoms: Atoms) -> Float[np.ndarray, " 3"]:
    """Width of the widest empty layer across each cell vector, in Å; 0 where the structure is not periodic."""
    widths = np.zeros(3)
    if len(atoms) == 0 or not atoms.pbc.any():
        return widths
    reciprocal = np.linalg.inv(atoms.cell.complete().array)
    fractional = np.sort((atoms.positions @ reciprocal) % 1.0, axis=0)
    gaps = np.diff(np.concatenate([fractional, fractional[:1] + 1.0]), axis=0).max(axis=0)
    return np.where(atoms.pbc, gaps / np.linalg.norm(reciprocal, axis=0), 0.0)


def is_open(atoms: Atoms) -> Bool[np.ndarray, " 3"]:
    """Along which cell vectors a structure ends: by its flags, or at a vacuum of at least `MIN_VACUUM`."""
    return ~atoms.pbc | (vacuum_widths(atoms) > MIN_VACUUM - 1e-3)


def parse_cell_mask(mask: str | Sequence[str | int | bool] | None) -> Bool[np.ndarray, " 6"] | None:
    """Read which components of the strain may change.

    Args:
        mask: Names of components, as a list or joined by commas (``"xx,yy,xy"``), or six numbers, 1 for those that may
            change, in the order of `COMPONENTS`; None leaves it to the structure.

    Returns:
        True for each component that may change.

    Raises:
        UnsupportedOptionError: If it is neither.
    """
    if mask is None:
        return None
    parts = [str(part).strip().lower() for part in (mask.split(",") if isinstance(mask, str) else mask)]
    numbers = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True}
    if len(parts) == 6 and all(part in numbers for part in parts):
        return np.array([numbers[part] for part in parts])
    names = ["".join(sorted(part)) for part in parts]
    if names and all(name in COMPONENTS for name in names):
        return np.array([component in names for component in COMPONENTS])
    raise UnsupportedOptionError(
        f"cell_mask = {mask!r}: expected names out of {', '.join(COMPONENTS)} (such as xx,yy,xy), or six numbers in "
        "that order, 1 where the strain may change and 0 where not (such as 1,1,0,0,0,1)."
    )


def free_strains(
    atoms: Atoms, mask: Bool[np.ndarray, " 6"] | None = None
) -> tuple[Float[np.ndarray, "3 3"], str]:
    """Which components of the strain of a structure may change, and what to say about it.

    A crystal may change all of them. What ends somewhere (`is_open`) keeps its cell: the lattice of a surface is that
    of the crystal below it, and a stress across vacuum means nothing. A mask is taken as it is, but along axes that are
    not periodic there is nothing to strain.

    Args:
        atoms: Structure.
        mask: From `parse_cell_mask`.

    Returns:
        1 where the strain may change and 0 where not, and a note, empty if all is as usual.
    """
    if mask is not None:
        free = _matrix(mask) * _matrix(_inside(atoms, ~atoms.pbc))
        lost = [name for name, a, b in zip(COMPONENTS, mask, _voigt(free), strict=True) if a and not b]
        if not lost:
            return free, ""
        return free, f"not periodic along {', '.join(lost)}: these components of the cell stay fixed"
    ends = is_open(atoms)
    if not ends.any():
        return np.ones((3, 3)), ""
    what = _description(atoms, ends)
    inside = _inside(atoms, ends)
    if not inside.any() or atoms.cell.rank < 3:
        return np.zeros((3, 3)), f"{what}: the cell stays fixed"
    names = ",".join(name for name, usable in zip(COMPONENTS, inside, strict=True) if usable)
    where = "in its plane" if int(ends.sum()) == 1 else "along its axis"
    return np.zeros((3, 3)), f"{what}: the cell stays fixed (--cell-mask {names} relaxes it {where})"


def _description(atoms: Atoms, ends: Bool[np.ndarray, " 3"]) -> str:
    """What a structure is, in words."""
    if not atoms.pbc.any():
        return "a molecule (not periodic)"
    if not atoms.pbc.all():
        return "not periodic in all three directions"
    widths = vacuum_widths(atoms)
    layers = ", ".join(
        f"{width:.1f} Å along {name}"
        for name, width in zip("abc", widths, strict=True)
        if width > MIN_VACUUM - 1e-3
    )
    return f"vacuum of {layers} ({_KINDS[int(ends.sum())]})"


def _inside(atoms: Atoms, ends: Bool[np.ndarray, " 3"]) -> Bool[np.ndarray, " 6"]:
    """Components of the strain between Cartesian axes that lie within the span of the cell vectors without an end."""
    vectors = atoms.cell.array[~ends]
    projector = np.linalg.pinv(vectors) @ vectors if len(vectors) else np.zeros((3, 3))
    axes = np.diag(projector) > 1 - 1e-6
    return _voigt(np.outer(axes, axes)).astype(bool)


def _voigt(matrix: np.ndarray) -> np.ndarray:
    return matrix[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def _matrix(components: np.ndarray) -> Float[np.ndarray, "3 3"]:
    xx, yy, zz, yz, xz, xy = np.asarray(components, dtype=float)
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def has_volume(atoms: Atoms) -> bool:
    """Whether the volume and the stress of a structure are those of matter: of a crystal without vacuum."""
    return not bool(is_open(atoms).any())


def check_crystal(atoms: Atoms, what: str) -> None:
    """Refuse a structure whose volume is not that of matter: with the vacuum it would be a number of the box.

    Args:
        atoms: Structure.
        what: What asks for it, with its verb: "an equation of state needs".

    Raises:
        StructureError: If it is not periodic in all three directions, or has a vacuum.
    """
    n_open = int(is_open(atoms).sum())
    if n_open:
        raise StructureError(
            f"{what} a crystal, periodic in all three directions and without vacuum; this is {_KINDS[n_open]}."
        )


def physical_stress(stress: Float[np.ndarray, "3 3"], atoms: Atoms) -> Float[np.ndarray, "3 3"] | None:
    """The part of a stress that means something: none of a molecule, that within the plane of a layer.

    Args:
        stress: (1/V) ∂E/∂ε, in any unit.
        atoms: Structure; its flags say where it is periodic.

    Returns:
        Zero in directions that are not periodic; None where there is no volume to refer to.
    """
    if not atoms.pbc.any() or atoms.cell.rank < 3:
        return None
    if atoms.pbc.all():
        return stress
    vectors = atoms.cell.array[atoms.pbc]
    projector = np.linalg.pinv(vectors) @ vectors
    return projector @ stress @ projector
