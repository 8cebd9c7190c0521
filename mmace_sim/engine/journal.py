"""The journal of a run: one line per finished structure, on disk before the next one is looked at.

``finished.jsonl`` is append-only. Its first line describes the run, each further line one finished structure, its
results and its relaxed atoms with all digits. Every line is handed to the system at once, so that a killed run loses
at most the structures in flight; the disk is told to store it within `SYNC_INTERVAL`, so that a power failure loses
at most that. A half-written last line is cut off when the run is resumed.

Every line ends with a checksum of what stands before it. What is read back is numbers and texts in the places where
they were written: nothing in a structure, such as the JSON of another program, can stand for an object.
"""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import dict2constraint

from mmace_sim.base.text import array_values, as_text
from mmace_sim.errors import OutputError
from mmace_sim.files import Appender, cannot_write
from mmace_sim.graph.atoms import get_magmoms

FILE_NAME = "finished.jsonl"
CHECKPOINT = "checkpoint.npz"
"""What a batch has under way, see `mmace_sim.engine.checkpoint`."""
SIGN_OF_LIFE = "worker.json"
"""What a worker says of itself every few seconds, in its own folder."""
SIGN_OF_VOLUME = "volume-{}.json"
"""What a worker says of itself that computes a volume, in the folder that vanishes with the workers."""
WORKER_CHECKPOINTS = f"mmace-*-{CHECKPOINT}"
"""What workers of an earlier run had under way."""
SYNC_INTERVAL: float = 0.5
"""Seconds between two calls of fsync, which takes 1–20 ms: too much for each of thousands of tiny structures."""

_CHECK = b', "check": "%b"}'
_CONSTRAINTS: frozenset[str] = frozenset(
    {"FixAtoms", "FixCom", "FixCartesian", "FixScaled", "FixedPlane", "FixedLine"}
)
_TYPES: frozenset[str] = frozenset(
    {
        "bool",
        "str",
        "float32",
        "float64",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    }
)


class Journal:
    """An open journal, locked against a second process.

    Args:
        path: File to append to; created if it does not exist.

    Raises:
        OutputError: If it cannot be written or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._synced = 0.0
        try:
            keep = _end_of_last_whole_line(path)
            self._file = Appender(path)
            try:
                self._file.lock()
                if path.is_file() and path.stat().st_size > keep:
                    self._file.truncate(keep)
            except OSError:
                self._file.close()
                raise
        except OSError as error:
            raise cannot_write(path, error) from error

    def append(self, record: dict[str, Any]) -> None:
        """Write one line and hand it to the system.

        Args:
            record: What to write; must be JSON.

        Raises:
            OutputError: If the disk is full or the file cannot be written.
        """
        try:
            self._file.write(_line(record))
            if time.monotonic() - self._synced >= SYNC_INTERVAL and self.path.is_file():
                self._file.sync()
                self._synced = time.monotonic()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Close the file and release the lock."""
        with contextlib.suppress(OSError):
            if self.path.is_file() and not self._file.closed:
                self._file.sync()
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
    lines = content[: _whole_length(content)].split(b"\n")[:-1]
    return [_record(line, number, path) for number, line in enumerate(lines, start=1)]


class JournalTail:
    """A journal that another process writes, read as it grows.

    Args:
        path: The journal; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._read, self.n_lines = path, 0, 0

    def new(self) -> list[dict[str, Any]]:
        """Records of the lines that have been completed since the last call.

        Raises:
            OutputError: If a line is damaged.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:
            return []
        *lines, _ = content.split(b"\n")
        self._read += sum(len(line) + 1 for line in lines)
        found = []
        for line in lines:
            self.n_lines += 1
            found.append(_record(line, self.n_lines, self._path))
        return found


def _line(record: dict[str, Any]) -> bytes:
    """A record with its checksum as one line."""
    body = json.dumps(record, allow_nan=True).encode()[:-1]
    return body + _CHECK % hashlib.sha256(body).hexdigest()[:16].encode() + b"\n"


def _record(line: bytes, number: int, path: Path) -> dict[str, Any]:
    """The record of a line, or an error that names the line."""
    start = line.rfind(b', "check": "')
    body = line[:start]
    if start < 0 or line[start:] != _CHECK % hashlib.sha256(body).hexdigest()[:16].encode():
        if number == 1:
            raise OutputError(
                f"{path}: line 1 is damaged, or of an earlier version of mmace-sim, which cannot be resumed with this "
                "one. Start over with --force, or choose another folder (--output DIR)."
            )
        raise _damaged(path, number)
    record = json.loads(body + b"}")
    if number > 1 and not isinstance(record.get("key"), str):
        raise _damaged(path, number)
    return record


def _damaged(path: Path, number: int) -> OutputError:
    return OutputError(
        f"{path}: line {number} is damaged. Remove this line to compute its structure again, "
        "or start over with --force."
    )


def atoms_to_record(atoms: Atoms) -> dict[str, Any]:
    """A structure as plain JSON, with all digits.

    Args:
        atoms: Structure, with or without calculator results.

    Returns:
        A dictionary for `atoms_from_record`; ``left_out`` names what is neither a number nor a text.
    """
    groups = {
        "arrays": dict(atoms.arrays),
        "info": dict(atoms.info),
        "results": {k: v for k, v in (getattr(atoms.calc, "results", None) or {}).items() if v is not None},
    }
    known = [c.todict() for c in atoms.constraints if type(c).__name__ in _CONSTRAINTS]
    left_out = [type(c).__name__ for c in atoms.constraints if type(c).__name__ not in _CONSTRAINTS]
    record: dict[str, Any] = {
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "constraints": json.loads(json.dumps(known, default=array_values)),
    }
    for group, values in groups.items():
        written = {key: _encode(key, value) for key, value in values.items()}
        record[group] = {key: value for key, value in written.items() if value is not None}
        left_out += [f"{group} {str(key)[:40]!r}" for key, value in written.items() if value is None]
    return record | {"left_out": left_out}


def atoms_from_record(record: dict[str, Any]) -> Atoms:
    """Rebuild a structure.

    Args:
        record: From `atoms_to_record`.

    Returns:
        The structure with its results in a ``SinglePointCalculator``.

    Raises:
        OutputError: If it is something else.
    """
    try:
        arrays = {key: _decode(value) for key, value in record["arrays"].items()}
        atoms = Atoms(arrays.pop("numbers"), arrays.pop("positions"), cell=record["cell"], pbc=record["pbc"])
        for key, value in arrays.items():
            atoms.set_array(key, value)
        atoms.info = {key: _decode(value) for key, value in record["info"].items()}
        atoms.set_constraint([_constraint(item) for item in record["constraints"]])
        results = {key: _decode(value) for key, value in record["results"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise OutputError(
            f"the journal holds no structure of this version of mmace-sim ({type(error).__name__}: {error}). "
            "Start over with --force."
        ) from error
    if results:
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results.update(results)
    return atoms


def _encode(key: object, value: object) -> dict[str, Any] | None:
    """A value as numbers or texts that say which they are; None if it is something else."""
    if not isinstance(key, str):
        return None
    if isinstance(value, np.ndarray | np.generic):
        value = as_text(value)
        return encode_array(value) if _kind(value) in _TYPES else None
    try:
        return {"json": json.loads(json.dumps(value, default=array_values))}
    except (TypeError, ValueError, RecursionError):
        return None


def _decode(value: dict[str, Any]) -> Any:
    if "json" in value:
        return value["json"]
    array = decode_array(value)
    return array if array.ndim else array[()]


def encode_array(value: np.ndarray | np.generic) -> dict[str, Any]:
    """An array of numbers or texts that says which they are.

    Args:
        value: Array of NumPy.

    Raises:
        TypeError: If it holds something else.
    """
    if _kind(value) not in _TYPES:
        raise TypeError(f"an array of {value.dtype} cannot be kept in a journal")
    return {"array": _kind(value), "shape": list(value.shape), "values": value.ravel().tolist()}


def decode_array(record: dict[str, Any]) -> np.ndarray:
    """The array that `encode_array` has written.

    Args:
        record: What was written.

    Raises:
        ValueError: If it is something else.
    """
    if record["array"] not in _TYPES:
        raise ValueError(f"no array of {str(record['array'])[:40]!r}")
    return np.array(record["values"], dtype=record["array"]).reshape([int(n) for n in record["shape"]])


def _kind(value: np.ndarray | np.generic) -> str:
    return "str" if value.dtype.kind == "U" else str(value.dtype.name)


def _constraint(item: dict[str, Any]) -> Any:
    if item["name"] not in _CONSTRAINTS:
        raise ValueError(f"no constraint {str(item['name'])[:40]!r}")
    return dict2constraint(item)


def weights_hash(model: Any) -> str:
    """A short hash of the weights of a model: what a resumed run must agree with.

    Args:
        model: A module of torch, or what has its `state_dict`.
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
    parts = [atoms.numbers.astype("int64"), atoms.positions, atoms.cell.array, atoms.pbc, get_magmoms(atoms)]
    if atoms.has("momenta"):
        parts.append(atoms.get_momenta())
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    for constraint in atoms.constraints:
        digest.update(json.dumps(constraint.todict(), default=str, sort_keys=True).encode())
    return digest.hexdigest()


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
    except (ValueError, RecursionError):
        return start
    return end
