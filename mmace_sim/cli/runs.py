"""What the commands that take structures have in common.

A command that computes a property is a configuration derived from `RunConfig`, a typer function that fills it, and

    with open_run("eos", config, force=force) as run:
        with progress("Computing", len(run.structures), "structures", quiet=quiet) as advance:
            results = Workflow(run.model, ...).run([item.atoms for item in run.structures], ...)
        entries = run.entries(results, entry_of)  # entry_of(item, result) gives entry_head(item, ...) | {...}
        code = run.finish(entries, columns=COLUMNS, units=UNITS)

which loads the model, reads and checks the structures, prepares the folder, and writes ``log.txt``, ``config.yaml``,
``summary.json`` and ``summary.csv``. Further files of a command have their pattern in `run_dir.OWN_FILES`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmace_sim.cli.config import ModelRunConfig, RunConfig, dump_config
from mmace_sim.cli.options import pick_device, quiet_imports
from mmace_sim.cli.run_dir import log_to, now, prepare_folder
from mmace_sim.errors import ConfigError, StructureError, UnsupportedOptionError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.workflows.checks import check_geometry
from mmace_sim.workflows.initial_moments import initial_magmoms
from mmace_sim.workflows.output import GOOD, entry_head, versions, write_summary, write_text
from mmace_sim.workflows.report import write_report
from mmace_sim.workflows.structures import FailedStructure, LoadedStructure, load_structures

EXIT_OK = 0
EXIT_INCOMPLETE = 3
EXIT_INTERRUPTED = 130

_log = logging.getLogger(__name__)


@dataclass
class PropertyRun:
    """A run of a command that computes a property.

    Attributes:
        command: Name of the command.
        config: The merged configuration.
        folder: Folder of the run.
        model: The model on its device.
        items: Structures and failures in the order of the files.
        created: When the run began.
    """

    command: str
    config: RunConfig
    folder: Path
    model: Any
    items: list[LoadedStructure | FailedStructure]
    created: str

    @property
    def structures(self) -> list[LoadedStructure]:
        """Structures that can be computed."""
        return [item for item in self.items if isinstance(item, LoadedStructure)]

    def entries(
        self, results: Sequence[Any], entry_of: Callable[[LoadedStructure, Any], dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Entries of the summary in the order of the input, those of unusable structures included.

        Args:
            results: One for each of `structures`.
            entry_of: Makes the entry of a structure and its result.

        Returns:
            One entry for each item.
        """
        rest = iter(results)
        return [
            entry_of(item, next(rest)) if isinstance(item, LoadedStructure) else entry_head(item)
            for item in self.items
        ]

    def finish(
        self,
        entries: list[dict[str, Any]],
        *,
        columns: Sequence[str],
        units: Mapping[str, str],
        rows: Sequence[dict[str, Any]] | None = None,
    ) -> int:
        """Write ``summary.json``, ``summary.csv`` and, if asked for, ``report.html``, the last of all.

        Args:
            entries: From `entries`.
            columns: Keys that are columns of the table.
            units: Unit of each quantity.
            rows: Lines of the table if they are not the entries.

        Returns:
            Exit code: 0, or 3 if a status is not among the good ones.
        """
        write_summary(self.folder, self.summary(entries, units) | {"finished": now()}, columns, rows)
        good = sum(entry["status"] in GOOD for entry in entries)
        _log.info("finished: %d of %d converged", good, len(entries))
        if self.config.report:
            write_report(self.folder)
        return EXIT_OK if good == len(entries) else EXIT_INCOMPLETE

    def summary(self, entries: list[dict[str, Any]], units: Mapping[str, str]) -> dict[str, Any]:
        """Everything about the run.

        Args:
            entries: From `entries`.
            units: Unit of each quantity.

        Returns:
            Content of ``summary.json``; ``finished`` is None.
        """
        metadata = {key: value for key, value in self.model.metadata.items() if key != "config"}
        return {
            "command": self.command,
            "created": self.created,
            "finished": None,
            "versions": versions(),
            "units": dict(units),
            "config": self.config.model_dump(mode="json"),
            "model": {"name": self.config.model, "elements": list(self.model.elements)} | metadata,
            "structures": entries,
        }


@contextmanager
def open_run(
    command: str,
    config: RunConfig,
    *,
    force: bool,
    build: Callable[[Any], list[LoadedStructure]] | None = None,
) -> Iterator[PropertyRun]:
    """Load the model, read the structures, prepare the folder and log to it.

    Args:
        command: Name of the command.
        config: The merged configuration.
        force: Overwrite an earlier run in the same folder.
        build: Makes the structures from the model, for a command that needs no files.

    Yields:
        The run.

    Raises:
        ConfigError: If there are no structures.
        OutputError: If the folder cannot be used.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    with quiet_imports():
        model = load_run_model(config)
    items = build(model) if build is not None else prepare_structures(config, model.elements)
    folder = Path(config.output)
    prepare_folder(folder, resume=None, force=force)
    run = PropertyRun(command, config, folder, model, items, now())
    with log_to(folder / "log.txt"):
        write_text(folder / "config.yaml", dump_config(config))
        write_summary(folder, run.summary([], {}), ())  # marks the folder as ours if the run is interrupted
        log_start(command, config, items)
        yield run


def load_run_model(config: ModelRunConfig) -> Any:
    """The model on its device, after checking that it can do what is asked for.

    Args:
        config: The merged configuration.

    Returns:
        The energy model.

    Raises:
        ModelFileError: If it cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    import torch

    from mmace_sim.model.checkpoint import load_model

    device = pick_device(config.device, config.threads)
    model = load_model(config.model, device=device, dtype=getattr(torch, config.dtype))
    if isinstance(config, RunConfig) and config.spin_orbit and not model.spin_orbit:
        raise UnsupportedOptionError(
            f"--spin-orbit: model {config.model!r} has no spin–orbit term. Choose another model "
            "(`mmace-sim models` shows which have one), or leave the option out."
        )
    return model


def prepare_structures(config: RunConfig, elements: list[int]) -> list[LoadedStructure | FailedStructure]:
    """Read, initialise the moments of, and check every structure.

    Args:
        config: The merged configuration.
        elements: Atomic numbers that the model knows.

    Returns:
        Structures that can be computed and those that cannot, in the order of the files.

    Raises:
        ConfigError: If there is nothing at all.
    """
    missing = [path for path in config.paths if not Path(path).exists()]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: no such file or folder. Check the path.")
    items = load_structures(config.paths)
    if not items:
        raise ConfigError(
            f"no structures in {', '.join(config.paths)}. Name files, or folders with CIF, mCIF, POSCAR, extxyz or "
            "JSON files."
        )
    return [_prepare(item, config, elements) if isinstance(item, LoadedStructure) else item for item in items]


def _prepare(
    item: LoadedStructure, config: RunConfig, elements: list[int]
) -> LoadedStructure | FailedStructure:
    try:
        check = check_geometry(item.atoms, elements)
        moments, note = initial_magmoms(item.atoms, config.initial_magmoms)
        set_magmoms(item.atoms, moments)
    except StructureError as error:
        return FailedStructure(item.file, f"{item.name}: {error}", item.index, item.name)
    item.notes += [note] if note else []
    item.notes += [check.note] if check.note and getattr(config, "relax_cell", False) else []
    return item


def log_start(command: str, config: RunConfig, items: Sequence[LoadedStructure | FailedStructure]) -> None:
    """Write to the log what runs, with which versions, and what is wrong with structures.

    Args:
        command: Name of the command.
        config: The merged configuration.
        items: Structures and failures.
    """
    _log.info("mmace-sim %s, %d structures, model %s", command, len(items), config.model)
    _log.info("versions: %s", ", ".join(f"{name} {number}" for name, number in versions().items()))
    for item in items:
        if isinstance(item, FailedStructure):
            _log.error("%s", item.message)
        for note in getattr(item, "notes", ()):
            _log.info("%s: %s", item.name, note)


@contextmanager
def progress(what: str, total: int | None, unit: str, *, quiet: bool) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr.

    Args:
        what: What is being done, such as "Relaxing".
        total: How many there are; None if that is not known yet.
        unit: Of what, such as "structures".
        quiet: Show nothing.

    Yields:
        What to call with how many more are finished, a text to show beside the bar (``detail=``) and, once it is
        known, their number (``total=``).
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TimeElapsedColumn(), TextColumn("{task.fields[detail]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(what, total=total, detail="")

        def advance(n: int = 1, *, detail: str | None = None, total: int | None = None) -> None:
            fields = {} if detail is None else {"detail": detail}
            bar.update(task, advance=n, total=total, **fields)

        yield advance
