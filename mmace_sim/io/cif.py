"""CIF and magnetic CIF."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io.cif import CIFBlock, parse_cif

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.io.base import Format, Item, add_note
from mmace_sim.io.mcif import (
    check_sites,
    expand_block,
    expand_sites,
    lists_moments,
    refuse_modulated,
)
from mmace_sim.io.opening import bare_suffix, read_text
from mmace_sim.io.operations import (
    PLAIN_NUMBERS,
    PLAIN_OPERATIONS,
    PLAIN_SYMBOLS,
    column,
    lower_tags,
    parse_operation,
)
from mmace_sim.io.space_groups import named_operations

_OCCUPANCY = "_atom_site_occupancy"
_LOOPS = (
    "_atom_site_", "_atom_site_moment", "_atom_site_aniso", "_atom_site_rotation", "_parent_propagation_vector",
    "_space_group_symop_", "_space_group_symop_magn_operation", "_space_group_symop_magn_centering",
    "_symmetry_equiv_pos",
)  # fmt: skip
"""Beginnings of the names in loops that a structure is made of."""
_TORN = re.compile(
    r"Wrong number (?P<got>\d+) of tokens, expected (?P<expected>\d+): (?P<words>.*)", re.DOTALL
)


def read_cif(path: Path) -> list[Atoms]:
    """Read every structure of a CIF file; magnetic ones are expanded by their magnetic symmetry.

    If any data block lists moments, only the blocks that do are read: the others describe the parent structure.

    Returns:
        Structures, those of magnetic blocks with moments in Cartesian components (μB) in ``initial_magmoms``.

    Raises:
        NotAStructureError: If no block has a structure.
        StructureError: If a structure is incommensurate or disordered, or its symmetry contradicts its moments.
    """
    text = read_text(path)
    if "data_" not in text.lower():
        raise NotAStructureError("cannot be read: it is no CIF file, it has no data block.")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        parsed = list(parse_cif(StringIO(text)))
    _refuse_torn_rows([str(warning.message) for warning in heard], parsed)
    blocks = [_with_occupancies(block) for block in parsed if block.has_structure()]
    if not blocks:
        raise NotAStructureError("holds no structure in any of its data blocks.")
    magnetic = [block for block in blocks if lists_moments(lower_tags(block))]
    if not magnetic and any(lists_moments(lower_tags(block)) for block in parsed):
        raise StructureError("moments and sites stand in different data blocks; join them to one.")
    if not magnetic:
        return [_plain(block) for block in blocks]
    structures = [expand_block(block) for block in magnetic]
    left = ", ".join(block.name for block in blocks if block not in magnetic)
    for atoms in structures if left else ():
        add_note(atoms, f"data blocks without moments are left out: {left}")
    return structures


def _refuse_torn_rows(messages: list[str], blocks: list[CIFBlock]) -> None:
    """Refuse a row of too many or too few words in a loop of sites, moments or operations: ASE leaves it out.

    Args:
        messages: What ASE warned of, such as ``Wrong number 6 of tokens, expected 3: ['1', 'x,', ...]``.
        blocks: What it read.

    Raises:
        StructureError: If the row has the number of columns of such a loop.
    """
    widths = set()
    for block in blocks:
        loops = [max((x for x in _LOOPS if tag.lower().startswith(x)), key=len, default="") for tag in block]
        widths |= {number for loop, number in Counter(loops).items() if loop}
    for message in messages:
        found = _TORN.match(message)
        if found and int(found["expected"]) in widths:
            raise StructureError(
                f"a row of a loop has {found['got']} words in place of {found['expected']}: {found['words'][:200]}. "
                "Write values that hold spaces in quotes, such as 'x, y, z, +1'."
            )


def _with_occupancies(block: CIFBlock) -> CIFBlock:
    """A block in which sites of unknown occupancy (``?`` or ``.``) are occupied, the default of CIF."""
    tags = dict(block)
    values = tags.get(_OCCUPANCY)
    if values is None:
        return block
    values = values if isinstance(values, list) else [values]
    tags[_OCCUPANCY] = [1.0 if str(value).strip() in ("?", ".", "") else value for value in values]
    if len(values) == 1 and not isinstance(tags.get("_atom_site_label"), list):
        tags[_OCCUPANCY] = tags[_OCCUPANCY][0]
    return CIFBlock(block.name, tags)


def _plain(block: CIFBlock) -> Atoms:
    """A structure without moments, expanded by the operations that are listed, else by the name of its space group."""
    tags = lower_tags(block)
    refuse_modulated(tags)
    check_sites(tags)
    if "_atom_site_fract_x" not in tags or block.get_cell().rank != 3:
        return _by_ase(block)
    listed = next((column(tags, name) for name in PLAIN_OPERATIONS if name in tags), [])
    number, name = _number(tags), _name(tags)
    if listed:
        operations = [parse_operation(str(text))[:2] for text in listed]
        note = ""
        if len(listed) == 1 and (number or 1) != 1:
            note = f"the file lists the identity only, though its space group has the number {number}: read as P1"
    else:
        cell = block.get_cell().array
        code = str(tags.get("_space_group_it_coordinate_system_code", ""))
        found = named_operations(name, number, code, cell @ cell.T) if name else None
        if found is None:
            return _by_ase(block)
        operations, note = found
    atoms = expand_sites(block, None, [(rotation, shift, 1) for rotation, shift in operations])
    if note:
        add_note(atoms, note)
    return atoms


def _number(tags: dict[str, Any]) -> int | None:
    value = next((tags[name] for name in PLAIN_NUMBERS if name in tags), "?")
    return int(value) if str(value).isdecimal() else None


def _name(tags: dict[str, Any]) -> str:
    value = str(next((tags[name] for name in PLAIN_SYMBOLS if name in tags), "")).strip()
    return "" if value in ("?", ".") else value


def _by_ase(block: CIFBlock) -> Atoms:
    """A structure by the number of its space group, or not periodic, as ASE reads it."""
    atoms = block.get_atoms()
    for key in ("spacegroup", "unit_cell", "occupancy"):
        atoms.info.pop(key, None)
    atoms.arrays.pop("spacegroup_kinds", None)
    return atoms


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    yield from read_cif(path)


FORMAT = Format("CIF", lambda path: bare_suffix(path) in (".cif", ".mcif"), _read)
