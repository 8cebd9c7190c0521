"""``mmace-sim data propose`` and ``mmace-sim data select``: which structures to compute."""

from typing import Any

from mmace_sim.cli import options as opt
from mmace_sim.cli.declared import FILE_SWITCHES, settings_command
from mmace_sim.data.settings import PROPOSE_HELP, SELECT_HELP, ProposeSettings, SelectSettings

_RUN = "mmace_sim.cli.candidates_run:"
_SWITCHES: dict[str, Any] = {"config": (opt.Config, None), **FILE_SWITCHES, "as_json": (opt.AsJson, False)}

propose = settings_command(
    f"{_RUN}run_propose", "propose", PROPOSE_HELP, ProposeSettings, _SWITCHES, needed=("paths",)
)
select = settings_command(f"{_RUN}run_select", "select", SELECT_HELP, SelectSettings, _SWITCHES)
