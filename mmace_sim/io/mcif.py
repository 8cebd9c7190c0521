"""Magnetic CIF (mCIF): crystal structures with moments and magnetic symmetry, read and written.

In an mCIF the components of a moment are taken along **unit** vectors parallel to the crystal axes a, b, c, and only
the symmetry-independent sites are listed. A magnetic operation {R|t}, time = ±1, moves a site to R x + t and turns
its moment into time · det(R) · R m (an axial vector, odd under time reversal).
"""

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.cell import Cell
from jaxtyping import Float

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms

OPERATIONS = "_space_group_symop_magn_operation_xyz"
CENTERINGS = "_space_group_symop_magn_centering_xyz"
BNS_NUMBER = "_space_group_magn_number_bns"
MOMENT_LABELS = "_atom_site_moment_label"
MOMENT_AXES = tuple(f"_atom_site_moment_crystalaxis_{axis}" for axis in "xyz")

SITE_TOLERANCE: float = 0.02
"""Two images of a site closer than this are one atom (Å): files round coordinates to 4 or 5 digits."""

MOMENT_TOLERANCE: float = 0.05
"""How much the moment of one atom may differ between two symmetry operations (μB), for rounded files."""

Operation = tuple[np.ndarray, np.ndarray, int]
"""Rotation and translation in fractional coordinates, and the sign of time."""


def is_magnetic_cif(text: str) -> bool:
    """Say whether the text of a CIF file lists magnetic moments.

    Args:
        text: Content of the file.

    Returns:
        True if any moment tag is present.
    """
    return "_atom_site_moment" in text.lower()


def read_mcif(path: Path) -> list[Atoms]:
    """Read every structure of a magnetic CIF file, expanded by its magnetic symmetry.

    Args:
        path: The file.

    Returns:
        Structures with moments in Cartesian components (μB) in ``initial_magmoms``.

    Raises:
        StructureError: If the file is incommensurate or disordered, or its symmetry contradicts its moments.
    """
    from ase.io.cif import parse_cif

    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")
        blocks = [block for block in parse_cif(file) if block.has_structure()]
    return [_expand_block(block) for block in blocks]


def write_mcif(path: Path, atoms: Atoms, *, name: str = "mmace_sim") -> None:
    """Write a structure with its moments as magnetic CIF, see `mcif_text`.

    Args:
        path: File to write.
        atoms: Structure with moments, periodic in three directions.
        name: Name of the data block.

    Raises:
        StructureError: If the structure is not periodic.
    """
    path.write_text(mcif_text(atoms, name=name), encoding="utf-8")


def mcif_text(atoms: Atoms, *, name: str = "mmace_sim") -> str:
    """A structure with its moments as magnetic CIF, all atoms listed, without symmetry (P1).

    Args:
        atoms: Structure with moments, periodic in three directions.
        name: Name of the data block.

    Returns:
        Content of the file.

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


def parse_operation(text: str) -> Operation:
    """Read one magnetic operation such as ``-y, x+1/2, z, -1``.

    Args:
        text: The operation; without a fourth entry, time is not reversed.

    Returns:
        Rotation and translation in fractional coordinates, and the sign of time.

    Raises:
        StructureError: If the text is no such operation.
    """
    parts = [part.strip().lower().replace(" ", "") for part in text.split(",")]
    if len(parts) not in (3, 4):
        raise StructureError(
            f"cannot read the symmetry operation {text!r}; expected something like '-y,x+1/2,z,-1'."
        )
    rotation, translation = np.zeros((3, 3)), np.zeros(3)
    try:
        for row, part in enumerate(parts[:3]):
            rotation[row], translation[row] = _parse_coordinate(part)
        time = int(parts[3]) if len(parts) == 4 else 1
    except (ValueError, ZeroDivisionError) as error:
        raise StructureError(f"cannot read the symmetry operation {text!r} ({error}).") from error
    return rotation, translation, time


def _parse_coordinate(text: str) -> tuple[np.ndarray, float]:
    """One row of an operation: coefficients of x, y, z and the constant."""
    row, constant = np.zeros(3), 0.0
    for term in text.replace("-", "+-").split("+"):
        if not term:
            continue
        variable = term[-1]
        if variable in "xyz":
            factor = term[:-1].rstrip("*")
            row["xyz".index(variable)] += {"": 1.0, "-": -1.0}.get(factor) or float(Fraction(factor))
        else:
            constant += float(Fraction(term))
    return row, constant


def _expand_block(block: Any) -> Atoms:
    """All atoms of one data block."""
    tags = {key.lower().replace(".", "_"): value for key, value in block.items()}
    if any(key.startswith(("_cell_wave_vector", "_cell_modulation_dimension")) for key in tags):
        raise StructureError(
            "the magnetic structure is incommensurate (modulated) and has no finite cell. "
            "Approximate it by a commensurate supercell."
        )
    cell = Cell.fromcellpar(block.get_cellpar())
    labels = [str(label) for label in _column(tags, "_atom_site_label")]
    symbols = block.get_symbols()
    sites = np.array([_column(tags, f"_atom_site_fract_{axis}") for axis in "xyz"], dtype=float).T
    occupancy = np.array(tags.get("_atom_site_occupancy", np.ones(len(labels))), dtype=float)
    if (np.abs(occupancy - 1) > 1e-3).any():
        label = labels[int(np.argmax(np.abs(occupancy - 1)))]
        raise StructureError(
            f"site {label} is partially occupied; give an ordered structure (e.g. a supercell)."
        )
    moments = _listed_moments(tags, labels) @ _unit_axes(cell.array)
    operations = _operations(tags)
    atoms = Atoms(cell=cell, pbc=True)
    all_moments = []
    for label, symbol, site, moment in zip(labels, symbols, sites, moments, strict=True):
        images, image_moments = _orbit(site, moment, operations, cell.array, label)
        atoms += Atoms([symbol] * len(images), scaled_positions=images, cell=cell, pbc=True)
        all_moments.append(image_moments)
    set_magmoms(atoms, np.concatenate(all_moments))
    return atoms


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
    columns = [_column(tags, name) for name in (MOMENT_LABELS, *MOMENT_AXES)]
    for label, *components in zip(*columns, strict=True):
        if str(label) not in listed:
            raise StructureError(
                f"a moment is given for {label!r}, which is none of the sites {', '.join(labels)}."
            )
        listed[str(label)] = tuple(0.0 if value in (".", "?") else float(value) for value in components)
    return np.array([listed[label] for label in labels])


def _operations(tags: dict[str, Any]) -> list[Operation]:
    """All magnetic operations of a block, centering translations (and anti-translations) included."""
    if OPERATIONS not in tags:
        return _operations_by_number(tags)
    operations = [parse_operation(str(text)) for text in _column(tags, OPERATIONS)]
    identity: Operation = (np.eye(3), np.zeros(3), 1)
    centerings = [parse_operation(str(text)) for text in _column(tags, CENTERINGS)] or [identity]
    return [
        (rotation, translation + shift, time * time_shift)
        for _, shift, time_shift in centerings
        for rotation, translation, time in operations
    ]


def _operations_by_number(tags: dict[str, Any]) -> list[Operation]:
    """Operations of the Belov-Neronova-Smirnova (BNS) group named in the file, or none for a plain list of atoms."""
    plain = [
        _column(tags, name) for name in ("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz")
    ]
    if BNS_NUMBER not in tags and all(len(column) <= 1 for column in plain):
        return [(np.eye(3), np.zeros(3), 1)]
    if BNS_NUMBER not in tags or "_space_group_magn_transform_bns_pp_abc" in tags:
        raise StructureError(
            "the file lists moments but no _space_group_symop_magn_operation.xyz, so that its magnetic symmetry "
            "is unknown. Export it with its operations, or in P1 with all atoms."
        )
    from pymatgen.symmetry.maggroups import MagneticSpaceGroup

    number = [int(part) for part in str(tags[BNS_NUMBER]).split(".")]
    group = MagneticSpaceGroup(number)
    return [(op.rotation_matrix, op.translation_vector, int(op.time_reversal)) for op in group.symmetry_ops]


def _column(tags: dict[str, Any], name: str) -> list[Any]:
    """Values of a tag as a list: a CIF writes a single value without a loop."""
    value = tags.get(name, [])
    return list(value) if isinstance(value, list | tuple | np.ndarray) else [value]


def _unit_axes(cell: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Unit vectors along the crystal axes, as rows."""
    return cell / np.linalg.norm(cell, axis=1)[:, None]
