"""``mmace-sim data``: commands about training data."""

from pathlib import Path
from typing import Any

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


def _check(settings: DataCheckSettings, **switches: Any) -> int:
    from mmace_sim.cli.data_run import run_data_check

    return run_data_check(settings, **switches)


def _convert(settings: DataConvertSettings, **switches: Any) -> int:
    from mmace_sim.cli.data_run import run_data_convert

    files = [Path(file) for file in settings.files]
    return run_data_convert(files, Path(settings.output), settings.keys, **switches)


data.command()(
    settings_command(
        _check, "check", CHECK_HELP, DataCheckSettings, FILE_SWITCHES | {"force": (Force, False)}
    )
)
data.command()(
    settings_command(
        _convert, "convert", CONVERT_HELP, DataConvertSettings, FILE_SWITCHES, needed=("files", "output")
    )
)
data.command()(candidates.propose)
data.command()(candidates.select)
