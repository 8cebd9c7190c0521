"""``mmace-sim data propose`` and ``mmace-sim data select``: which structures to compute."""

from typing import Any

from mmace_sim.cli import options as opt
from mmace_sim.cli.declared import settings_command
from mmace_sim.data.settings import PROPOSE_HELP, SELECT_HELP, ProposeSettings, SelectSettings

_SWITCHES: dict[str, Any] = {
    "config": (opt.Config, None),
    "force": (opt.ForceFile, False),
    "quiet": (opt.Quiet, False),
    "as_json": (opt.AsJson, False),
}


def _propose(settings: ProposeSettings, **switches: Any) -> int:
    from mmace_sim.cli.candidates_run import run_propose

    return run_propose(settings, **switches)


def _select(settings: SelectSettings, **switches: Any) -> int:
    from mmace_sim.cli.candidates_run import run_select

    return run_select(settings, **switches)


propose = settings_command(_propose, "propose", PROPOSE_HELP, ProposeSettings, _SWITCHES, needed=("paths",))
select = settings_command(_select, "select", SELECT_HELP, SelectSettings, _SWITCHES)
