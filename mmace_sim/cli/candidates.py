"""``mmace-sim data propose`` and ``mmace-sim data select``: which structures to compute."""

from typing import Any

import typer

from mmace_sim.cli import options as opt
from mmace_sim.cli.declared import as_command, load_command_settings
from mmace_sim.data.settings import PROPOSE_HELP, SELECT_HELP, ProposeSettings, SelectSettings

_SWITCHES: dict[str, Any] = {
    "config": (opt.Config, None),
    "force": (opt.ForceFile, False),
    "quiet": (opt.Quiet, False),
    "as_json": (opt.AsJson, False),
}


def _propose(**values: Any) -> None:
    switches = {name: values.pop(name) for name in _SWITCHES}
    settings = load_command_settings(ProposeSettings, switches.pop("config"), values, needs_paths=True)
    from mmace_sim.cli.candidates_run import run_propose

    raise typer.Exit(run_propose(settings, **switches))


def _select(**values: Any) -> None:
    switches = {name: values.pop(name) for name in _SWITCHES}
    settings = load_command_settings(SelectSettings, switches.pop("config"), values)
    from mmace_sim.cli.candidates_run import run_select

    raise typer.Exit(run_select(settings, **switches))


propose = as_command(_propose, "propose", PROPOSE_HELP, ProposeSettings, _SWITCHES)
select = as_command(_select, "select", SELECT_HELP, SelectSettings, _SWITCHES)
