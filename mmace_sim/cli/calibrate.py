"""``mmace-sim calibrate``: a model file that knows what its model does not."""

from pathlib import Path

import typer

from mmace_sim.cli.declared import FILE_SWITCHES, settings_command
from mmace_sim.cli.options import Switches
from mmace_sim.training.calibration.settings import HELP, CalibrateSettings


def _run(settings: CalibrateSettings, switches: Switches) -> int:
    from mmace_sim.cli.data_run import parse_keys
    from mmace_sim.engine.folder import open_file
    from mmace_sim.engine.machine import quiet_imports

    with quiet_imports():
        from mmace_sim.model.registry import resolve_model
        from mmace_sim.training.calibration.files import calibrate_file
    data, held_out = [Path(file) for file in settings.data], [Path(file) for file in settings.held_out]
    inputs = [resolve_model(settings.model), *data, *held_out]
    with open_file(Path(settings.output), "calibrate", force=switches.force, inputs=inputs):
        lines = calibrate_file(
            settings.model,
            Path(settings.output),
            data,
            held_out,
            keys=parse_keys(settings.keys),
            magforce_elements=settings.magforce_elements,
            fit_zero=settings.fit_zero,
        )
    for line in [] if switches.quiet else lines:
        typer.echo(line)
    return 0


calibrate = settings_command(
    _run, "calibrate", HELP, CalibrateSettings, FILE_SWITCHES, needed=("model", "data", "output")
)
