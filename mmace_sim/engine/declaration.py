"""What a property declares: its settings, its columns, its files, and where it is computed.

From a `Property` follow the command, its options and help, the keys of ``config.yaml``, the table on the terminal,
``summary.csv``, the units in ``summary.json`` and the pages of the documentation. What is computed is a `Computation`,
imported when a run begins (`mmace_sim.engine.computation`); how a run goes is in `mmace_sim.engine.lifecycle`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from mmace_sim.engine.settings import NOT_PHYSICS, RunSettings
from mmace_sim.errors import UnsupportedOptionError

GOOD: frozenset[str] = frozenset({"converged", "saddle", "finished"})
"""Statuses that count as success."""

WIDEST: float = 1e9
"""Numbers from this on (and those that are not finite) are nonsense in any of our units."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A quantity of a result.

    Attributes:
        key: Its key in ``summary.json``.
        text: What it is.
        unit: Its unit; empty for numbers without one and for texts.
        heading: Of its column on the terminal; None: not shown there.
        form: How a number is shown, such as ``{:.3f}``.
        scale: What is shown is the value times this, such as 1000 for meV.
        show: Makes the text that is shown from a row, where `form` is not enough.
        left: Aligned to the left.
        wraps: Least width on a narrow terminal, for columns that may take several lines.
        in_csv: Whether it is a column of ``summary.csv``.
        late: Columns with a larger number stand further to the right on the terminal.
    """

    key: str
    text: str
    unit: str = ""
    heading: str | None = None
    form: str = "{}"
    scale: float = 1.0
    show: Callable[[dict[str, Any]], str] | None = None
    left: bool = False
    wraps: int | None = None
    in_csv: bool = True
    late: int = 0

    def shown(self, row: dict[str, Any]) -> str:
        """Text of a cell on the terminal.

        Args:
            row: Values by key.
        """
        if self.show is not None:
            return self.show(row)
        value = row.get(self.key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return fixed(self.scale * value if self.scale != 1.0 else value, self.form)
        return "–" if value is None else str(value)


@dataclass(frozen=True)
class OutputFile:
    """A file of a run.

    Attributes:
        name: Its name in the folder of the run; ``NAME`` stands for a structure.
        text: What it holds.
    """

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Property:
    """Something that can be computed for structures, and everything that is said of it.

    Attributes:
        name: Of the command.
        help: What it does, in Markdown; its first line stands in lists.
        settings: Class of its settings.
        columns: Of the table, one line for each row.
        quantities: Further keys of the entries in ``summary.json``.
        files: What it writes beside what every run writes.
        python: How it is called from Python, for its page; a test runs it.
        computation: Where it is computed, as ``module:class``; imported when a run begins.
        variants: What becomes of it where a setting is true, by the name of the setting: other columns, files and
            computation, the same settings.
    """

    name: str
    help: str
    settings: type[RunSettings]
    columns: tuple[Column, ...]
    quantities: tuple[Column, ...] = ()
    files: tuple[OutputFile, ...] = ()
    python: str = ""
    computation: str
    variants: "Mapping[str, Property]" = field(default_factory=dict, hash=False)
    needed: tuple[str, ...] = ("paths",)
    """Settings that must be given."""
    may_differ: frozenset[str] = NOT_PHYSICS
    """Settings that may differ when a run is resumed."""

    @property
    def units(self) -> dict[str, str]:
        """Unit of each quantity that has one."""
        return {q.key: q.unit for q in (*self.columns, *self.quantities, *DOMAIN) if q.unit}

    @property
    def csv_columns(self) -> tuple[str, ...]:
        """Keys of the columns of ``summary.csv``."""
        return tuple(column.key for column in self.columns if column.in_csv)

    def chosen(self, settings: RunSettings) -> "Property":
        """The one of its variants that settings ask for, or the property itself.

        Args:
            settings: Its settings.
        """
        return next((variant for name, variant in self.variants.items() if getattr(settings, name)), self)

    @property
    def reference(self) -> str:
        """Where it is declared, as ``module:name``, for other processes: beside its settings.

        Raises:
            UnsupportedOptionError: If it is not.
        """
        module = import_module(self.settings.__module__)
        for name, value in vars(module).items():
            if value is self:
                return f"{module.__name__}:{name}"
        raise UnsupportedOptionError(
            f"{self.name}: other processes cannot import this property. Declare it as a name of {module.__name__}, "
            "where its settings are, or compute in this process, without --executor."
        )

    def load(self) -> type[Any]:
        """The class that computes it."""
        return imported(self.computation)


def imported(reference: str) -> Any:
    """What a reference stands for.

    Args:
        reference: As ``module:name``.
    """
    module, name = reference.split(":")
    return getattr(import_module(module), name)


def fixed(value: float | None, form: str) -> str:
    """A number in a format, or a dash; one that no column is wide enough for in powers of ten.

    Args:
        value: The number.
        form: Such as ``"{:.2f}"``.

    Returns:
        Text of a cell.
    """
    if value is None:
        return "–"
    return form.format(value) if abs(value) < WIDEST else f"{value:.2e}"


HEAD: Mapping[str, Column] = {
    column.key: column
    for column in (
        Column(key="name", text="short unique name", heading="file", left=True, wraps=12),
        Column(key="file", text="file that the structure came from"),
        Column(key="index", text="which structure of the file, from 0"),
        Column(key="formula", text="chemical formula"),
        Column(key="n_atoms", text="number of atoms"),
        Column(key="model", text="name of the model that the structure was given to"),
        Column(key="status", text="how it ended", heading="status", left=True, wraps=6, late=9,
               show=lambda row: str(row.get("status", "")).replace("_", " ")),
        Column(key="message", text="what went wrong and what to do; empty if all is well"),
        Column(key="notes", text="what else to know, such as moments that were chosen for a file without any",
               in_csv=False),
    )
}  # fmt: skip
"""Columns that the entries of all properties have."""


DOMAIN: tuple[Column, ...] = (
    Column(
        key="energy_uncertainty", text="standard deviation of the error of the energy per atom", unit="eV/atom",
        heading="±\nmeV", form="{:.1f}", scale=1000, late=7,
    ),
    Column(
        key="domain", text="inside, edge or outside of the domain of the model's data", heading="domain", left=True,
        late=8,
    ),
    Column(
        key="domain_distance",
        text="distance of the farthest atom from the data; up to 1 is inside, up to 2 the edge",
    ),
    Column(
        key="forces_uncertainty", text="standard deviation of the error of a component of a force, the largest",
        unit="eV/Å",
    ),
    Column(
        key="stress_uncertainty", text="standard deviation of the error of a component of the stress", unit="eV/Å³",
    ),
    Column(
        key="magforces_length_uncertainty",
        text="the same of the part of a magnetic force that changes the length of its moment", unit="eV/μB",
    ),
    Column(
        key="magforces_transverse_uncertainty",
        text="the same of a component of the part that turns it; 0 if symmetry makes it zero", unit="eV/μB",
    ),
)  # fmt: skip
"""What the entries of all properties say of the structure that was computed and the data of its model; None where the
model cannot tell (`mmace_sim.structures.domain`)."""

PLACE: tuple[str, ...] = tuple(column.key for column in DOMAIN)
"""Their keys, for the lines that a property makes of parts of an entry."""


def head(*keys: str) -> tuple[Column, ...]:
    """Some of `HEAD`.

    Args:
        *keys: Which.
    """
    return tuple(HEAD[key] for key in keys)


def told_domain(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """What a table tells of the domain: nothing if no model of it can.

    Args:
        rows: Lines of the table.
    """
    return [column for column in DOMAIN if any(row.get(column.key) is not None for row in rows)]
