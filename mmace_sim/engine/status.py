"""How far a run is, from its folder alone: while it computes, from another terminal, or afterwards."""

import json
import math
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mmace_sim.engine.declaration import GOOD
from mmace_sim.engine.journal import FILE_NAME, SIGN_OF_LIFE, SIGN_OF_VOLUME, JournalTail
from mmace_sim.errors import OutputError
from mmace_sim.files.content import is_locked
from mmace_sim.files.manifest import FILE_NAME as LIST_NAME
from mmace_sim.files.manifest import HOLDER
from mmace_sim.io.collection import VOLUMES
from mmace_sim.io.spans import n_structures_of

RECENT: int = 200
"""Results that the rate is taken from."""

MOST_FAILURES: int = 100
"""Failures of a large run that are told."""

SILENT: float = 60.0
"""Seconds after which a worker that says nothing is left out."""

_STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\S+) INFO mmace-sim ")


@dataclass
class Worker:
    """A process that computes for a run.

    Attributes:
        host: Its machine.
        pid: Its number there.
        gpu: Its GPU, if it has one of its own.
        done: How many structures of its piece are finished.
        of: How many the piece has.
    """

    host: str
    pid: int
    gpu: str | None
    done: int
    of: int


@dataclass
class RunStatus:
    """How far a run is.

    Attributes:
        folder: Its folder.
        command: Name of the command.
        running: Whether a process is writing the folder.
        total: How many results there will be; None if the journal does not say.
        done: How many there are.
        statuses: How many ended how.
        failures: Messages of what failed, by the name of the structure; of a large run the first
            `MOST_FAILURES` of its finished volumes.
        rate: Results per second, of the last ones; None if there are too few.
        workers: Other processes that compute for it.
        volumes: Of a large run: results of each volume under way, and how many it is expected to have.
        written: Whether the run has ended and its summary is written.
    """

    folder: str
    command: str
    running: bool
    total: int | None
    done: int
    statuses: dict[str, int]
    failures: dict[str, str]
    rate: float | None
    workers: list[Worker] = field(default_factory=list)
    volumes: dict[str, tuple[int, int]] = field(default_factory=dict)
    written: bool = False

    @property
    def seconds_left(self) -> float | None:
        """About how long it takes from now on; None if that is not known."""
        if self.total is None or not self.rate or not self.running:
            return None
        return max(0, self.total - self.done) / self.rate


def run_status(folder: Path) -> RunStatus:
    """How far a run is.

    Args:
        folder: Its folder.

    Raises:
        OutputError: If it holds no run.
    """
    if not (folder / FILE_NAME).is_file():
        raise OutputError(
            f"{folder}: holds no run ({FILE_NAME} is missing). Name the folder of a run (--output)."
        )
    records = JournalTail(folder / FILE_NAME).new()
    if not records:
        raise OutputError(f"{folder}: the run has just begun. Ask again.")
    head, results = records[0], {str(record["key"]): record for record in records[1:]}
    running = is_locked(folder / LIST_NAME)
    if (folder / VOLUMES).is_dir():
        return _large(folder, head, results, running=running)
    workers, more = _workers(folder, results) if running else ([], [])
    results |= {record["key"]: record for record in more}
    entries = {key: record.get("entry", {}) for key, record in results.items()}
    inputs = head.get("inputs", {})
    unusable = sum(identity == "unusable" for identity in inputs.values())
    return RunStatus(
        folder=str(folder),
        command=str(head.get("command", "")),
        running=running,
        total=head.get("total", len(inputs) - unusable if set(entries) <= set(inputs) else None),
        done=len(results),
        statuses=dict(Counter(str(entry.get("status", "finished")) for entry in entries.values())),
        failures=_failures(entries),
        rate=_rate(folder, [record["at"] for record in results.values() if "at" in record]),
        workers=workers,
        written=not running and (folder / "summary.json").is_file(),
    )


def _failures(entries: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Messages of those that failed, by the name of the structure."""
    failed = {k: e for k, e in entries.items() if e.get("status") and e["status"] not in GOOD}
    return {str(e.get("name", k)): f"{e['status']}: {e.get('message', '')}" for k, e in failed.items()}


def _failures_of_volumes(folder: Path, records: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The first failures of finished volumes."""
    found: dict[str, str] = {}
    for name in sorted(name for name, record in records.items() if not GOOD.issuperset(record["counts"])):
        try:
            summary = json.loads((folder / VOLUMES / name / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # somebody took it away
            continue
        found |= _failures({str(k): entry for k, entry in enumerate(summary["structures"])})
        if len(found) >= MOST_FAILURES:
            break
    return dict(list(found.items())[:MOST_FAILURES])


def _large(
    folder: Path, head: dict[str, Any], records: dict[str, dict[str, Any]], *, running: bool
) -> RunStatus:
    """How far a run of volumes is: each of its records counts those of a volume."""
    sizes = {name: n_structures_of(identity) for name, identity in head["inputs"].items()}
    under_way: dict[str, tuple[int, int]] = {}
    for name in set(sizes) - set(records):
        journal = folder / VOLUMES / name / FILE_NAME
        if journal.is_file():
            with journal.open("rb") as lines:
                under_way[name] = (max(0, sum(line.endswith(b"\n") for line in lines) - 1), sizes[name])
    statuses: Counter[str] = Counter()
    for record in records.values():
        statuses.update(record["counts"])
    done = sum(statuses.values()) + sum(n for n, _ in under_way.values())
    since = _last_start(folder)
    before = sum(sum(r["counts"].values()) for r in records.values() if r["at"] < since)
    seconds = time.time() - since
    return RunStatus(
        folder=str(folder),
        command=str(head.get("command", "")),
        running=running,
        total=sum(sizes.values()),
        done=done,
        statuses=dict(statuses),
        failures=_failures_of_volumes(folder, records),
        rate=(done - before) / seconds if running and done > before and math.isfinite(seconds) else None,
        workers=_workers_of_volumes(folder, under_way, sizes) if running else [],
        volumes=dict(sorted(under_way.items())),
        written=not running and (folder / "summary.json").is_file(),
    )


def _workers(folder: Path, known: dict[str, Any]) -> tuple[list[Worker], list[dict[str, Any]]]:
    """Workers with a sign of life, and what they have finished that was not yet taken over."""
    workers, more = [], []
    for own in sorted(path for path in folder.iterdir() if HOLDER.fullmatch(path.name)):
        try:
            told = json.loads((own / SIGN_OF_LIFE).read_text())
            worker = _worker(told, told["done"], told["of"])
            records = JournalTail(own / FILE_NAME).new()
        except (OSError, ValueError, KeyError):  # no worker, or one that has just ended
            continue
        workers += worker
        more += [record for record in records if record.get("key", "") not in known and "key" in record]
    return workers, more


def _workers_of_volumes(
    folder: Path, under_way: dict[str, tuple[int, int]], sizes: dict[str, int]
) -> list[Worker]:
    """Workers with a sign of life, of a large run; also those that share a volume which killed its worker."""
    workers = []
    for sign in sorted(folder.glob(f".*/{SIGN_OF_VOLUME.format('*')}")):
        try:
            told = json.loads(sign.read_text())
            done, of = under_way.get(told["volume"], (0, sizes[told["volume"]]))
            workers += _worker(told, done, of)
        except (OSError, ValueError, KeyError):  # one that has just ended
            continue
    for name in sorted(under_way):
        workers += _workers(folder / VOLUMES / name, {})[0]
    return workers


def _worker(told: dict[str, Any], done: int, of: int) -> list[Worker]:
    """The worker that a sign of life is of; none if it has been silent for too long."""
    silent = time.time() - told["time"] > SILENT
    return [] if silent else [Worker(told["host"], told["pid"], told["gpu"], done, of)]


def _rate(folder: Path, times: list[float]) -> float | None:
    """Results per second of the last ones, since the run was last started."""
    since = _last_start(folder)
    recent = sorted(at for at in times if at >= since)[-RECENT:]
    if not recent:
        return None
    start = since if len(recent) < RECENT else recent[0]
    seconds = max(recent[-1], time.time() if recent[-1] > time.time() - 2 * SILENT else recent[-1]) - start
    return len(recent) / seconds if seconds > 0 and math.isfinite(start) else None


def _last_start(folder: Path) -> float:
    """When the run was started or resumed."""
    try:
        with (folder / "log.txt").open(encoding="utf-8", errors="replace") as log:
            starts = [match[1] for line in log if (match := _STAMP.match(line))]
        return datetime.fromisoformat(starts[-1]).timestamp()
    except (OSError, ValueError, IndexError):
        return -math.inf
