"""JSON files: ASE's databases and single structures, and everything of pymatgen."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import NotAStructureError
from mmace_sim.io.base import Format, Item, structure_or_reason
from mmace_sim.io.opening import bare_suffix, read_text
from mmace_sim.io.plain_json import parse_json, plain_values
from mmace_sim.io.pymatgen_json import atoms_from_dict, find_structures
from mmace_sim.io.rows import row_to_atoms


def _read(path: Path, keys: LabelKeys) -> Iterator[Item]:
    text = read_text(path)
    if text.lstrip()[:1] not in ("{", "["):
        raise NotAStructureError("cannot be read: it is no JSON.")
    data = parse_json(text)
    readers = [partial(row_to_atoms, plain_values(row), keys) for row in _ase_rows(data)]
    readers = readers or [partial(atoms_from_dict, found) for found in find_structures(data)]
    if not readers:
        raise NotAStructureError("cannot be read: the JSON holds no structure of ASE or pymatgen.")
    for number, read in enumerate(readers):
        yield structure_or_reason(read, f"entry {number}")


def _ase_rows(data: object) -> list[dict[str, Any]]:
    """Rows of a database of ASE, or one structure."""
    if not isinstance(data, dict):
        return []
    if "numbers" in data and "positions" in data:
        return [data]
    ids = data.get("ids", [1])
    rows = [data.get(str(number)) for number in ids] if isinstance(ids, list) else []
    return [row for row in rows if isinstance(row, dict) and "numbers" in row]


FORMAT = Format("JSON of ASE or pymatgen", lambda path: bare_suffix(path) == ".json", _read)
