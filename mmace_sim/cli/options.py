"""Options that several commands share, and what they have in common while running."""

from pathlib import Path
from typing import Annotated

import typer

from mmace_sim.base.settings import RUN
from mmace_sim.engine.machine import quiet_imports as quiet_imports

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
