"""``mmace-sim learn``: from structures to a model of them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmace_sim.cli import options as opt
from mmace_sim.cli.declared import as_command, given
from mmace_sim.data.learn.settings import HELP, LearnSettings

_Config = Annotated[
    Path | None,
    typer.Argument(metavar="[CONFIG.yaml]", help="Configuration; flags win over it.", show_default=False),
]
_SWITCHES: dict[str, Any] = {
    "config": (_Config, None),
    "resume": (opt.Resume, False),
    "force": (opt.Force, False),
    "quiet": (opt.Quiet, False),
    "as_json": (opt.AsJson, False),
}


def _run(**values: Any) -> None:
    switches = {name: values.pop(name) for name in _SWITCHES}
    with opt.quiet_imports():
        from mmace_sim.cli.learn_run import load_learn_settings, run_learn

        settings = load_learn_settings(switches.pop("config"), given(values), resume=switches["resume"])
    raise typer.Exit(run_learn(settings, **switches))


learn = as_command(_run, "learn", HELP, LearnSettings.options(), _SWITCHES)
