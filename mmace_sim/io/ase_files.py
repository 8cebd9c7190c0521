"""Extended XYZ, and everything else that ASE reads."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import iread
from ase.io.extxyz import key_val_str_to_dict

from mmace_sim.io.base import Format, Item, put_labels, results_as_labels
from mmace_sim.io.labels import LabelKeys

_NAME = re.compile(r"\.(ext)?xyz(\.(gz|bz2|xz))?$", re.IGNORECASE)

_TEXT = re.compile(r"(?<!\S)(group|config_id|config_type)=(?:\"([^\"]*)\"|'([^']*)'|(\S+))")


def parse_comment(line: str) -> dict[str, Any]:
    """The second line of a frame; names of structures stay text.

    ASE turns everything that looks like a number into one: a group called ``12e345`` would become infinity, the
    same for many groups.

    Args:
        line: The line.
    """
    info = key_val_str_to_dict(line)
    for key, *values in _TEXT.findall(line):
        info[key] = next((value for value in values if value), "")
    return info


def _read_extxyz(path: Path, keys: LabelKeys) -> Iterator[Item]:
    for atoms in iread(path, index=":", format="extxyz", properties_parser=parse_comment):
        yield _adopt_standard_names(atoms, keys)


def _adopt_standard_names(atoms: Atoms, keys: LabelKeys) -> Atoms:
    """Labels that the keys ask for by ASE's own names, which ASE moves to a calculator."""
    results = getattr(atoms.calc, "results", None) or {}
    wanted = {label: key for label, key in keys if label != "config_type" and key in results}
    return put_labels(atoms, keys, {label: results[key] for label, key in wanted.items()})


def _read_other(path: Path, keys: LabelKeys) -> Iterator[Item]:
    for atoms in iread(path, index=":"):
        yield put_labels(atoms, keys, results_as_labels(atoms))


def is_extxyz(path: Path) -> bool:
    """Whether a name is that of an extended XYZ file, plain or compressed."""
    return _NAME.search(path.name) is not None


EXTXYZ = Format("extended XYZ", is_extxyz, _read_extxyz)
OTHER = Format("a file of ASE", lambda path: path.is_file(), _read_other)
