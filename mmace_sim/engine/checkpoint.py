"""What a batch has under way, on disk: a time limit shorter than the slowest structure still makes progress.

The file holds numbers only (no pickles). The solver's state is made anew from the structures, and its numbers are put
in: what does not fit is another run's, and is started anew.
"""

import json
import logging
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmace_sim.base.hosts import ts
from mmace_sim.base.signals import deferred
from mmace_sim.engine.batching import RefillingBatch
from mmace_sim.engine.journal import CHECKPOINT, WORKER_CHECKPOINTS
from mmace_sim.files import remove, replacing
from mmace_sim.torchsim.state import join_states

INTERVAL: float = 60.0
"""Seconds between two checkpoints; one more is written when a signal ends the run."""

_FROM_STRUCTURES = frozenset({"system_idx", "atomic_numbers", "masses"})
_VERSION = 1
_log = logging.getLogger(__name__)


def kept_checkpoints(folder: Path) -> list[Path]:
    """What an earlier run and its workers had under way, the newest last.

    Args:
        folder: Folder of the run.
    """
    found = [*folder.glob(WORKER_CHECKPOINTS), *folder.glob(CHECKPOINT)]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def checkpoint_keys(path: Path) -> list[str]:
    """What structures a file holds, as the journal calls them.

    Args:
        path: The file.

    Returns:
        Nothing for a damaged one.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            batches = json.loads(str(file["head"]))["batches"]  # the numbers are not read
        return [key.rpartition(" ")[0] for batch in batches for key in batch["keys"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        return []


class BatchCheckpoint:
    """Keeps what a batch has under way.

    Args:
        path: The file; without it nothing is kept.
        identity: What the run is: settings and model. A file of another run is not gone on with.
        keys: What each structure is, by its index.
        further: Other files that may hold some of the structures, the newest last; they are only read.
        interval: Seconds between two checkpoints; None: `INTERVAL`.
    """

    def __init__(
        self,
        path: Path | None = None,
        identity: str = "",
        keys: Sequence[str] = (),
        *,
        further: Iterable[Path] = (),
        interval: float | None = None,
    ) -> None:
        self._path, self._identity, self._keys = path, identity, list(keys)
        self._interval = INTERVAL if interval is None else interval
        self._saved = time.monotonic()
        self._left: dict[str, dict[str, np.ndarray]] = {}
        for number, file in enumerate([*further, *([] if path is None else [path])]):
            self._left |= {key: held | {"file": np.array(number)} for key, held in self._read(file).items()}

    def _read(self, path: Path) -> dict[str, dict[str, np.ndarray]]:
        """Numbers of each system that the file holds, by the key of its structure."""
        if not path.is_file():
            return {}
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                content = {name: file[name] for name in file.files}
            head = json.loads(str(content.pop("head")))
            if head["version"] != _VERSION or head["identity"] != self._identity:
                _log.warning("%s: belongs to another run; what it holds is started anew", path)
                return {}
            return _systems(head["batches"], content)
        except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
            _log.warning("%s: is damaged (%s); what it holds is started anew", path, error)
            return {}

    def parts[State: ts.SimState](
        self,
        indices: Sequence[int],
        start: Callable[[int], ts.SimState],
        init: Callable[[ts.SimState], State],
    ) -> Iterator[tuple[list[int], State]]:
        """What the file holds of some structures, in the batches that they were in.

        Args:
            indices: The structures.
            start: Makes the plain state of one.
            init: Makes the solver's state of plain ones.

        Yields:
            Indices and solver's states.
        """
        batches: dict[tuple[int, int], list[int]] = {}
        for index in indices:
            if self._keys and self._keys[index] in self._left:
                held = self._left[self._keys[index]]
                batches.setdefault((int(held["file"]), int(held["batch"])), []).append(index)
        for number in sorted(batches):
            few = sorted(batches[number], key=lambda index: int(self._left[self._keys[index]]["place"]))
            try:
                state = _filled(
                    init(join_states([start(index) for index in few])),
                    [self._left[self._keys[index]] for index in few],
                )
            except Exception as error:  # of the model, or because it is none of these structures
                _log.warning(
                    "%s: does not fit (%s); %d structures are started anew", self._path, error, len(few)
                )
                continue
            _log.info("%d structures go on after %d steps", len(few), int(state.n_steps.max()))
            yield few, state

    @contextmanager
    def keeping(self, batch: RefillingBatch) -> Iterator[Callable[[], None]]:
        """Keep a batch every now and then, and when a signal has come.

        Args:
            batch: What is under way.

        Yields:
            What to call after each step; it raises a signal that has come.
        """
        with deferred(lambda: self._save(batch)) as raise_waiting:

            def after_step() -> None:
                raise_waiting()
                if time.monotonic() - self._saved >= self._interval:
                    self._save(batch)

            yield after_step

    def _save(self, batch: RefillingBatch) -> None:
        if self._path is None:
            return
        content: dict[str, np.ndarray] = {}
        batches = []
        for number, (indices, state) in enumerate(batch.under_way()):
            sizes = state.n_atoms_per_system.tolist()
            batches.append({"keys": [self._keys[index] for index in indices], "n_atoms": sizes})
            for kind, values in _numbers(state).items():
                content |= {f"{number}/{kind}/{name}": value for name, value in values.items()}
        head = {"version": _VERSION, "identity": self._identity, "batches": batches}
        with replacing(self._path) as temporary:
            np.savez(temporary, head=np.array(json.dumps(head)), **content)
        self._saved = time.monotonic()
        _log.info(
            "%d structures under way are kept in %s", sum(len(b["keys"]) for b in batches), self._path.name
        )

    def remove(self) -> None:
        """Remove the file of a run that has finished."""
        if self._path is not None:
            remove(self._path)


def _numbers(state: ts.SimState) -> dict[str, dict[str, np.ndarray]]:
    """All tensors of a state per atom and per system, by their names."""
    found: dict[str, dict[str, np.ndarray]] = {}
    kinds: dict[str, tuple[set[str], dict[str, Any]]] = {
        "atom": (state._atom_attributes, state.atom_extras),
        "system": (state._system_attributes, state.system_extras),
    }
    for kind, (names, extras) in kinds.items():
        values = {name: getattr(state, name) for name in names - _FROM_STRUCTURES} | extras
        found[kind] = {
            name: value.detach().cpu().numpy()
            for name, value in values.items()
            if isinstance(value, torch.Tensor)
        }
    return found


def _systems(
    batches: list[dict[str, Any]], content: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Numbers of each system, by the key of its structure."""
    systems: dict[str, dict[str, np.ndarray]] = {}
    for number, batch in enumerate(batches):
        ends = np.cumsum(batch["n_atoms"])
        for place, key in enumerate(batch["keys"]):
            first = ends[place] - batch["n_atoms"][place]
            rows = {"atom": slice(first, ends[place]), "system": slice(place, place + 1)}
            systems[key] = {"batch": np.array(number), "place": np.array(place)}
            for kind, chosen in rows.items():
                start = f"{number}/{kind}/"
                systems[key] |= {
                    name.removeprefix(f"{number}/"): value[chosen]
                    for name, value in content.items()
                    if name.startswith(start)
                }
    return systems


def _filled[State: ts.SimState](state: State, systems: Sequence[dict[str, np.ndarray]]) -> State:
    """A solver's state with the stored numbers of its systems."""
    for kind, values in _numbers(state).items():
        extras = state._atom_extras if kind == "atom" else state._system_extras
        prefix = f"{kind}/"
        stored = {
            name.removeprefix(prefix) for system in systems for name in system if name.startswith(prefix)
        }
        if not set(values) <= stored:
            raise ValueError(f"no {', '.join(sorted(set(values) - stored))}")
        for name in stored:
            value = np.concatenate([system[prefix + name] for system in systems])
            like = values.get(name)
            if like is not None and (value.shape != like.shape or value.dtype != like.dtype):
                raise ValueError(f"{name} has shape {value.shape}, expected {like.shape}")
            tensor = torch.from_numpy(value.copy()).to(state.device)
            if name in extras or like is None:
                extras[name] = tensor
            else:
                setattr(state, name, tensor)
    return state
