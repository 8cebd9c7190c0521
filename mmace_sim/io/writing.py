"""Files of structures, in formats that lack something: what is left out has a note, and no structure costs another."""

import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ase import Atoms

from mmace_sim.base.text import printable
from mmace_sim.files import cannot_write, write_text

WRITERS: tuple[str, ...] = ("cif", "mcif", "poscar")
_ENDINGS = {"cif": ".cif", "mcif": ".mcif", "poscar": ".vasp"}
_LONGEST_NAME = 100

_log = logging.getLogger(__name__)


def write_structures(
    folder: Path, relaxed: Sequence[Atoms], formats: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """Write ``relaxed.extxyz``, and each structure in further formats under ``structures/``.

    Args:
        folder: The run folder.
        relaxed: Structures from `output_atoms`.
        formats: Any of `WRITERS`.

    Returns:
        Name and note of each structure that has no place in a format (a molecule in a CIF), or not all of it.

    Raises:
        OutputError: If a file cannot be written.
    """
    names = [str(atoms.info["name"]) for atoms in relaxed]
    notes = [(names[k], note) for k, note in write_extxyz(folder / "relaxed.extxyz", relaxed).items()]
    for form in formats:
        for name, stem, atoms in zip(names, file_names(names), relaxed, strict=True):
            note = write_crystal(folder / "structures" / (stem + _ENDINGS[form]), atoms, form)
            if note:
                _log.warning("%s: %s", printable(name), note)
                notes.append((name, note))
    return notes


def write_extxyz(path: Path, images: Sequence[Atoms]) -> dict[int, str]:
    """Write structures with their moments and results, completely or not at all.

    Args:
        path: The file.
        images: Structures; without any, the file is empty.

    Returns:
        What the format cannot hold of a structure, by its index; it is left out, and the log says so.

    Raises:
        OutputError: If it cannot be written.
    """
    from mmace_sim.io.extxyz import frames_text

    text, left_out = frames_text(images)
    write_text(path, text)
    notes = {index: f"{path.name}: {note}" for index, note in left_out.items()}
    for index, note in notes.items():
        _log.warning("%s: %s", printable(str(images[index].info.get("name", index))), note)
    return notes


def write_crystal(path: Path, atoms: Atoms, form: str) -> str:
    """Write one structure in a format of crystals; the folder is made if it does not exist.

    Args:
        path: The file.
        atoms: Structure.
        form: One of `WRITERS`.

    Returns:
        Why it was not written; "" if it was.

    Raises:
        OutputError: If the file cannot be written.
    """
    if not atoms.pbc.all():
        axes = " and ".join(axis for axis, periodic in zip("abc", atoms.pbc, strict=True) if periodic)
        kind = f"periodic along {axes} only" if axes else "a molecule"
        return f"{kind}: not written as {form}, which describes crystals"
    try:
        text = _crystal_text(path.stem, atoms, form)
    except (
        Exception
    ) as error:  # the writers of the hosts raise anything; the structure is in the extended XYZ
        return f"not written as {form}: {error}"
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    write_text(path, text)
    return ""


def _crystal_text(name: str, atoms: Atoms, form: str) -> str:
    from ase.io import write

    from mmace_sim.io.mcif import mcif_text

    if form == "mcif":
        return mcif_text(atoms, name=name)
    plain = atoms.copy()
    plain.info = {}
    if form == "cif":
        content = io.BytesIO()
        write(content, plain, format="cif")
        return content.getvalue().decode()
    text = io.StringIO()
    write(text, plain, format="vasp", direct=True)
    return text.getvalue()


def file_names(names: list[str]) -> list[str]:
    """File names without the ending of the input file, where that leaves them unique.

    Args:
        names: Unique names of structures.

    Returns:
        Names without characters that a file system or a shell trips over.
    """
    clean = [re.sub(r"[^\w.+-]+", "_", name).lstrip("-.") or "structure" for name in names]
    short = [
        re.sub(r"\.(cif|mcif|vasp|poscar|contcar|xyz|extxyz|json|traj)(?=_\d+$|$)", "", name, flags=re.I)
        or name
        for name in clean
    ]
    counts = Counter(short)
    found = [name if counts[name] == 1 else full for name, full in zip(short, clean, strict=True)]
    return _unique([name[:_LONGEST_NAME] for name in found])


def _unique(names: list[str]) -> list[str]:
    """The names, with numbers where several are alike also on file systems that take a for A."""
    taken = Counter(name.casefold() for name in names)
    used = {name for name, count in taken.items() if count == 1}
    last: Counter[str] = Counter()
    unique = []
    for name in names:
        new, number = name, last[name.casefold()] or 1
        while new.casefold() in used and taken[name.casefold()] > 1:
            number += 1
            new = f"{name}-{number}"
        last[name.casefold()] = number
        used.add(new.casefold())
        unique.append(new)
    return unique
