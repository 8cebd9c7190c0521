"""Options that several commands share, and what they have in common while running."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmace_sim.base.settings import RUN
from mmace_sim.engine.machine import quiet_imports as quiet_imports

if TYPE_CHECKING:
    from rich.console import Console

Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder of the run.",
        show_default="named after the command",
        rich_help_panel=RUN,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE.yaml",
        help=(
            "YAML file with any of the options (names with underscores); flags win over it. The "
            "`config.yaml` of a run can be used."
        ),
        rich_help_panel=RUN,
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with an interrupted run in the same folder.", rich_help_panel=RUN),
]
Force = Annotated[
    bool, typer.Option("--force", help="Overwrite an earlier run in the same folder.", rich_help_panel=RUN)
]
ForceFile = Annotated[
    bool,
    typer.Option("--force", help="Replace the file that an earlier call wrote.", rich_help_panel=RUN),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Tell what would be read and computed, in how much time and memory, and compute nothing.",
        rich_help_panel=RUN,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print `summary.json` in place of the table.", rich_help_panel=RUN),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bar, no table, only errors.", rich_help_panel=RUN)
]


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What a command is told beside its settings, as far as it knows of it.

    Attributes:
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run in the same folder, or the file that an earlier call wrote.
        quiet: Show nothing but errors: no progress, no table.
        as_json: Print the summary in place of tables.
        dry_run: Tell what would be done, and do nothing.
    """

    resume: bool = False
    force: bool = False
    quiet: bool = False
    as_json: bool = False
    dry_run: bool = False

    @classmethod
    def among(cls, values: dict[str, Any]) -> "Switches":
        """The switches among all that a command is told, taken out of it.

        Args:
            values: By name.
        """
        return cls(**{each.name: values.pop(each.name) for each in fields(cls) if each.name in values})


def tell(text: str, *, stderr: bool = False) -> None:
    """Print a line as it is, however long.

    Args:
        text: The line.
        stderr: Where errors go.
    """
    from rich.console import Console

    Console(markup=False, highlight=False, stderr=stderr).print(text, soft_wrap=True)


def wide_console(least: int, **options: Any) -> "Console":
    """A console for tables: in a file or a pipe at least so wide.

    Args:
        least: Characters.
        **options: Of the console.
    """
    from rich.console import Console

    console = Console(markup=False, **options)
    if console.is_terminal:
        return console
    return Console(markup=False, width=max(console.width, least), **options)
