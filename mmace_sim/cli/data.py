"""``mmace-sim data``: commands about training data."""

import typer

from mmace_sim.cli import candidates
from mmace_sim.cli.declared import FILE_SWITCHES, settings_command
from mmace_sim.cli.options import Force
from mmace_sim.training.data.settings import (
    CHECK_HELP,
    CONVERT_HELP,
    DataCheckSettings,
    DataConvertSettings,
)

data = typer.Typer(
    name="data",
    help="Make, look at and convert the data that models are trained on.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


_RUN = "mmace_sim.cli.data_run:"
_CHECK_SWITCHES = FILE_SWITCHES | {"force": (Force, False)}

data.command()(
    settings_command(f"{_RUN}run_data_check", "check", CHECK_HELP, DataCheckSettings, _CHECK_SWITCHES)
)
data.command()(
    settings_command(
        f"{_RUN}run_data_convert", "convert", CONVERT_HELP, DataConvertSettings, FILE_SWITCHES,
        needed=("files", "output"),
    )
)  # fmt: skip
data.command()(candidates.propose)
data.command()(candidates.select)
