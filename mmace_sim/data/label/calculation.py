"""What a candidate asks for: its structure, its moments, and which of them are held."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float

from mmace_sim.base.labels import LabelKeys
from mmace_sim.data.candidates import HOLD, MIN_HELD
from mmace_sim.data.label.outcome import Failure
from mmace_sim.data.label.settings import LabelSettings
from mmace_sim.engine.journal import fingerprint
from mmace_sim.errors import ConfigError, DataError, StructureError
from mmace_sim.graph.atoms import MAGMOM_ARRAYS, check_magnitudes, has_magmoms, set_magmoms
from mmace_sim.io.collection import FailedStructure, load_structures
from mmace_sim.io.writing import file_names
from mmace_sim.structures.checks import check_geometry
from mmace_sim.structures.initial_moments import initial_magmoms

_STRAIGHT = 1e-6
"""Largest component (μB) across the common axis of moments that count as collinear."""


class Mode(StrEnum):
    """How spins are treated."""

    NONMAGNETIC = "nm"
    COLLINEAR = "col"
    NONCOLLINEAR = "nc"


@dataclass(frozen=True)
class Calculation:
    """One candidate, ready to be computed.

    Attributes:
        config_id: Its unique name.
        folder: Name of its folder.
        atoms: The structure, with what the candidate carries of names and groups.
        magmoms: Targets of held moments, starts of the others, in μB.
        held: Which moments are held.
        index: Place among the candidates.
        notes: What the user should know.
    """

    config_id: str
    folder: str
    atoms: Atoms
    magmoms: Float[np.ndarray, "n_atoms 3"]
    held: Bool[np.ndarray, " n_atoms"]
    index: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def mode(self) -> Mode:
        """Without spin, with moments along one axis, or with any moments."""
        if not np.abs(self.magmoms).max(initial=0.0) > 0.0:
            return Mode.NONMAGNETIC
        across = self.magmoms - np.outer(self.along_axis, self.axis)
        return Mode.COLLINEAR if np.abs(across).max() < _STRAIGHT else Mode.NONCOLLINEAR

    @property
    def axis(self) -> Float[np.ndarray, " 3"]:
        """Direction of the largest moment, up to sign that of z where it can be; z without moments."""
        longest = self.magmoms[int(np.linalg.norm(self.magmoms, axis=1).argmax())]
        length = np.linalg.norm(longest)
        if length == 0.0:
            return np.array([0.0, 0.0, 1.0])
        return longest / length * (-1.0 if longest[2] < 0.0 else 1.0)

    @property
    def along_axis(self) -> Float[np.ndarray, " n_atoms"]:
        """Components of the moments along `axis`, in μB."""
        return self.magmoms @ self.axis

    @property
    def identity(self) -> str:
        """A hash of all that decides its labels."""
        atoms = self.atoms.copy()
        set_magmoms(atoms, self.magmoms)
        return hashlib.sha256(fingerprint(atoms).encode() + self.held.tobytes()).hexdigest()


def read_candidates(settings: LabelSettings) -> tuple[list[Atoms], list[Failure]]:
    """The candidates behind the files of the settings.

    Returns:
        Structures with a `config_id`, and what cannot be read.

    Raises:
        ConfigError: If no file is named, or none holds a structure.
    """
    if not settings.candidates:
        raise ConfigError("name at least one file with CANDIDATES.")
    found, failures = [], []
    for item in load_structures(settings.candidates):
        if isinstance(item, FailedStructure):
            failures.append(Failure(item.name or item.file, item.message))
            continue
        item.atoms.info.setdefault("config_id", item.name)
        found.append(item.atoms)
    if not found and not failures:
        raise ConfigError(f"no structures in {', '.join(settings.candidates)}.")
    return found, failures


def make_calculations(
    candidates: Sequence[Atoms], settings: LabelSettings
) -> tuple[list[Calculation], list[Failure]]:
    """What the candidates ask for.

    Args:
        candidates: Structures; those without `config_id` are called ``candidate-0``, ``candidate-1``, ...
        settings: Of the run.

    Returns:
        Calculations, and candidates that are none, with the reason.

    Raises:
        DataError: If two candidates have the same `config_id`.
    """
    names = [str(atoms.info.get("config_id", f"candidate-{k}")) for k, atoms in enumerate(candidates)]
    twice = next((name for k, name in enumerate(names) if name in names[:k]), None)
    if twice is not None:
        raise DataError(f"two candidates have the config_id {twice!r}. Give each a name of its own.")
    calculations, failures = [], []
    for index, (name, folder) in enumerate(zip(names, file_names(names), strict=True)):
        try:
            calculations.append(_calculation(candidates[index], name, folder, index, settings))
        except StructureError as error:
            failures.append(Failure(name, str(error), index))
    return calculations, failures


def _calculation(atoms: Atoms, name: str, folder: str, index: int, settings: LabelSettings) -> Calculation:
    check_geometry(atoms, None)
    if settings.max_atoms is not None and len(atoms) > settings.max_atoms:
        raise StructureError(f"has {len(atoms)} atoms, more than --max-atoms {settings.max_atoms}.")
    magmoms, note = _moments(atoms, settings.initial_magmoms)
    held = _held(atoms, magmoms, settings.hold, guessed=settings.initial_magmoms not in (None, "file"))
    return Calculation(name, folder, _bare(atoms), magmoms, held, index, [note] if note else [])


def _moments(atoms: Atoms, how: str | None) -> tuple[np.ndarray, str]:
    if how is None and not has_magmoms(atoms):
        return np.zeros((len(atoms), 3)), "no moments in the file: computed without spin"
    magmoms, note = initial_magmoms(atoms, how)
    check_magnitudes(magmoms, source="the moment")
    return magmoms, note


def _held(atoms: Atoms, magmoms: np.ndarray, hold: str, *, guessed: bool) -> np.ndarray:
    n_atoms = len(atoms)
    if hold == "none" or (hold == "file" and guessed):
        return np.zeros(n_atoms, dtype=bool)
    if hold == "all":
        return np.ones(n_atoms, dtype=bool)
    asked = atoms.arrays.get(HOLD)
    if asked is None:
        return np.linalg.norm(magmoms, axis=1) > MIN_HELD
    asked = np.asarray(asked)
    if asked.shape != (n_atoms,) or asked.dtype.kind not in "bi" or not np.isin(asked, (0, 1)).all():
        raise StructureError(f"{HOLD} must be T or F for each of the {n_atoms} atoms.")
    return asked.astype(bool)


def _bare(atoms: Atoms) -> Atoms:
    """The structure with its names, and without moments, labels and results."""
    keys = {value for value in LabelKeys().model_dump().values() if value != "config_type"}
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.info = {key: value for key, value in atoms.info.items() if key not in keys}
    dropped = {"numbers", "positions", "initial_magmoms", HOLD, *MAGMOM_ARRAYS, *keys}
    for key, value in atoms.arrays.items():
        if key not in dropped:
            bare.set_array(key, value)
    return bare


def targets_of(calculation: Calculation) -> Atoms:
    """The candidate as it is written to a file: structure, moments, and which are held."""
    atoms = calculation.atoms.copy()
    atoms.info["config_id"] = calculation.config_id
    set_magmoms(atoms, calculation.magmoms)
    atoms.set_array(HOLD, calculation.held)
    return atoms
