"""What ``mmace-sim check`` does once its options are known."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from ase import Atoms
from ase.data import atomic_numbers
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.base.text import json_text
from mmace_sim.cli.options import Switches
from mmace_sim.cli.tables import console_for
from mmace_sim.engine.folder import now
from mmace_sim.engine.journal import fingerprint
from mmace_sim.engine.machine import pick_device, quiet_imports
from mmace_sim.engine.output import versions
from mmace_sim.engine.progress import progress, says_what_is_finished
from mmace_sim.engine.records import decode, encode
from mmace_sim.engine.results import EXIT_INCOMPLETE, EXIT_OK
from mmace_sim.engine.resume import Task, kept, open_resumable
from mmace_sim.errors import ConfigError, StructureError
from mmace_sim.files import write_text
from mmace_sim.graph.atoms import has_magmoms, set_magmoms
from mmace_sim.io.collection import FailedStructure, load_structures
from mmace_sim.quality.check.declaration import CheckSettings
from mmace_sim.structures.checks import check_geometry
from mmace_sim.structures.initial_moments import initial_magmoms

if TYPE_CHECKING:
    from mmace_sim.quality.check import CheckReport

UNITS: dict[str, str] = {
    "energy": "meV/atom; of forces times 1 Å, magnetic forces times 1 μB, stress times volume per atom",
    "relative": "relative to the energy of interaction, or to the largest component if that is larger",
    "tolerance": "as relative",
}
"""Unit of each quantity in the summary."""

_STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def run_check(config: CheckSettings, switches: Switches) -> int:
    """Check a potential, write what was found and print it.

    Args:
        config: The configuration.
        switches: What the command was told besides.

    Returns:
        Exit code: 0, or 3 if a check failed.
    """
    with quiet_imports():
        import torch

        from mmace_sim.quality.check import CHECKS, check_model
        from mmace_sim.quality.check.checks import CheckResult
        from mmace_sim.quality.check.curves import save_check_plots
        from mmace_sim.quality.check.target import load_target, make_probe
    structures, notes = _read_check_structures(config.structures)
    device = pick_device(config.device, config.threads)
    with quiet_imports():
        target = load_target(config.model, device=device, dtype=getattr(torch, config.dtype))
    probe = make_probe(
        target,
        structures=structures,
        elements=[atomic_numbers[symbol] for symbol in config.elements] if config.elements else None,
        r_max=config.r_max,
        spin_orbit=config.spin_orbit,
        max_moment=config.max_moment,
        single_precision=config.dtype == "float32",
    )
    models = {config.model: target} if hasattr(target, "state_dict") else {}
    task = Task("check", config, Path(config.output), _identities(structures), models, len(CHECKS))
    with (
        open_resumable(task, resume=switches.resume, force=switches.force) as task.manifest,
        says_what_is_finished(lambda: kept(task, len(CHECKS), "identities")),
    ):
        known = {name: decode(CheckResult, record["result"]) for name, record in task.records.items()}
        with progress("Checking", len(CHECKS), "identities", quiet=switches.quiet) as advance:
            advance(len(known))

            def store(result: CheckResult) -> None:
                task.store(result.name, {"result": encode(result)})
                advance(detail=result.name)

            report = check_model(
                probe,
                structures=structures or None,
                tolerance=config.tolerance,
                on_finished=store,
                known=known,
            )
        report.notes.extend(notes)
        if config.plot:
            (task.folder / "figures").mkdir(exist_ok=True)
            save_check_plots(probe, task.folder / "figures")
        summary = {
            "command": "check", "created": task.created, "finished": now(), "versions": versions(), "units": UNITS,
            "config": config.model_dump(mode="json"), "report": report.as_dict(),
            "uncertainty": _told_uncertainty(target),
        }  # fmt: skip
        write_text(task.folder / "summary.json", json_text(summary))
    if switches.as_json:
        typer.echo(json_text(summary), nl=False)
    elif not switches.quiet:
        _print_report(report, config.model, task.folder)
        for line in summary["uncertainty"]:
            typer.echo(f"Uncertainty: {line}")
    return EXIT_OK if report.passed else EXIT_INCOMPLETE


def _told_uncertainty(target: object) -> list[str]:
    """What a model says of its uncertainties, in words; also that it has none, if it could have some."""
    if not hasattr(target, "uncertainty"):
        return []
    if target.uncertainty is None:
        return ["none: `mmace-sim calibrate MODEL DATA -o NEW` adds them"]
    return target.uncertainty.facts.in_words()


def _identities(structures: dict[str, Atoms]) -> dict[str, str]:
    return {name: fingerprint(atoms) for name, atoms in structures.items()}


def _read_check_structures(paths: list[str]) -> tuple[dict[str, Atoms], list[str]]:
    """All structures by name, those without moments with random ones, and notes about these moments.

    A file that cannot be read, or a structure that cannot be used, is an error.
    """
    structures, notes = {}, []
    for item in load_structures(paths):
        if isinstance(item, FailedStructure):
            raise StructureError(item.message)
        try:
            check_geometry(item.atoms, None)
            random = not has_magmoms(item.atoms)
            moments, _ = initial_magmoms(item.atoms, "random:0" if random else "file")
        except StructureError as error:
            raise type(error)(f"{item.name}: {error}") from error
        set_magmoms(item.atoms, moments)
        structures[item.name] = item.atoms
        if random:
            notes.append(
                f"{item.name}: no moments in the file, random directions of high-spin moments were set"
            )
    if paths and not structures:
        raise ConfigError(f"no structures in {', '.join(paths)}. Name files, or folders that hold some.")
    return structures, notes


def _print_report(report: "CheckReport", name: str, folder: Path) -> None:
    """Print the table of checks, what is wrong or missing, and where the outputs are."""
    table = _report_table(report)
    console = console_for(table)
    console.print(table)
    for text, style in _explanations(report):
        console.print(Text(text, style=style), soft_wrap=True)
    for note in report.notes:
        console.print(Text(f"Note: {note}."), soft_wrap=True)
    counts = [f"{report.count(status)} {status}" for status in _STYLES if report.count(status)]
    text = f"\n{name}: {', '.join(counts)} on {_plural(len(report.structures), 'structure')} in {report.seconds:.0f} s."
    console.print(text, highlight=False, soft_wrap=True)
    figures = ", figures" if (folder / "figures").is_dir() else ""
    console.print(f"Results: {folder}/summary.json, log.txt{figures}", highlight=False, soft_wrap=True)


def _report_table(report: "CheckReport") -> Table:
    """One row for each identity."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("check", no_wrap=True)
    table.add_column("what must hold", min_width=14, overflow="fold")
    for heading in ("violation\nmeV/atom", "\nrelative", "\ntolerance"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("result", no_wrap=True)
    for result in report.results:
        numbers = [_number(value) for value in (result.energy, result.relative, result.tolerance)]
        status = Text(result.status, style=_STYLES[result.status])
        table.add_row(result.name, result.statement, *numbers, status)
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if value == 0 or 0.1 <= abs(value) < 1e4 else f"{value:.1e}"


def _explanations(report: "CheckReport") -> list[tuple[str, str]]:
    """What failed and where, and what was skipped and why, those with the same reason together; with a style."""
    groups: dict[tuple[str, str], list[str]] = {}
    for result in report.results:
        where = f"worst in {result.structure}" if result.status == "failed" and result.structure else ""
        reason = ", ".join(part for part in (where, result.reason) if part)
        if reason:
            groups.setdefault((result.status, reason), []).append(result.name)
    return [
        (f"{', '.join(names)} {status}: {reason}", _STYLES[status])
        for (status, reason), names in groups.items()
    ]


def _plural(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
