"""Magnetic CIF (mCIF): crystal structures with moments and magnetic symmetry, read and written.

In an mCIF the components of a moment are taken along **unit** vectors parallel to the crystal axes a, b, c, and only
the symmetry-independent sites are listed. A magnetic operation {R|t}, time = ±1, moves a site to R x + t and turns
its moment into time · det(R) · R m (an axial vector, odd under time reversal).
"""

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from jaxtyping import Float

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.io.base import add_note
from mmace_sim.io.operations import Operation, column, lower_tags, magnetic_operations, parse_coordinate

PROPAGATION = "_parent_propagation_vector_kxkykz"
MOMENT_LABELS = "_atom_site_moment_label"
MOMENT_AXES = tuple(f"_atom_site_moment_crystalaxis_{axis}" for axis in "xyz")

SITE_TOLERANCE: float = 0.02
"""Two images of a site closer than this are one atom (Å): files round coordinates to 4 or 5 digits."""

PHASE_TOLERANCE: float = 0.02
"""How far k times a vector of the cell may be from a whole number: files round k to 3 or 4 digits."""

_MODULATED = re.compile(r"fourier|_ssg_|^_cell_wave_vector|^_cell_modulation|_modulat")

DENSEST: float = 0.5**3 / 2**0.5
"""Å³/atom of spheres of 0.5 Å in closest packing: no structure with less can be used."""

MOMENT_TOLERANCE: float = 0.05
"""How much the moment of one atom may differ between two symmetry operations (μB), for rounded files."""


def mcif_text(atoms: Atoms, *, name: str = "mmace_sim") -> str:
    """A structure with its moments as magnetic CIF, all atoms listed, without symmetry (P1).

    Args:
        atoms: Structure with moments, periodic in three directions.
        name: Name of the data block.

    Raises:
        StructureError: If the structure is not periodic.
    """
    if not atoms.pbc.all():
        raise StructureError("a magnetic CIF file describes crystals; this structure is not periodic.")
    block = "".join(char if char.isalnum() or char in "-_.#" else "_" for char in name)
    lengths, angles = atoms.cell.lengths(), atoms.cell.angles()
    lines = [f"data_{block}"]
    lines += [f"_cell_length_{axis}   {value:.10f}" for axis, value in zip("abc", lengths, strict=True)]
    greek = ("alpha", "beta", "gamma")
    lines += [f"_cell_angle_{angle}   {value:.8f}" for angle, value in zip(greek, angles, strict=True)]
    lines += ["_space_group_magn.number_BNS   '1.1'", "_space_group_magn.name_BNS   'P 1'", "", "loop_"]
    lines += [
        "_space_group_symop_magn_operation.id",
        "_space_group_symop_magn_operation.xyz",
        "1 x,y,z,+1",
        "",
    ]
    labels = [f"{symbol}{index + 1}" for index, symbol in enumerate(atoms.get_chemical_symbols())]
    lines += ["loop_", "_atom_site_label", "_atom_site_type_symbol"]
    lines += [f"_atom_site_fract_{axis}" for axis in "xyz"] + ["_atom_site_occupancy"]
    scaled = atoms.get_scaled_positions(wrap=True)
    for label, symbol, site in zip(labels, atoms.get_chemical_symbols(), scaled, strict=True):
        lines.append(f"{label} {symbol} {site[0]:.10f} {site[1]:.10f} {site[2]:.10f} 1")
    lines += ["", "loop_", "_atom_site_moment.label"]
    lines += [f"_atom_site_moment.crystalaxis_{axis}" for axis in "xyz"]
    crystal = get_magmoms(atoms) @ np.linalg.inv(_unit_axes(atoms.cell.array))
    for label, moment in zip(labels, crystal, strict=True):
        lines.append(f"{label} {moment[0]:.8f} {moment[1]:.8f} {moment[2]:.8f}")
    return "\n".join(lines) + "\n"


def lists_moments(tags: dict[str, Any]) -> bool:
    """Whether a data block lists magnetic moments, in whatever form."""
    return any(key.startswith("_atom_site_moment") for key in tags)


def expand_block(block: Any) -> Atoms:
    """All atoms of one data block with moments, expanded by its magnetic symmetry.

    Args:
        block: Data block as ASE parses it.

    Returns:
        Structure with moments in Cartesian components (μB) in ``initial_magmoms``.

    Raises:
        StructureError: If it is incommensurate or disordered, or its symmetry contradicts its moments.
    """
    tags = lower_tags(block)
    refuse_modulated(tags)
    labels = [str(label) for label in column(tags, "_atom_site_label")]
    moments = _listed_moments(tags, labels)
    cell = _cell(tags).array
    operations, note = magnetic_operations(tags, cell @ cell.T)
    atoms = expand_sites(block, moments, operations)
    _check_propagation(tags, atoms)
    if note:
        add_note(atoms, note)
    return atoms


def expand_sites(block: Any, moments: Float[np.ndarray, "n 3"] | None, operations: list[Operation]) -> Atoms:
    """All images of the sites of a data block.

    Args:
        block: Data block as ASE parses it.
        moments: Moments of the sites along the crystal axes (μB), None for a structure without moments.
        operations: Its symmetry, centering translations included.

    Raises:
        StructureError: If a site is disordered or has no coordinates, or the symmetry contradicts the moments.
    """
    tags = lower_tags(block)
    cell = _cell(tags)
    check_sites(tags)
    symbols = block.get_symbols()
    labels = [str(label) for label in column(tags, "_atom_site_label")] or symbols
    _refuse_dense(operations, cell.volume)
    sites = np.array([column(tags, f"_atom_site_fract_{axis}") for axis in "xyz"], dtype=float).T
    turned = (np.zeros((len(sites), 3)) if moments is None else moments) @ _unit_axes(cell.array)
    places, all_moments, all_symbols, owners = [], [], [], []
    for label, symbol, site, moment in zip(labels, symbols, sites, turned, strict=True):
        images, image_moments = _orbit(site, moment, operations, cell.array, label)
        known = _same_site(images[0], places, cell.array)
        if known is None:
            places += list(images)
            all_moments += list(image_moments)
            all_symbols += [symbol] * len(images)
            owners += [label] * len(images)
        elif all_symbols[known] != symbol or np.abs(all_moments[known] - moment).max() > MOMENT_TOLERANCE:
            raise StructureError(f"the sites {owners[known]} and {label} are at the same place; remove one.")
    atoms = Atoms(all_symbols, scaled_positions=np.array(places), cell=cell, pbc=True)
    if moments is not None:
        set_magmoms(atoms, np.array(all_moments))
    return atoms


def _refuse_dense(operations: list[Operation], volume: float) -> None:
    """Refuse so many translations that the images of any atom would lie on each other, before they are made."""
    rotations = {tuple(np.round(rotation.ravel(), 6)) for rotation, *_ in operations}
    n_translations = len(operations) / max(len(rotations), 1)
    if n_translations > max(volume / DENSEST, 1.0):
        raise StructureError(
            f"the file lists {len(operations)} symmetry operations, among them {n_translations:.0f} "
            f"translations of each rotation: too many for a cell of {volume:.4g} Å³. Correct one of them."
        )


def check_sites(tags: dict[str, Any]) -> None:
    """Refuse sites that are partly occupied, or nowhere.

    Args:
        tags: From `lower_tags`.

    Raises:
        StructureError: If there is such a site.
    """
    labels = [str(label) for label in column(tags, "_atom_site_label")]
    for name in [
        name for name in tags if re.fullmatch(r"_atom_site_(fract|cartn)_[xyz]|_atom_site_occupancy", name)
    ]:
        for index, value in enumerate(column(tags, name)):
            label = labels[index] if index < len(labels) else index
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise StructureError(f"{name} of site {label} is {str(value)[:40]!r}; expected a number.")
            if name.endswith("occupancy") and abs(value - 1) > 1e-3:
                raise StructureError(
                    f"site {label} is partially occupied; give an ordered structure (e.g. a supercell)."
                )


def refuse_modulated(tags: dict[str, Any]) -> None:
    """Refuse what has no finite cell.

    Args:
        tags: From `lower_tags`.

    Raises:
        StructureError: If positions or moments are Fourier terms, or the symmetry is that of a superspace group.
    """
    if any(_MODULATED.search(key) for key in tags):
        raise StructureError(
            "the structure is incommensurate (modulated, with Fourier terms or a superspace group) and has no finite "
            "cell. Approximate it by a commensurate supercell."
        )


def _cell(tags: dict[str, Any]) -> Cell:
    """Cell from its lengths and angles, which must be those of a crystal."""
    lengths = [f"_cell_length_{axis}" for axis in "abc"]
    angles = [f"_cell_angle_{angle}" for angle in ("alpha", "beta", "gamma")]
    values = [tags.get(name) for name in lengths + angles]
    for name, value in zip(lengths + angles, values, strict=True):
        limit = math.inf if name in lengths else 180.0
        if not isinstance(value, int | float) or not 0 < value < limit:
            shown = "missing" if value is None else repr(value)
            expected = "a positive length in Å" if name in lengths else "an angle between 0 and 180 degrees"
            raise StructureError(f"{name} of the cell is {shown}; expected {expected}.")
    cosines = np.cos(np.radians(np.array(values[3:], dtype=float)))
    if 1 - (cosines**2).sum() + 2 * cosines.prod() < 1e-9:
        raise StructureError(f"no cell has the angles {values[3]}, {values[4]} and {values[5]} degrees.")
    return Cell.fromcellpar(values)


def _propagation_vectors(tags: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
    """The propagation vectors of the parent, as written and as numbers; unknown ones (``?``) are left out."""
    vectors = []
    texts = [str(text) for text in column(tags, PROPAGATION)] or ["without values"]
    for text in texts if PROPAGATION in tags else ():
        if text in ("?", "."):
            continue
        words = re.sub(r"[\[\](),]", " ", re.sub(r"\(\d+\)", "", text)).split()
        try:
            vector = np.array([float(Fraction(word)) for word in words])
        except (ValueError, ZeroDivisionError):
            vector = np.zeros(0)
        if len(vector) != 3:
            expected = "three numbers in quotes, such as '[0 0 1/2]'"
            raise StructureError(
                f"cannot read _parent_propagation_vector.kxkykz ({text}); expected {expected}."
            )
        vectors.append((text, vector))
    return vectors


def _check_propagation(tags: dict[str, Any], atoms: Atoms) -> None:
    """Raise if a propagation vector of the parent does not fit the cell of the file."""
    transform = _child_transform(tags)
    for text, vector in _propagation_vectors(tags):
        if transform is not None:
            phases = transform @ vector
            fits = np.abs(phases - np.round(phases)).max() < PHASE_TOLERANCE
        else:
            # one parent cell in q of the magnetic cell: there are q equivalent atoms at least
            parts = [Fraction(float(component)).limit_denominator(48) for component in vector]
            order = math.lcm(*(part.denominator for part in parts))
            rational = all(abs(float(p) - k) < 5e-4 for p, k in zip(parts, vector, strict=True))
            fits = rational and order <= max(atoms.symbols.formula.count().values())
        if not fits:
            raise StructureError(
                f"the propagation vector {text} does not fit the cell of the file: the magnetic structure is "
                "incommensurate, or the cell too small. Give a supercell that it fits."
            )


def _child_transform(tags: dict[str, Any]) -> np.ndarray | None:
    """Vectors of the magnetic cell in units of those of the parent, as rows, if the file gives them."""
    text = str(tags.get("_parent_space_group_child_transform_pp_abc", "")).split(";")[0].lower()
    parts = text.translate(str.maketrans("abc", "xyz")).replace(" ", "").split(",")
    try:
        rows = np.array([parse_coordinate(part)[0] for part in parts])
    except (ValueError, ZeroDivisionError):
        return None
    return rows if rows.shape == (3, 3) and abs(np.linalg.det(rows)) > 1e-6 else None


def _orbit(
    site: np.ndarray, moment: np.ndarray, operations: list[Operation], cell: np.ndarray, label: str
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Fractional positions and Cartesian moments of all images of a site."""
    images: list[np.ndarray] = []
    moments: list[np.ndarray] = []
    inverse = np.linalg.inv(cell)
    for rotation, translation, time in operations:
        image = (rotation @ site + translation) % 1.0
        cartesian = cell.T @ rotation @ inverse.T
        turned = time * np.round(np.linalg.det(rotation)) * cartesian @ moment
        known = _same_site(image, images, cell)
        if known is None:
            images.append(image)
            moments.append(turned)
        elif np.abs(moments[known] - turned).max() > MOMENT_TOLERANCE:
            raise StructureError(
                f"the moment {np.round(moment, 3)} μB (Cartesian) of site {label} is not allowed by the magnetic "
                "symmetry of the file. Correct the moment, or remove the symmetry operations and list all atoms."
            )
    return np.array(images), np.array(moments)


def _same_site(image: np.ndarray, images: list[np.ndarray], cell: np.ndarray) -> int | None:
    """Index of the earlier image at the same place, or None."""
    if not images:
        return None
    difference = np.array(images) - image
    distance = np.linalg.norm((difference - np.round(difference)) @ cell, axis=1)
    nearest = int(np.argmin(distance))
    return nearest if distance[nearest] < SITE_TOLERANCE else None


def _listed_moments(tags: dict[str, Any], labels: list[str]) -> Float[np.ndarray, "n 3"]:
    """Moment of each listed site along the crystal axes; sites without an entry have none."""
    if MOMENT_AXES[0] not in tags:
        raise StructureError(
            "the moments are given in a form other than _atom_site_moment.crystalaxis_x, _y, _z; convert them."
        )
    listed = dict.fromkeys(labels, (0.0, 0.0, 0.0))
    columns = [column(tags, name) for name in (MOMENT_LABELS, *MOMENT_AXES)]
    seen: set[str] = set()
    for label, *components in zip(*columns, strict=True):
        if str(label) not in listed:
            raise StructureError(
                f"a moment is given for {label!r}, which is none of the sites {', '.join(labels)}."
            )
        if str(label) in seen:
            raise StructureError(f"two moments are given for site {label}; keep one.")
        seen.add(str(label))
        listed[str(label)] = tuple(0.0 if value in (".", "?") else float(value) for value in components)
    return np.array([listed[label] for label in labels])


def _unit_axes(cell: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Unit vectors along the crystal axes, as rows."""
    return cell / np.linalg.norm(cell, axis=1)[:, None]
