"""The journal of a run: one line per finished structure, on disk before the next one is looked at.

``finished.jsonl`` is append-only. Its first line describes the run, each further line one finished structure, its
results and its relaxed atoms with all digits. Every line is handed to the system at once, so that a killed run loses
at most the structures in flight; the disk is told to store it within `SYNC_INTERVAL`, so that a power failure loses
at most that. A half-written last line is cut off when the run is resumed.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mmace_sim.errors import OutputError
from mmace_sim.graph.atoms import get_magmoms

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

FILE_NAME = "finished.jsonl"
SYNC_INTERVAL: float = 0.5
"""Seconds between two calls of fsync, which takes 1–20 ms: too much for each of thousands of tiny structures."""

_log = logging.getLogger(__name__)


class Journal:
    """An open journal, locked against a second process.

    Args:
        path: File to append to; created if it does not exist.

    Raises:
        OutputError: If it cannot be written or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_written = 0
        self._synced = 0.0
        try:
            keep = _end_of_last_whole_line(path)
            self._file: IO[bytes] = path.open("ab")
            self._lock()
            if path.is_file():
                self._file.truncate(keep)
        except OSError as error:
            raise _cannot_write(path, error) from error

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise OutputError(
                f"{self.path.parent}: another process is writing this folder. Wait for it, or choose another --output."
            ) from error
        except OSError:  # file systems without locks
            _log.debug("%s cannot be locked", self.path)

    def append(self, record: dict[str, Any]) -> None:
        """Write one line and hand it to the system.

        Args:
            record: What to write; must be JSON.

        Raises:
            OutputError: If the disk is full or the file cannot be written.
        """
        try:
            self._file.write(json.dumps(record, allow_nan=True).encode() + b"\n")
            self._file.flush()
            if time.monotonic() - self._synced >= SYNC_INTERVAL and self.path.is_file():
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise OutputError(
                f"{self.path}: {os.strerror(error.errno or 0)}. {self.n_written} records are safe in this file. "
                "Free some space and run the same command with --resume."
            ) from error
        self.n_written += 1

    def close(self) -> None:
        """Close the file and release the lock; what a failed write left in its buffer is dropped."""
        with contextlib.suppress(OSError):
            if self.path.is_file() and not self._file.closed:
                os.fsync(self._file.fileno())
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Read all whole lines.

    Args:
        path: The journal.

    Returns:
        Its records; a half-written last line is left out.

    Raises:
        OutputError: If the file cannot be read or a line before the last is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({os.strerror(error.errno or 0)}).") from error
    records = []
    for number, line in enumerate(content[: _whole_length(content)].splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise OutputError(
                f"{path}: line {number} is damaged. Remove this line to compute its structure again, "
                "or start over with --force."
            ) from error
    return records


def atoms_to_record(atoms: Atoms) -> dict[str, Any]:
    """Everything of a structure as plain JSON, with all digits.

    Args:
        atoms: Structure, with or without calculator results.

    Returns:
        A dictionary for `atoms_from_record`.
    """
    from ase.io.jsonio import encode

    plain = atoms.copy()
    plain.info = {key: value for key, value in atoms.info.items() if _is_plain(value)}
    results = dict(getattr(atoms.calc, "results", None) or {})
    return {"atoms": json.loads(encode(plain)), "results": json.loads(encode(results))}


def atoms_from_record(record: dict[str, Any]) -> Atoms:
    """Rebuild a structure.

    Args:
        record: From `atoms_to_record`.

    Returns:
        The structure with its results in a ``SinglePointCalculator``.
    """
    from ase.io.jsonio import decode

    atoms = decode(json.dumps(record["atoms"]))
    results = decode(json.dumps(record["results"]))
    if results:
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results.update(results)
    return atoms


def weights_hash(model: Any) -> str:
    """A short hash of the weights of a model: what a resumed run must agree with.

    Args:
        model: A torch module.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint(atoms: Atoms) -> str:
    """A hash of elements, positions, cell, periodicity and moments, and of velocities and constraints if there are any.

    Args:
        atoms: Structure with moments.

    Returns:
        Hexadecimal digest.
    """
    digest = hashlib.sha256()
    parts = (atoms.numbers.astype("int64"), atoms.positions, atoms.cell.array, atoms.pbc, get_magmoms(atoms))
    if atoms.has("momenta"):
        parts += (atoms.get_momenta(),)
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    for constraint in atoms.constraints:
        digest.update(json.dumps(constraint.todict(), default=str, sort_keys=True).encode())
    return digest.hexdigest()


def _is_plain(value: Any) -> bool:
    from ase.io.jsonio import encode

    try:
        encode(value)
    except (TypeError, ValueError):
        return False
    return True


def _end_of_last_whole_line(path: Path) -> int:
    return _whole_length(path.read_bytes()) if path.is_file() else 0


def _whole_length(content: bytes) -> int:
    """Length up to the end of the last line that is complete and parses."""
    end = content.rfind(b"\n") + 1
    if end == 0:
        return 0
    start = content.rfind(b"\n", 0, end - 1) + 1
    try:
        json.loads(content[start:end])
    except ValueError:
        return start
    return end


def _cannot_write(path: Path, error: OSError) -> OutputError:
    if isinstance(error, OutputError):
        return error
    return OutputError(
        f"{path}: cannot be written ({os.strerror(error.errno or 0)}). Choose another folder with --output."
    )
