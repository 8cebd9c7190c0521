"""Files of a simulation: written as it goes, so that a killed run loses no more than the frame in the making."""

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mmace_sim.errors import OutputError
from mmace_sim.files import Appender, append, cannot_write, replacing
from mmace_sim.io.extxyz import frame_text, read_written
from mmace_sim.properties.md.declaration import THERMO
from mmace_sim.properties.md.frames import Checkpoint, Snapshot

_log = logging.getLogger(__name__)

COLUMNS: tuple[str, ...] = tuple(column.key for column in THERMO)
"""Of ``thermo.csv``."""
_DOUBT = "forces_uncertainty"


class SimulationFiles:
    """``trajectory.extxyz``, ``thermo.csv`` and ``checkpoint.npz`` of one structure.

    Frames are appended; then the checkpoint is replaced, which knows how long the other files were. What a killed run
    wrote after its last checkpoint is cut off when it goes on.

    Args:
        folder: Folder of the structure; made if it does not exist.

    Raises:
        OutputError: If something cannot be written, or a checkpoint not read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trajectory, self.thermo = folder / "trajectory.extxyz", folder / "thermo.csv"
        self._checkpoint = folder / "checkpoint.npz"
        self._said = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error

    def resume(self) -> Checkpoint | None:
        """Read the checkpoint and cut the other files to where they were; without one, they are emptied.

        Returns:
            The checkpoint, or None.
        """
        sizes, checkpoint = {path.name: 0 for path in (self.trajectory, self.thermo)}, None
        try:
            if self._checkpoint.is_file():
                with np.load(self._checkpoint, allow_pickle=False) as arrays:
                    sizes = json.loads(str(arrays["sizes"]))
                    known = float(arrays[_DOUBT]) if _DOUBT in arrays.files else None
                    names = [name for name in arrays.files if name not in ("sizes", _DOUBT)]
                    checkpoint = Checkpoint({name: arrays[name] for name in names}, known)
            for path in (self.trajectory, self.thermo):
                if path.is_file() and path.stat().st_size < sizes[path.name]:
                    raise ValueError(f"{path.name} is shorter than it was")
                with Appender(path) as file:
                    file.truncate(sizes[path.name])
        except OutputError:
            raise
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(
                f"{self._checkpoint}: cannot be read ({error}). Remove it to simulate this structure again, or start "
                "over with --force."
            ) from error
        return checkpoint

    def append(self, frame: Snapshot) -> None:
        """Write a frame, and the checkpoint to go on from it.

        Args:
            frame: The frame.
        """
        written = frame_text(frame.atoms)
        if written.note and not self._said:
            _log.warning("%s: %s", self.trajectory, written.note)
            self._said = True
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        try:
            if not self.thermo.is_file() or self.thermo.stat().st_size == 0:
                writer.writerow(COLUMNS)
            writer.writerow(["" if frame.values[c] is None else frame.values[c] for c in COLUMNS])
            append(self.trajectory, written.text)
            append(self.thermo, table.getvalue())
            sizes = {path.name: path.stat().st_size for path in (self.trajectory, self.thermo)}
            with replacing(self._checkpoint) as temporary:
                known = frame.checkpoint.forces_uncertainty
                doubt = {} if known is None else {_DOUBT: np.array(known)}
                np.savez(temporary, sizes=np.array(json.dumps(sizes)), **doubt, **frame.checkpoint.arrays)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    def rows(self) -> list[dict[str, Any]]:
        """Everything in ``thermo.csv``.

        Returns:
            One dictionary for each frame; None where a cell is empty.
        """
        if not self.thermo.is_file():
            return []
        with self.thermo.open(newline="", encoding="utf-8") as file:
            return [
                {key: float(value) if value else None for key, value in row.items()}
                for row in csv.DictReader(file)
            ]

    def last(self) -> Atoms | None:
        """The last structure of the trajectory."""
        return next(iter(read_written(self.trajectory, last=True)), None)


def column(rows: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """One quantity over time; NaN where there is none.

    Args:
        rows: From `SimulationFiles.rows`.
        name: Of the column.
    """
    return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=float)
