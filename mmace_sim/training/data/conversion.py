"""Labelled structures of any format to one file with our own names, structure by structure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import DataError
from mmace_sim.files import replacing
from mmace_sim.io.base import PER_ATOM
from mmace_sim.io.database import LMDB_ENDINGS, atoms_to_row, write_database
from mmace_sim.io.extxyz import frame_text
from mmace_sim.io.frames import Frame, iter_frames
from mmace_sim.io.opening import OPENERS
from mmace_sim.io.xyz import is_extxyz

OUR_KEYS = LabelKeys()


@dataclass
class Conversion:
    """What became of the structures.

    Attributes:
        n_structures: Structures written.
        labels: How many of them have each label.
        problems: One message per structure that was left out.
    """

    n_structures: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def convert_files(paths: Sequence[Path], output: Path, keys: LabelKeys | None = None) -> Conversion:
    """Write the structures of some files, their labels and their names to one file.

    Args:
        paths: Files and folders of any format.
        output: Extended XYZ (``.extxyz``, may be compressed), LMDB (``.aselmdb``) or SQLite (``.db``). An existing file
            is replaced when all is done.
        keys: Names of the labels in the files.

    Returns:
        Numbers and problems.

    Raises:
        DataError: If a file cannot be read, no structure can be used, or the name of the output has another ending.
    """
    ending = output.suffix.lower()
    if not is_extxyz(output) and ending not in (*LMDB_ENDINGS, ".db"):
        raise DataError(f"{output}: unknown ending; write to .extxyz (also .xz, .gz, .bz2), .aselmdb or .db")
    done = Conversion()
    frames = _frames(paths, keys or OUR_KEYS, done)
    with replacing(output) as unfinished:
        if is_extxyz(output):
            with OPENERS.get(ending, open)(unfinished, "wt", encoding="utf-8") as file:
                for frame in frames:
                    written = frame_text(labelled_atoms(frame))
                    file.write(written.text)
                    done.problems += [f"{frame.source}: {written.note}"] if written.note else []
        else:
            write_database(unfinished, (_row(frame) for frame in frames))
        if not done.n_structures:
            raise DataError(f"no structure can be used: {'; '.join(done.problems[:3])}")
    return done


def labelled_atoms(frame: Frame) -> Atoms:
    """A structure with its labels under our names and nothing else that belongs to a code."""
    atoms = Atoms(frame.atoms.numbers, frame.atoms.positions, cell=frame.atoms.cell, pbc=frame.atoms.pbc)
    atoms.info.update(_names(frame))
    atoms.arrays[OUR_KEYS.magmoms] = frame.magmoms
    for label, value in frame.labels.items():
        if label in PER_ATOM:
            atoms.arrays[getattr(OUR_KEYS, label)] = value
        else:
            atoms.info[getattr(OUR_KEYS, label)] = float(value) if label == "energy" else value
    return atoms


def _row(frame: Frame) -> dict[str, Any]:
    return atoms_to_row(frame.atoms, frame.magmoms, frame.labels, _names(frame))


def _names(frame: Frame) -> dict[str, str]:
    """What a structure is called: texts and whole numbers, but no labels."""
    names = {
        k: str(v) for k, v in frame.atoms.info.items() if isinstance(v, str | int | np.integer | np.str_)
    }
    own = {getattr(OUR_KEYS, label) for label in type(OUR_KEYS).model_fields}
    names = {key: value for key, value in names.items() if key not in own}
    return names | ({} if frame.config_type == "default" else {"config_type": frame.config_type})


def _frames(paths: Sequence[Path], keys: LabelKeys, done: Conversion) -> Iterator[Frame]:
    """The usable structures, counted."""
    for frame in iter_frames(paths, keys, done.problems):
        done.n_structures += 1
        for label in frame.labels:
            done.labels[label] = done.labels.get(label, 0) + 1
        yield frame
