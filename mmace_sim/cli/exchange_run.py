"""One run of ``mmace-sim exchange``: read, compute, write, show."""

from typing import Any, Literal

from pydantic import Field, field_validator
from rich import box
from rich.table import Table
from rich.text import Text

from mmace_sim.cli.config import RunConfig, split_list
from mmace_sim.cli.runs import PropertyRun, open_run, progress
from mmace_sim.cli.tables import MAX_ROWS, print_run
from mmace_sim.engine.declaration import fixed
from mmace_sim.properties.exchange import Exchange, ExchangeResult
from mmace_sim.properties.exchange.output import (
    EXCHANGE_COLUMNS,
    EXCHANGE_UNITS,
    ROUTE_COLUMNS,
    exchange_entry,
    write_exchange,
)

_MAX_SHELLS = 8


class ExchangeConfig(RunConfig):
    """Everything that decides the result of ``mmace-sim exchange``."""

    output: str = "exchange"
    """Folder of the run."""
    cutoff: float = Field(default=6.0, gt=0)
    """Largest distance of a pair, in Å."""
    routes: list[Literal["derivatives", "four-state", "spirals"]] = Field(
        default=["derivatives", "four-state", "spirals"], min_length=1
    )
    """Ways to compute; the first gives magnons and exports."""
    magmoms: Literal["relaxed", "fixed"] = "relaxed"
    """Lengths of the moments relax in the given order first, or stay as in the file."""
    lengths: Literal["rigid", "relaxed"] = "rigid"
    """Lengths while moments turn."""
    angle: float = Field(default=10.0, gt=0, le=90)
    """Tilt of four states and spirals, in degrees."""
    magforce_tol: float = Field(default=1e-5, gt=0)
    """Largest magnetic force of relaxed moments, in eV/μB."""
    max_steps: int = Field(default=500, ge=0)
    """Largest number of steps of the moments."""
    figures: bool = True
    """Draw J'(r) and magnons."""

    @field_validator("routes", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_list(value)


def run_exchange(config: ExchangeConfig, *, resume: bool, force: bool, quiet: bool) -> int:
    """Compute the exchange constants of everything that a configuration names.

    Args:
        config: The merged configuration.
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.

    Returns:
        Exit code: 0, or 3 if a structure failed.

    Raises:
        ConfigError: If there are no structures.
        OutputError: If the folder cannot be used, or the disk is full.
        ModelFileError: If the model cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    with open_run("exchange", config, resume=resume, force=force) as run:
        for part in run.parts():
            _compute(part, config, quiet=quiet)
        entries = run.stored_entries()
        code = run.finish(entries, columns=EXCHANGE_COLUMNS, units=EXCHANGE_UNITS)
    if not quiet:
        names = [f"{folder.name}/" for folder in run.folders.values()]
        print_run(_table(entries[:MAX_ROWS]), entries, run.folder, names[:3], n_resumed=run.n_resumed)
    return code


def _compute(run: PropertyRun, config: ExchangeConfig, *, quiet: bool) -> None:
    """Exchange of what is not finished; each structure is on disk as soon as it is finished."""
    fields = (
        "cutoff", "routes", "magmoms", "lengths", "angle", "magforce_tol", "max_steps", "max_batch_atoms",
    )  # fmt: skip
    workflow = Exchange(run.model, **{name: getattr(config, name) for name in fields})
    pending, folders = run.pending, run.folders
    with progress("Computing", len(pending), "structures", quiet=quiet) as advance:

        def store(index: int, result: ExchangeResult) -> None:
            item = pending[index]

            def write() -> tuple[dict[str, Any], None]:
                item.notes += write_exchange(result, folders[item.name], figures=config.figures)
                return exchange_entry(item, result), None

            run.record(item, write)
            advance()

        workflow.run([item.atoms for item in pending], on_finished=store)


def _table(entries: list[dict[str, Any]]) -> Table:
    """The first shells of each structure, in meV."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("file", "pair", "r\nÅ", "n", *(f"J' (meV)\n{route}" for route in ROUTE_COLUMNS)):
        table.add_column(heading, justify="left" if heading in ("file", "pair") else "right", overflow="fold")
    for heading in ("D\nmeV Å²", "mean-field T\nK", "symmetry\nspread meV", "status"):
        table.add_column(heading, justify="right", overflow="fold")
    for entry in entries:
        style = "" if entry["status"] == "converged" else "red"
        shells = entry.get("shells", [])[:_MAX_SHELLS]
        for n, row in enumerate(shells or [{}]):
            ends = f"{row['first']}–{row['second']}" if row else ""
            cells = [entry["name"] if n == 0 else "", ends, fixed(row.get("distance"), "{:.3f}")]
            cells += [fixed(row.get("n_neighbors"), "{}")]
            cells += [fixed(row.get(column), "{:.3f}") for column in ROUTE_COLUMNS.values()]
            tail = (
                fixed(entry.get("stiffness"), "{:.0f}"),
                fixed(entry.get("mean_field_temperature"), "{:.0f}"),
                fixed(entry.get("symmetry_spread"), "{:.2g}")
                + (" !" if entry.get("breaks_symmetry") else ""),
            )
            cells += [*tail, entry["status"].replace("_", " ")] if n == 0 else [""] * 4
            table.add_row(*[Text(cell) for cell in cells], style=style)
    return table
