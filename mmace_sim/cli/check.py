"""``mmace-sim check``: does a magnetic potential obey the physics that it must?"""

from typing import Any

from mmace_sim.cli.declared import SWITCHES, settings_command
from mmace_sim.quality.check.declaration import HELP, CheckSettings


def _run(settings: CheckSettings, **switches: Any) -> int:
    from mmace_sim.cli.check_run import run_check

    return run_check(settings, **switches)


check = settings_command(_run, "check", HELP, CheckSettings, SWITCHES)
