"""``mmace-sim check``: does a magnetic potential obey the physics that it must?"""

from mmace_sim.cli.declared import SWITCHES, settings_command
from mmace_sim.quality.check.declaration import HELP, CheckSettings

check = settings_command("mmace_sim.cli.check_run:run_check", "check", HELP, CheckSettings, SWITCHES)
