"""The calculations of a batch, and what becomes of them: journal, files, checks, summary."""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ase import Atoms

from mmace_sim.base.text import json_text, plain
from mmace_sim.data.label.calculation import Calculation, targets_of
from mmace_sim.data.label.checks import energy_range, expected, moment_error, uneven_mesh
from mmace_sim.data.label.compute import Job, Result, compute, judged, keep_files, write_inputs
from mmace_sim.data.label.engine import (
    BatchEngine,
    Engine,
    EngineError,
    Labels,
    MissingOutputError,
    refusals,
)
from mmace_sim.data.label.frames import labelled_frame
from mmace_sim.data.label.outcome import Failure, LabelOutcome
from mmace_sim.data.label.settings import LabelSettings
from mmace_sim.engine.folder import now
from mmace_sim.engine.journal import atoms_from_record, atoms_to_record
from mmace_sim.engine.output import finite_or_none, formula_of, versions
from mmace_sim.engine.resume import Task
from mmace_sim.errors import ConfigError
from mmace_sim.executors.interface import TaskFailure, open_executor
from mmace_sim.files import Appender, cannot_write, remove, scratch, write_text
from mmace_sim.io.extxyz import frame_text, frames_text
from mmace_sim.io.frames import read_frames
from mmace_sim.quality.preflight import Finding, Severity, check_data

LABELLED = "labelled.extxyz"
CANDIDATES = "candidates.extxyz"
FAILURES = "failures.jsonl"
CALCULATIONS = "calculations"

MAX_LOST: int = 2
"""A calculation that costs more workers than this is a failure."""

UNITS: dict[str, str] = {
    "energy": "eV, of the cell, without any penalty",
    "moment_error": "μB, largest distance of a held moment from its target",
    "cpu_s, wall_s, cpu_seconds": "s, of all attempts",
}
"""Unit of each quantity in the summary."""

OnFinished = Callable[[int, Atoms | Failure], None]
"""Told of the place of a candidate and of its frame, or why there is none."""

_log = logging.getLogger(__name__)


class Batch:
    """The calculations of a run, and what became of them."""

    def __init__(
        self,
        settings: LabelSettings,
        engine: Engine | BatchEngine,
        calculations: Sequence[Calculation],
        on_finished: OnFinished | None,
    ) -> None:
        self.settings, self.engine, self.calculations = settings, engine, list(calculations)
        self.folder = Path(settings.output)
        self.pending = self.calculations
        self.frames: dict[str, Atoms] = {}
        self.failures: dict[str, Failure] = {}
        self.missing: list[str] = []
        self.entries: dict[str, dict[str, Any]] = {}
        self._tell: OnFinished = on_finished or (lambda _index, _result: None)
        self._tolerance = settings.moment_tol or engine.moment_tol
        identities = {c.config_id: c.identity for c in self.calculations}
        models = {settings.engine: engine.model} if hasattr(engine, "model") else {}
        self.task = Task("label", settings, self.folder, identities, models)

    def refuse(self, failures: Sequence[Failure]) -> None:
        """Set aside what cannot be computed."""
        for failure in [*failures, *refusals(self.engine, self.calculations)]:
            self.failures[failure.config_id] = failure
        self.pending = [c for c in self.calculations if c.config_id not in self.failures]

    def take_up(self) -> None:
        """Take the results of an earlier run."""
        for calculation in self.pending:
            record = self.task.records.get(calculation.config_id)
            if record is None or (record["frame"] is None and self.settings.retry_failed):
                continue
            self.entries[calculation.config_id] = record["entry"]
            if record["frame"] is None:
                self._fail(calculation, record["entry"]["message"])
            else:
                frame = atoms_from_record(record["frame"])
                self.frames[calculation.config_id] = frame
                self._tell(calculation.index, frame)
        self.pending = [c for c in self.pending if c.config_id not in self.entries]

    def write_head(self) -> None:
        """Write what the run begins with: the candidates, and the frames of the earlier run."""
        _log.info("engine %s, %d candidates to compute", self.engine.name, len(self.pending))
        for failure in self.failures.values():
            if failure.index < 0 or failure.config_id not in self.entries:
                _log.error("%s: %s", failure.config_id, failure.reason)
        if self.settings.write_only:
            write_text(self.folder / CANDIDATES, frames_text([targets_of(c) for c in self.calculations])[0])
        if self.frames:
            write_text(self.folder / LABELLED, frames_text(self._ordered_frames())[0])

    def run(self, advance: Callable[..., None]) -> None:
        """Compute, write or collect what is pending."""
        if isinstance(self.engine, BatchEngine):
            self._run_batch(self.engine, advance)
            return
        if not (self.settings.write_only or self.settings.collect):
            self._run_jobs(self.engine, advance)
            return
        for calculation in self.pending:
            folder = self._place(calculation)
            if self.settings.collect:
                self._collect(self.engine, calculation, folder)
            else:
                if not (folder.is_dir() and any(folder.iterdir())):  # the user may have changed what is there
                    write_inputs(self.engine, calculation, folder)
                self.missing.append(calculation.config_id)
            advance(detail=calculation.config_id)

    def _place(self, calculation: Calculation) -> Path:
        return self.folder / CALCULATIONS / calculation.folder

    def _run_jobs(self, engine: Engine, advance: Callable[..., None]) -> None:
        """Compute what is pending, here or by workers."""
        under_way: dict[str, ExitStack] = {}

        def job(calculation: Calculation, tries: int = 0) -> Job:
            under_way[calculation.config_id] = stack = ExitStack()
            private = stack.enter_context(scratch(self.folder / CALCULATIONS)).resolve()
            return Job(self.settings, calculation, private, self._tolerance, tries)

        def finished(one: Job, result: Result) -> None:
            with under_way.pop(one.calculation.config_id):
                if result.folder is not None:
                    keep_files(engine, result.folder, self._place(one.calculation))
            self._store(one.calculation, result)
            advance(detail=one.calculation.config_id)

        def failed(one: Job, failure: TaskFailure) -> list[Job]:
            if failure.lost is not None and one.tries < MAX_LOST:
                under_way.pop(one.calculation.config_id).close()
                return [job(one.calculation, one.tries + 1)]
            if failure.lost is None:
                _log.error("%s", one.calculation.config_id, exc_info=failure.error)
                finished(one, Result(reason=f"{failure.reason}."))
                return []
            under_way.pop(one.calculation.config_id).close()  # not in the journal: --resume tries it again
            self._fail(
                one.calculation,
                f"{failure.reason}, {one.tries + 1} times. Go on with --resume and longer jobs.",
            )
            advance(detail=one.calculation.config_id)
            return []

        try:
            with (
                scratch(self.folder) as workers,
                open_executor(self.settings.executor, workers) as executor,
            ):
                executor.map(compute, map(job, self.pending), finished, failed)
        finally:
            for stack in under_way.values():
                stack.close()

    def _run_batch(self, engine: BatchEngine, advance: Callable[..., None]) -> None:
        if self.settings.write_only or self.settings.collect:
            raise ConfigError(
                f"--engine {engine.name}: writes no files; leave out --write-only and --collect."
            )

        def store(calculation: Calculation, labels: Labels | EngineError) -> None:
            result = Result(attempts=1)
            try:
                if isinstance(labels, EngineError):
                    raise labels
                judged(calculation, labels, self._tolerance, result)
            except EngineError as error:
                result.reason = str(error)
            self._store(calculation, result)
            advance(detail=calculation.config_id)

        if self.pending:
            engine.compute(self.pending, store)

    def _collect(self, engine: Engine, calculation: Calculation, folder: Path) -> None:
        try:
            labels = engine.collect(calculation, folder)
            self._store(calculation, judged(calculation, labels, self._tolerance, Result(attempts=1)))
        except MissingOutputError:
            self.missing.append(calculation.config_id)
        except EngineError as error:  # not in the journal: it may be computed again
            self._fail(calculation, str(error))

    def _store(self, calculation: Calculation, result: Result) -> None:
        """Keep a result: in the journal first, then in the file of frames."""
        name, frame = calculation.config_id, None
        entry = self._entry(calculation, "failed" if result.labels is None else "finished", result.reason)
        entry |= result.cost | {"notes": [*calculation.notes, *result.notes]}
        if result.labels is not None:
            cost = {key: value for key, value in result.cost.items() if key != "attempts"}
            kinds = {"energy_kind": self.engine.energy_kind, "moment_kind": self.engine.moment_kind}
            notes = {"state": "; ".join(result.notes)} if result.notes else {}
            frame = labelled_frame(
                calculation, result.labels, {"engine": self.engine.name} | kinds | cost | notes
            )
            entry["energy"] = finite_or_none(result.labels.energy)
            entry["moment_error"] = (
                moment_error(calculation, result.labels) if calculation.held.any() else None
            )
        record = None if frame is None else atoms_to_record(frame)
        self.task.store(name, {"entry": plain(entry), "frame": record})
        self.entries[name] = entry
        for note in entry["notes"]:
            _log.info("%s: %s", name, note)
        if frame is None:
            self._fail(calculation, result.reason)
            return
        self.frames[name] = frame
        self._append(frame)
        _log.info("%s: finished, %.6f eV, %.1f s of CPU", name, entry["energy"], result.cpu_s)
        self._tell(calculation.index, frame)

    def _append(self, frame: Atoms) -> None:
        path = self.folder / LABELLED
        try:
            with Appender(path) as file:
                file.write(frame_text(frame).text.encode())
                file.sync()
        except OSError as error:
            raise cannot_write(path, error) from error

    def _fail(self, calculation: Calculation, reason: str) -> None:
        failure = Failure(calculation.config_id, reason, calculation.index)
        self.failures[calculation.config_id] = failure
        _log.error("%s: %s", calculation.config_id, reason)
        self._tell(calculation.index, failure)

    def _entry(self, calculation: Calculation, status: str, message: str = "") -> dict[str, Any]:
        atoms = calculation.atoms
        return {
            "config_id": calculation.config_id,
            "config_type": str(atoms.info.get("config_type", "default")),
            "formula": formula_of(atoms),
            "n_atoms": len(atoms),
            "mode": str(calculation.mode),
            "n_held": int(calculation.held.sum()),
            "status": status,
            "message": message,
            "notes": list(calculation.notes),
            "folder": None
            if isinstance(self.engine, BatchEngine)
            else f"{CALCULATIONS}/{calculation.folder}",
        }

    def _ordered_frames(self) -> list[Atoms]:
        return [self.frames[c.config_id] for c in self.calculations if c.config_id in self.frames]

    def finish(self) -> LabelOutcome:
        """Check the frames, and write failures and summary."""
        if self.frames:  # in the order of the candidates, whatever was finished first
            write_text(self.folder / LABELLED, frames_text(self._ordered_frames())[0])
        failures = list(self.failures.values())
        if failures:
            lines = [json.dumps(plain({"id": f.config_id, "reason": f.reason})) + "\n" for f in failures]
            write_text(self.folder / FAILURES, "".join(lines))
        else:
            remove(self.folder / FAILURES)
        findings = self._check() if self.frames else []
        trainable = bool(self.frames) and all(f.severity is not Severity.ERROR for f in findings)
        for finding in findings:
            _log.info("%s %s: %s", finding.severity, finding.code, finding.message)
        outcome = LabelOutcome(
            frames=self._ordered_frames(),
            failures=failures,
            folder=self.folder,
            cpu_seconds=sum(entry.get("cpu_s", 0.0) for entry in self.entries.values()),
            missing=self.missing,
            findings=[finding.as_dict() for finding in findings],
            trainable=trainable,
        )
        outcome.summary = self._summary(outcome)
        write_text(self.folder / "summary.json", json_text(outcome.summary))
        return outcome

    def _check(self) -> list[Finding]:
        found = read_frames([self.folder / LABELLED])
        known = expected(check_data({"data": found}).findings, self.calculations)
        return known + energy_range(found.frames) + uneven_mesh(found.frames)

    def _summary(self, outcome: LabelOutcome) -> dict[str, Any]:
        entries = []
        for calculation in self.calculations:
            name, failure = calculation.config_id, self.failures.get(calculation.config_id)
            status = "failed" if failure else "missing"
            message = failure.reason if failure else ""
            entries.append(self.entries.get(name) or self._entry(calculation, status, message))
        return {
            "command": "label",
            "created": self.task.created,
            "finished": now(),
            "versions": versions(),
            "units": UNITS,
            "config": self.settings.model_dump(mode="json"),
            "engine": {
                "name": self.engine.name,
                "energy_kind": self.engine.energy_kind,
                "moment_kind": self.engine.moment_kind,
            },
            "counts": {
                "finished": len(outcome.frames),
                "failed": len(outcome.failures),
                "missing": len(outcome.missing),
            },
            "cpu_seconds": outcome.cpu_seconds,
            "structures": entries,
            "failures": [{"config_id": f.config_id, "reason": f.reason} for f in outcome.failures],
            "missing": outcome.missing,
            "trainable": outcome.trainable,
            "findings": outcome.findings,
        }
