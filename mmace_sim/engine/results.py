"""What becomes of a result: files of its structure, and a line of the journal, in plain JSON; and how a run ends."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms

from mmace_sim.base.text import plain
from mmace_sim.engine.computation import Computation, Part
from mmace_sim.engine.declaration import GOOD
from mmace_sim.engine.journal import atoms_to_record
from mmace_sim.engine.records import encode
from mmace_sim.engine.resume import item_key
from mmace_sim.errors import OutputError
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.model.uncertainty import Domain
from mmace_sim.structures.domain import domain_entries, domain_entry, farthest
from mmace_sim.structures.model_choice import beyond_its_data

_COMPUTED = GOOD | {"uncertain"}
"""Statuses at which the structure that was read has been computed."""

EXIT_OK = 0
EXIT_INCOMPLETE = 3

_log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        code: 0, or 3 if a structure failed or did not converge.
        summary: Content of ``summary.json``.
        rows: Lines of the table.
        written: What was written beside the summary.
        folder: Folder of the run.
        n_resumed: How many structures an earlier run had finished.
        n_lost: How many no worker survived, or left no result of: they are tried again with ``--resume``.
        weights: Hash of the weights of each model, of a volume of a large run.
    """

    code: int
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    written: list[str]
    folder: Path
    n_resumed: int = 0
    n_lost: int = 0
    weights: dict[str, str] = field(default_factory=dict)


def record_of[R](
    computation: Computation[Any, R], part: Part, item: LoadedStructure, result: R
) -> dict[str, Any]:
    """What becomes of a result: files of the structure, and the line of the journal.

    Args:
        computation: What was computed.
        part: Where.
        item: The structure.
        result: The result. One that cannot be written or encoded fails alone.

    Returns:
        Plain JSON: its key, its entry, what the structure has become, and its result if the end of the run needs that.

    Raises:
        OutputError: If the disk is full.
    """
    try:
        entry, atoms = computation.finish(item, result, part)
        try:
            _tell_domain(computation, part, item, result, entry, atoms)
        except RuntimeError as error:  # such as too little memory: the result is there all the same
            _log.exception("%s: where it lies cannot be told", item.name)
            entry["notes"].append(f"where it lies in the domain of the model cannot be told: {error}")
            _add(entry, domain_entry(None, None))
        if entry.get("domain") == Domain.OUTSIDE:
            elements = frozenset(item.atoms.numbers.tolist())
            entry["notes"].append(beyond_its_data(elements, entry.get("model")))
        stored = None if atoms is None else atoms_to_record(atoms)
        if stored and stored["left_out"]:
            entry["notes"].append(f"left out, neither numbers nor texts: {', '.join(stored['left_out'])}")
        record = {"key": item_key(item), "entry": plain(entry), "atoms": stored}
        return record if computation.result is None else record | {"result": encode(result)}
    except (OSError, OutputError):
        raise
    except Exception as error:  # must not stop the others
        _log.exception("%s: the result cannot be written", item.name)
        message = f"computed, but the result cannot be written: {type(error).__name__}: {error}"
        return _failed_record(computation, item, message)


def _tell_domain[R](
    computation: Computation[Any, R],
    part: Part,
    item: LoadedStructure,
    result: R,
    entry: dict[str, Any],
    atoms: Atoms | None,
) -> None:
    """Add to an entry, and to what it holds, where their structures lie, unless the property knows better."""
    targets = computation.stands_for(entry, result)
    if not targets:
        became = item.atoms if atoms is None and entry["status"] in _COMPUTED else atoms
        told = domain_entry(part.model, became, computed=atoms is not None)
        _add(entry, told)
        return
    images = {id(image): image for _, some in targets for image in some}
    found = dict(zip(images, domain_entries(part.model, list(images.values()), computed=True), strict=True))
    for target, some in targets:
        _add(target, farthest([found[id(image)] for image in some]))


def _add(target: dict[str, Any], told: dict[str, Any]) -> None:
    """Add what the property itself has not told."""
    target |= {key: value for key, value in told.items() if key not in target}


def lost_record(computation: Computation, item: LoadedStructure, message: str) -> dict[str, Any]:
    """The line of the journal of a structure that no worker brought a result of; ``--resume`` tries it again.

    Args:
        computation: What was to be computed.
        item: The structure.
        message: What is wrong.
    """
    return _failed_record(computation, item, message) | {"lost": True}


def _failed_record(computation: Computation, item: LoadedStructure, message: str) -> dict[str, Any]:
    entry = computation.failed(item, message) | domain_entry(None, None)
    return {"key": item_key(item), "entry": plain(entry), "atoms": None}
