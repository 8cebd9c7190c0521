"""DeePMD-kit folders with spins, in the layout of its PyTorch backend.

``type.raw``, ``type_map.raw`` and ``set.*/{coord,box,energy,force,virial,spin,force_mag}.npy``, see "Fit spin energy"
and "System" in the documentation of DeePMD-kit. Energies in eV, lengths in Å, spins in μB; ``force_mag`` is −∂E/∂m in
eV/μB; ``virial`` is −V·stress in eV. Several systems below one folder are read one after the other.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import DataError, StructureError
from mmace_sim.io.base import Format, Item, symbols_of
from mmace_sim.io.rows import set_results

VIRTUAL_ATOMS = (
    "no spin.npy. In the older layout of the TensorFlow backend spins are virtual atoms in coord.npy, and the unit of "
    "their forces depends on the model's input; reformat it: spin = (r_virtual - r_atom) * spin_norm / virtual_len, "
    "one row for each real atom (zero without spin), and force_mag the same"
)


def _systems(path: Path) -> list[Path]:
    return (
        sorted(found.parent for found in path.rglob("type.raw") if found.is_file()) if path.is_dir() else []
    )


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    for system in _systems(path):
        try:
            yield from _read_system(system)
        except DataError as error:
            raise DataError(
                f"{system.relative_to(path)}: {error}" if system != path else str(error)
            ) from error


def _read_system(system: Path) -> Iterator[Item]:
    types = np.loadtxt(system / "type.raw", dtype=int, ndmin=1)
    if not (system / "type_map.raw").is_file():
        raise DataError("no type_map.raw; write the element symbols of types 0, 1, ... to it, one a line")
    type_map = (system / "type_map.raw").read_text(encoding="utf-8").split()
    sets = sorted(system.glob("set.*"))
    if not sets:
        raise DataError("no folder set.000 beside type.raw")
    periodic = not (system / "nopbc").is_file()
    for folder in sets:
        arrays = _load_set(folder, len(types), periodic=periodic)
        for k in range(len(arrays["coord"])):
            yield _structure({name: array[k] for name, array in arrays.items()}, types, type_map)


def _load_set(folder: Path, n_atoms: int, *, periodic: bool) -> dict[str, np.ndarray]:
    """Arrays of one set by name, each with one row per structure."""
    if not (folder / "spin.npy").is_file():
        raise DataError(f"{folder.name}: {VIRTUAL_ATOMS}")
    per_atom = ("coord", "spin", "force", "force_mag")
    arrays = {}
    for name in (*per_atom, "energy", "box", "virial", "real_atom_types"):
        file = folder / f"{name}.npy"
        if file.is_file():
            arrays[name] = _load(file)
    missing = {"coord"} | ({"box"} if periodic else set())
    if missing - set(arrays):
        raise DataError(f"{folder.name}: {', '.join(sorted(missing - set(arrays)))}.npy is missing")
    n_frames = len(arrays["coord"])
    for name, array in arrays.items():
        shape = (
            (n_atoms, 3)
            if name in per_atom
            else {"energy": (), "real_atom_types": (n_atoms,)}.get(name, (3, 3))
        )
        expected = n_frames * int(np.prod(shape))
        if array.size != expected or len(array) != n_frames:
            raise DataError(
                f"{folder.name}/{name}.npy has shape {array.shape}, expected {n_frames} frames of {shape} for the "
                f"{n_atoms} atoms of type.raw"
            )
        arrays[name] = array.reshape(n_frames, *shape)
    return arrays


def _load(file: Path) -> np.ndarray:
    """An array, mapped into memory first: a header that announces more than the file holds is refused there."""
    try:
        return np.array(np.load(file, mmap_mode="r", allow_pickle=False))
    except (ValueError, OSError, OverflowError, MemoryError) as error:
        raise DataError(f"{file.parent.name}/{file.name} cannot be read ({error})") from error


def _structure(frame: dict[str, np.ndarray], types: np.ndarray, type_map: list[str]) -> Item:
    present = np.ones(len(types), dtype=bool)
    if "real_atom_types" in frame:  # mixed types: another composition in each frame, padded with -1
        types = frame["real_atom_types"].astype(int)
        present = types >= 0
    symbols = symbols_of(types[present], type_map)
    box = frame.get("box")
    atoms = Atoms(symbols, positions=frame["coord"][present].astype(float), cell=box, pbc=box is not None)
    labels = {
        "energy": float(frame["energy"]) if "energy" in frame else None,
        "magmoms": frame["spin"][present],
        "forces": frame["force"][present] if "force" in frame else None,
        "magforces": frame["force_mag"][present] if "force_mag" in frame else None,
    }
    if "virial" in frame:
        if not atoms.cell.volume > 0:
            return StructureError("has a virial but no cell; remove virial.npy")
        labels["stress"] = -frame["virial"].astype(float) / atoms.cell.volume
    set_results(atoms, labels)
    return atoms


FORMAT = Format("a DeePMD-kit folder", lambda path: bool(_systems(path)), _read)
