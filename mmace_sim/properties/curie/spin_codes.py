"""Ordering temperatures of spin models that other codes computed: ``curie --from uppasd``, ``--from vampire``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms

from mmace_sim.errors import ConfigError, StructureError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io import uppasd, vampire
from mmace_sim.io.collection import FailedStructure, LoadedStructure
from mmace_sim.io.spin_files import Reader, SpinFile, find_folders
from mmace_sim.sampling.hamiltonian import SpinHamiltonian

SPIN_CODES: dict[str, tuple[str, Reader]] = {
    "uppasd": (uppasd.CONTROL, uppasd.read_uppasd),
    "vampire": (vampire.CONTROL, vampire.read_vampire),
}
"""By name of the code: the file that a folder of it holds, and what reads the folder."""


GIVEN: str = "given"
"""What structures have as the name of their model."""


class SpinModels:
    """Spin models of several crystals, in the place that a model of the energy has elsewhere.

    Args:
        models: By name of the crystal.
        device: Where spins are.
    """

    elements: tuple[str, ...] = ()

    def __init__(self, models: dict[str, SpinHamiltonian], device: torch.device | str = "cpu") -> None:
        self.models, self.device = models, torch.device(device)
        self.metadata: dict[str, Any] = {"kind": "exchange constants that were read"}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What a resumed run must agree with: every exchange constant."""
        return {name: torch.as_tensor(model.exchange) for name, model in self.models.items()}


def hamiltonian_of(file: SpinFile) -> SpinHamiltonian:
    """The Hamiltonian of a spin model that was read.

    Args:
        file: The model; its moments are collinear.
    """
    axis = file.moments[np.argmax(np.round(np.linalg.norm(file.moments, axis=1), 6))]
    lengths = np.linalg.norm(file.moments, axis=1)
    return SpinHamiltonian(
        file.cell, np.sign(file.moments @ axis), lengths, file.first, file.second, file.shifts, file.exchange
    )


def atoms_of(file: SpinFile) -> Atoms:
    """The crystal of a spin model, with its moments.

    Args:
        file: The model.
    """
    atoms = Atoms(file.symbols, positions=file.positions, cell=file.cell, pbc=True)
    set_magmoms(atoms, file.moments)
    return atoms


def read_spin_models(
    code: str, paths: Sequence[str], device: torch.device | str = "cpu"
) -> tuple[list[LoadedStructure | FailedStructure], SpinModels]:
    """Read the folders of a spin-dynamics code.

    Args:
        code: One of `SPIN_CODES`.
        paths: Folders, or folders of folders.
        device: Where spins will be.

    Returns:
        The crystals, those that cannot be read as failures, and their spin models by name.

    Raises:
        ConfigError: If a path does not exist, or there is no folder.
    """
    control, reader = SPIN_CODES[code]
    folders = find_folders(list(paths), control)
    if not folders:
        raise ConfigError("no folders. Name those that hold the files of the spin models.")
    if missing := [str(folder) for folder in folders if not folder.exists()]:
        raise ConfigError(f"{', '.join(missing)}: no such file or folder. Check the path.")
    names = [folder.resolve().name for folder in folders]
    items: list[LoadedStructure | FailedStructure] = []
    models = {}
    for folder, short in zip(folders, names, strict=True):
        name = short if names.count(short) == 1 else str(folder)
        try:
            found = reader(folder)
        except (StructureError, OSError) as error:
            items.append(FailedStructure(str(folder), f"{folder}: {error}", name=name))
            continue
        models[name] = hamiltonian_of(found)
        item = LoadedStructure(str(folder), 0, name, atoms_of(found), found.notes)
        item.model = GIVEN
        items.append(item)
    return items, SpinModels(models, device)
