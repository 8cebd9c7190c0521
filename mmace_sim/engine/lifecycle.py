"""How a run goes: read, check, compute, keep each result at once, write, and say how it ended.

    outcome = run_property(EOS, settings, resume=False, force=False)

is all that a command does. The models are loaded, each structure is given one and checked; the folder is opened with
its log and journal; every finished structure is on disk before the next one is looked at; at the end come
``summary.json`` and ``summary.csv``, then everything else. What is computed and what becomes of it is told by the
`Computation` of the property. All files are written by `mmace_sim.files`, which keeps the list of them.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmace_sim.engine.checkpoint import kept_checkpoints
from mmace_sim.engine.computation import Computation
from mmace_sim.engine.declaration import GOOD, Property, told_domain
from mmace_sim.engine.folder import now
from mmace_sim.engine.journal import weights_hash
from mmace_sim.engine.output import write_summary
from mmace_sim.engine.progress import progress, says_what_is_finished
from mmace_sim.engine.results import EXIT_INCOMPLETE, EXIT_OK, Outcome, record_of
from mmace_sim.engine.resume import open_resumable
from mmace_sim.engine.run import Run
from mmace_sim.engine.settings import RunSettings
from mmace_sim.engine.shards import compute_shards
from mmace_sim.engine.table import FILE_NAME as TABLE
from mmace_sim.engine.table import can_write, write_table
from mmace_sim.files import remove
from mmace_sim.io.spans import Span, is_large

_log = logging.getLogger(__name__)


def run_property(
    declared: Property,
    settings: RunSettings,
    *,
    resume: bool = False,
    force: bool = False,
    quiet: bool = False,
    report: Callable[[Path], object] | None = None,
    spans: Sequence[Span] | None = None,
) -> Outcome:
    """Compute a property of everything that settings name; a large run in volumes.

    Args:
        declared: The property.
        settings: Its settings.
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run.
        quiet: Show no progress.
        report: Writes a page about the folder of a finished run.
        spans: The structures of a volume.

    Raises:
        ConfigError: If there are no structures.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If a model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
        KeyboardInterrupt: If a signal has come; its notes say what is kept.
    """
    declared = declared.chosen(settings)
    computation = declared.load()(declared, settings)
    if spans is None and computation.reads_files and is_large(settings.paths):
        from mmace_sim.engine.volumes import run_large

        return run_large(computation, resume=resume, force=force, quiet=quiet, report=report)
    with _open_run(computation, resume=resume, force=force, spans=spans) as run:
        if settings.executor is None:
            _compute_here(run, computation, quiet=quiet)
        else:
            compute_shards(run, computation, settings.executor, quiet=quiet)
        for path in kept_checkpoints(run.folder):
            remove(path)
        return _conclude(run, computation, report)


def _compute_here(run: Run, computation: Computation, *, quiet: bool) -> None:
    """Compute what is pending in this process."""
    pending = [part for part in run.parts() if part.pending]
    totals = [computation.total(part) for part in pending]
    total = None if None in totals else sum(n or 0 for n in totals)
    with progress(computation.verb, total, computation.counted, quiet=quiet) as advance:
        for part in pending:
            compute_part(computation, part, advance)


def compute_part[R](computation: Computation[Any, R], part: Run, advance: Callable[..., None]) -> None:
    """Compute what is pending of the structures of one model; each result is on disk as soon as it is there.

    Args:
        computation: What is computed.
        part: Structures and model.
        advance: Called with how many more of what is counted are finished; structures are counted here.
    """
    pending = part.pending

    def store(index: int, result: R) -> None:
        part.keep(record_of(computation, part, pending[index], result))
        if computation.counted == "structures":
            advance(1)

    computation.compute(part, store, advance)


def _conclude(run: Run, computation: Computation, report: Callable[[Path], object] | None) -> Outcome:
    """Write the summary, then other files: nothing that goes wrong with those costs results."""
    entries = run.stored_entries(computation.failed)
    computation.compare(entries)
    rows = computation.table(entries)
    columns = (*run.declared.csv_columns, *(column.key for column in told_domain(rows)))
    summary = run.summary(entries) | {"finished": now(), "notes": run.notes}
    indent = None if run.is_volume else 1  # there may be thousands of volumes, which programs read

    def n_notes() -> int:
        return len(run.notes) + sum(len(entry["notes"]) for entry in entries)

    before = n_notes()
    write_summary(run.folder, summary, columns, rows, indent=indent)
    if run.is_volume and can_write():
        run.attempt(f"{TABLE} was not written", lambda: write_table(run.folder / TABLE, rows))

    def write() -> list[str]:
        computed = [] if computation.result is None else run.stored_results(computation.result)
        return computation.write(run, entries, computed)

    written = run.attempt("some files were not written", write) or []
    if n_notes() > before:  # of what could not be written
        write_summary(run.folder, summary, columns, rows, indent=indent)
    good = sum(entry["status"] in GOOD for entry in entries)
    _log.info("finished: %d of %d converged", good, len(entries))
    if report is not None:
        run.attempt("report.html was not written", lambda: report(run.folder))
    code = EXIT_OK if good == len(entries) else EXIT_INCOMPLETE
    lost = sum(bool(record.get("lost")) for record in run.records.values())
    weights = {name: weights_hash(model) for name, model in run.models.items()} if run.is_volume else {}
    return Outcome(code, summary, rows, written, run.folder, run.n_resumed, lost, weights)


@contextmanager
def _open_run(
    computation: Computation, *, resume: bool, force: bool, spans: Sequence[Span] | None = None
) -> Iterator[Run]:
    """Load the models, read the structures, prepare the folder and log to it."""
    run = Run.read(computation, spans)
    for part in run.parts():
        computation.prepare(part)
    with open_resumable(
        run, resume=resume, force=force, may_differ=computation.declared.may_differ
    ) as run.manifest:
        done = [x for x in run.records.values() if computation.is_finished(x["entry"]) and "lost" not in x]
        run.records = {record["key"]: record for record in done}
        run.n_resumed = len(run.records)
        if run.n_resumed:
            _log.info("resumed: %d structures were finished before", run.n_resumed)
        with says_what_is_finished(run.kept):
            yield run
