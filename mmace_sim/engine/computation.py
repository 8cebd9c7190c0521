"""How a property is computed for the structures of a run, and what becomes of each result."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from ase import Atoms

from mmace_sim.engine.declaration import GOOD, Column, Property, told_domain
from mmace_sim.engine.output import entry_head
from mmace_sim.engine.settings import RunSettings
from mmace_sim.io.collection import FailedStructure, LoadedStructure
from mmace_sim.model.interface import Potential

if TYPE_CHECKING:
    from mmace_sim.engine.run import Run

T = TypeVar("T")

Entry = dict[str, Any]
"""What ``summary.json`` says of a structure, or a line of the table."""

Store = Callable[[int, T], None]
"""Takes the index and the result of a structure."""

Advance = Callable[..., None]
"""Takes how far a run is, see `mmace_sim.engine.progress`."""

Computed = Sequence[tuple[LoadedStructure, T]]
"""Structures and their results."""

Told = list[tuple[Entry, Sequence[Atoms]]]
"""An entry, or parts of it, each with the structures that it stands for."""


class Part(Protocol):
    """The structures of a run that one model computes."""

    folder: Path
    identity: str
    scratch: Path | None
    is_volume: bool

    @property
    def model(self) -> Any:
        """The model, most often a `mmace_sim.model.base.MagneticModel`."""

    @property
    def checkpoints(self) -> Sequence[Path]:
        """What an earlier run, or a worker, had under way, the newest last."""

    @property
    def structures(self) -> list[LoadedStructure]:
        """All structures."""

    @property
    def pending(self) -> list[LoadedStructure]:
        """Structures that are not finished."""

    @property
    def folders(self) -> dict[str, Path]:
        """Folder of each structure, by its name."""


class Computation[S: RunSettings, R]:
    """How a property is computed and what becomes of its results.

    Args:
        declared: The property.
        settings: Its settings.

    Attributes:
        verb: What is shown while it is computed.
        counted: What is counted meanwhile; anything but structures by `compute`.
        result: Class of the results, if `write` needs them: they are kept beside the entries then.
        context: What `prepare` found out about all structures of the run and `compute` needs for some of them: plain
            JSON, which goes along to workers.
    """

    verb: ClassVar[str] = "Computing"
    counted: ClassVar[str] = "structures"
    result: ClassVar[type | None] = None

    def __init__(self, declared: Property, settings: S) -> None:
        self.declared, self.settings = declared, settings
        self.context: dict[str, Any] = {}

    def admit(self, model: Potential) -> None:
        """Refuse a model that cannot be used.

        Args:
            model: The model.

        Raises:
            UnsupportedOptionError: If it lacks something.
        """

    @property
    def reads_files(self) -> bool:
        """Whether its structures are those of files, read in the way of all commands."""
        return bool(self.settings.paths) and type(self).read is Computation.read

    def read(self) -> tuple[dict[str, Any], list[LoadedStructure | FailedStructure]] | None:
        """Read models and structures in a way of its own.

        Returns:
            Models by name, and structures each with the name of its `model`; None for models of the energy, and
            structures from the files that are named.
        """
        return None

    def build(self, model: Potential) -> list[LoadedStructure]:
        """Make the structures from the model, where no files are named.

        Args:
            model: The model.
        """
        del model
        return []

    def prepare(self, part: Part) -> None:
        """Make the structures of one model ready, such as moments that must relax first.

        Args:
            part: Structures and model.
        """

    def preview(self, part: Part) -> None:
        """What `prepare` makes of the structures without computing anything, for `--dry-run`.

        Args:
            part: Structures and model.
        """

    def is_finished(self, entry: Entry) -> bool:
        """Whether what an earlier run kept of a structure is all that is asked for now.

        Args:
            entry: What it kept.
        """
        del entry
        return True

    def total(self, part: Part) -> int | None:
        """How much there is to count.

        Args:
            part: Structures and model.

        Returns:
            None if that is known only later.
        """
        return len(part.pending)

    def evaluations(self, item: LoadedStructure) -> int:
        """About how many energies with derivatives a structure costs, for `--dry-run`, and to cut a run.

        Args:
            item: The structure.
        """
        del item
        return 100

    def rounds(self, item: LoadedStructure) -> int:
        """In about how many rounds `evaluations` are computed, those of a round in one batch.

        Args:
            item: The structure.

        Returns:
            By default each waits for the one before.
        """
        return self.evaluations(item)

    def seconds(self, item: LoadedStructure) -> float:
        """About how long a structure takes beside its energies, in s.

        Args:
            item: The structure.
        """
        del item
        return 0.0

    def compute(self, part: Part, store: Store[R], advance: Advance) -> None:
        """Compute what is pending.

        Args:
            part: Structures and model.
            store: Called with the index among the pending and the result of each structure as soon as it is finished.
            advance: Called with how many more of what is counted are finished, see `mmace_sim.engine.progress`;
                structures are counted without it.
        """
        raise NotImplementedError

    def entry(self, item: LoadedStructure, result: R) -> Entry:
        """Entry of a structure in ``summary.json``.

        Args:
            item: What was read.
            result: What was computed.

        Returns:
            Plain JSON values, those of `mmace_sim.engine.output.entry_head` first.
        """
        raise NotImplementedError

    def finish(self, item: LoadedStructure, result: R, part: Part) -> tuple[Entry, Atoms | None]:
        """Write what belongs to one structure, as soon as it is finished.

        Args:
            item: What was read.
            result: What was computed.
            part: Where.

        Returns:
            Its entry, and what the structure has become.
        """
        del part
        return self.entry(item, result), None

    def stands_for(self, entry: Entry, result: R) -> Told:
        """The structures that a result stands for, whose place in the domain of the model is told.

        Args:
            entry: From `finish`.
            result: What was computed.

        Returns:
            The entry, and parts of it, each with its structures: the farthest counts. Forces of a calculator and
            magforces of an array must be those of the model, not of the file that was read. Empty: what `finish` says
            that the structure has become, or else the structure as it was read.
        """
        del entry, result
        return []

    def failed(self, item: FailedStructure | LoadedStructure, message: str | None = None) -> Entry:
        """Entry of a structure that was not computed.

        Args:
            item: The structure or file.
            message: What is wrong, if `item` does not say it.
        """
        return entry_head(item, message=message)

    def compare(self, entries: list[Entry]) -> None:
        """Add to the entries what is known only when all of them are there.

        Args:
            entries: Of all structures.
        """

    def rows(self, entry: Entry) -> list[Entry]:
        """Lines of the table for one entry.

        Args:
            entry: From `entry` or `failed`.
        """
        return [entry]

    def table(self, entries: Sequence[Entry]) -> list[Entry]:
        """Lines of the table in their order.

        Args:
            entries: Of the summary, in the order of the input.
        """
        return [row for entry in entries for row in self.rows(entry)]

    def is_good(self, row: Entry) -> bool:
        """Whether a line of the table is not drawn in red.

        Args:
            row: From `rows`.
        """
        return row.get("status") in GOOD

    def columns(self, rows: Sequence[Entry]) -> Iterable[Column]:
        """Columns that are shown on the terminal.

        Args:
            rows: What is shown.
        """
        columns = (*self.declared.columns, *told_domain(rows))
        shown = [column for column in columns if column.heading is not None]
        return sorted(shown, key=lambda column: column.late)

    def write(self, run: "Run", entries: list[Entry], computed: Computed[R]) -> list[str]:
        """Write files of the whole run, after the summary.

        Args:
            run: The run.
            entries: Of the summary; notes may be added.
            computed: Structures and results, if `result` says that they are kept.

        Returns:
            Names of what was written, as the last line on the terminal tells them.
        """
        del run, entries, computed
        return []
