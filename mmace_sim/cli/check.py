"""``mmace-sim check``: does a magnetic potential obey the physics that it must?"""

from typing import Any

import typer

from mmace_sim.cli import options as opt
from mmace_sim.cli.declared import as_command, load_command_settings
from mmace_sim.quality.check.declaration import HELP, CheckSettings

_SWITCHES: dict[str, Any] = {
    "config": (opt.Config, None),
    "resume": (opt.Resume, False),
    "force": (opt.Force, False),
    "quiet": (opt.Quiet, False),
    "as_json": (opt.AsJson, False),
}


def _run(**values: Any) -> None:
    switches = {name: values.pop(name) for name in _SWITCHES}
    settings = load_command_settings(CheckSettings, switches.pop("config"), values)
    from mmace_sim.cli.check_run import run_check

    raise typer.Exit(run_check(settings, **switches))


check = as_command(_run, "check", HELP, CheckSettings, _SWITCHES)
