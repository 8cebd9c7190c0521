"""What a large run ends with: a table of all its volumes, and a summary with a sample of them."""

import csv
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmace_sim.base.text import json_text
from mmace_sim.engine.computation import Computation
from mmace_sim.engine.declaration import told_domain
from mmace_sim.engine.folder import now
from mmace_sim.engine.output import versions, write_csv
from mmace_sim.engine.resume import Task
from mmace_sim.engine.table import FILE_NAME, can_write, join_tables
from mmace_sim.files import replacing, write_text
from mmace_sim.io import find_bounds
from mmace_sim.io.collection import RELAXED, VOLUMES
from mmace_sim.io.xyz import parse_comment

PER_VOLUME: int = 10
"""Entries of ``summary.json`` from each of at most 20 volumes, and as many of structures that failed."""

_log = logging.getLogger(__name__)


def gathered(
    computation: Computation[Any, Any], task: Task, n_structures: int
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """Write the table and the summary of a large run.

    Args:
        computation: What was computed.
        task: The run, all volumes of which are finished.
        n_structures: How many structures the files announced.

    Returns:
        Content of ``summary.json``, lines of the table of its sample, and names of what was written besides.

    Raises:
        OutputError: If a file cannot be written.
    """
    folders = [task.folder / VOLUMES / name for name in task.identities]
    records = [task.records[name] for name in task.identities]
    statuses = Counter[str]()
    for record in records:
        statuses.update(record["counts"])
    table = _write_table(task.folder, folders)
    sample = _Sample()
    for folder in _chosen(folders, [set(record["counts"]) for record in records]):
        sample.add(folder)
    entries = sample.entries
    summary = {
        "command": task.command,
        "created": task.created,
        "finished": now(),
        "versions": versions(),
        "units": computation.declared.units,
        "config": task.settings.model_dump(mode="json"),
        "model": next(iter(sample.models.values())),
        "models": sample.models,
        "n_structures": sum(statuses.values()),
        "n_announced": n_structures,
        "n_skipped": sum(record["n_skipped"] for record in records),
        "statuses": dict(statuses),
        "n_volumes": len(folders),
        "structures": entries,
        "skipped": [],
        "notes": [
            f"{sum(statuses.values())} structures: this file holds a sample of {len(entries)}. All are in {table}, and "
            f"structures, files and summaries of each volume in {VOLUMES}/."
        ],
    }
    write_text(task.folder / "summary.json", json_text(summary, indent=None))
    rows = computation.table(entries)
    columns = (*computation.declared.csv_columns, *(column.key for column in told_domain(rows)))
    write_csv(task.folder / "sample.csv", columns, rows)
    if sample.frames:
        write_text(task.folder / "sample.extxyz", "".join(sample.frames))
    return summary, rows, [table, f"{VOLUMES}/"]


def _write_table(folder: Path, volumes: Sequence[Path]) -> str:
    """One table of all volumes; returns its name."""
    if can_write():
        parts = [volume / FILE_NAME for volume in volumes]
        if all(part.is_file() for part in parts):
            join_tables(folder / FILE_NAME, parts)
            return FILE_NAME
        _log.warning("%s is not written: some workers have no pyarrow", FILE_NAME)
    _join_csv(folder / "summary.csv", [volume / "summary.csv" for volume in volumes])
    return "summary.csv"


def _join_csv(path: Path, parts: Iterable[Path]) -> None:
    """Join tables, one line in memory at a time."""
    parts, columns = list(parts), dict[str, None]()
    for part in parts:
        with part.open(newline="", encoding="utf-8") as file:
            columns.update(dict.fromkeys(next(csv.reader(file), [])))
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as joined:
        writer = csv.DictWriter(joined, list(columns))
        writer.writeheader()
        for part in parts:
            with part.open(newline="", encoding="utf-8") as file:
                writer.writerows(csv.DictReader(file))


def _chosen(volumes: Sequence[Path], statuses: Sequence[set[str]]) -> list[Path]:
    """Some volumes from all over the run, and some with failures."""
    failed = [k for k, known in enumerate(statuses) if "failed" in known]
    return [volumes[k] for k in sorted({*_spread(range(len(volumes)), 20), *_spread(failed, 20)})]


@dataclass
class _Sample:
    """Entries of some volumes, their structures, and the models of them."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    models: dict[str, Any] = field(default_factory=dict)

    def add(self, volume: Path) -> None:
        """Some entries of a volume, and some that failed, in their order."""
        summary = json.loads((volume / "summary.json").read_text(encoding="utf-8"))
        entries, self.models = summary["structures"], self.models | summary["models"]
        failed = [k for k, entry in enumerate(entries) if entry["status"] == "failed"]
        few = {*_spread(range(len(entries)), PER_VOLUME), *_spread(failed, PER_VOLUME)}
        chosen = [entries[k] for k in sorted(few)]
        self.entries += chosen
        self.frames += _frames(volume / RELAXED, {entry["name"] for entry in chosen})


def _frames(path: Path, names: Set[str]) -> Iterator[str]:
    """Frames of a file that have one of some names."""
    bounds = find_bounds(path) if path.is_file() else None
    if bounds is None:
        return
    content = path.read_bytes()
    for (start, _), (end, _) in pairwise(bounds):
        frame = content[start:end].decode()
        if parse_comment(frame.split("\n", 2)[1]).get("name") in names:
            yield frame


def _spread(items: Sequence[int], most: int) -> list[int]:
    """At most so many of some, evenly."""
    step = max(1, len(items) / most)
    return [items[int(k * step)] for k in range(min(most, len(items)))]
