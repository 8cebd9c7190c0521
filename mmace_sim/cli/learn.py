"""``mmace-sim learn``: from structures to a model of them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmace_sim.base.settings import load_settings
from mmace_sim.cli import options as opt
from mmace_sim.cli.declared import RUN_SWITCHES, as_command, given
from mmace_sim.data.learn.settings import HELP, LearnSettings

_Config = Annotated[
    Path | None,
    typer.Argument(metavar="[CONFIG.yaml]", help="Configuration; flags win over it.", show_default=False),
]
_SWITCHES: dict[str, Any] = {"config": (_Config, None)} | RUN_SWITCHES


def _run(**values: Any) -> None:
    config, switches, flags = values.pop("config"), opt.Switches.among(values), given(values)
    own = Path(flags.get("output", "learn")) / "config.yaml"  # of a run that is resumed
    if config is None and switches.resume and own.is_file():
        config = own
    with opt.quiet_imports():
        from mmace_sim.cli.learn_run import run_learn

        settings = load_settings(LearnSettings, config, flags)
    raise typer.Exit(run_learn(settings, switches))


learn = as_command(_run, "learn", HELP, LearnSettings.options(), _SWITCHES)
