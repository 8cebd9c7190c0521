"""Spin Hamiltonians in the folder of an earlier ``mmace-sim exchange``."""

import csv
import json
from pathlib import Path

import numpy as np

from mmace_sim.errors import ConfigError
from mmace_sim.io.writing import file_names
from mmace_sim.sampling.hamiltonian import SpinHamiltonian


def read_exchange_run(folder: Path) -> dict[str, SpinHamiltonian]:
    """The isotropic exchange of every structure of a run.

    Args:
        folder: Folder of ``mmace-sim exchange``, with ``summary.json`` and ``NAME/pairs.csv``.

    Returns:
        By name of the structure. The cell follows from the vectors of the pairs.

    Raises:
        ConfigError: If the folder holds no such run.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if summary["command"] != "exchange":
            raise ConfigError(
                f"{folder}: is a run of mmace-sim {summary['command']}, expected one of exchange."
            )
        entries = [entry for entry in summary["structures"] if entry.get("moments")]
        folders = file_names([entry["name"] for entry in entries])
        return {
            entry["name"]: _read(folder / where / "pairs.csv", np.array(entry["moments"]))
            for entry, where in zip(entries, folders, strict=True)
            if (folder / where / "pairs.csv").is_file()
        }
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{folder}: cannot be read as a run of mmace-sim exchange ({error}). Give its folder with --from."
        ) from error


def _read(path: Path, moments: np.ndarray) -> SpinHamiltonian:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def columns(*names: str) -> np.ndarray:
        return np.array([[float(row[name]) for name in names] for row in rows])

    first, second = (columns("first", "second").astype(int) - 1).T
    shifts = columns("cell_a", "cell_b", "cell_c").astype(int)
    exchange = columns("Jxx", "Jyy", "Jzz").mean(axis=1) / 1000
    n = len(moments)
    # vector of a pair = position of the second − position of the first + shift · cell: linear in cell and positions
    ends = np.eye(n)[second] - np.eye(n)[first]
    matrix = np.concatenate([shifts, ends[:, 1:]], axis=1)
    cell = np.linalg.lstsq(matrix, columns("x", "y", "z"), rcond=None)[0][:3]
    return SpinHamiltonian(cell, np.sign(moments), np.abs(moments), first, second, shifts, exchange)
