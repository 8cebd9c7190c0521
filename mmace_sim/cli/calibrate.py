"""``mmace-sim calibrate``: a model file that knows what its model does not."""

from pathlib import Path
from typing import Annotated

import typer

from mmace_sim.cli import options
from mmace_sim.training.evaluate_settings import FORMATS


def calibrate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model: a name (see `mmace-sim models`) or a file.")
    ],
    data: Annotated[
        list[Path],
        typer.Argument(metavar="DATA...", help=f"Structures with moments and labels: {FORMATS}."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="NEW.safetensors", help="Model file to write."),
    ],
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Structures that the model was not trained on (may be repeated), if it was trained on DATA: they "
            "decide how large its errors are.",
        ),
    ] = None,
    fit_zero: Annotated[
        bool,
        typer.Option(
            "--fit-zero",
            help="Energies of DATA have another zero than the model: one constant for each element is no error.",
        ),
    ] = False,
    keys: Annotated[str | None, options.keys_option()] = None,
    magforce_elements: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Elements whose magnetic forces are labels, such as `Ni`.",
            show_default="those of the training, else all",
        ),
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Add to a model what it does not know: the sizes of its errors, and where its data end.

    Results then have an uncertainty and say whether a structure is inside, at the edge or outside of the domain. The
    weights stay as they are. `mmace-sim train` does this by itself; converted and foundation models get it here from
    any labelled structures of the kind that you compute. If the model was trained on them, its errors there are too
    small: then `--held-out` names structures that it has not seen.

    Example: `mmace-sim calibrate mmace-matpes-pbe my-dft.extxyz -o mine.safetensors`.
    """
    from mmace_sim.cli.data_run import parse_keys
    from mmace_sim.engine.folder import open_file
    from mmace_sim.engine.machine import quiet_imports

    with quiet_imports():
        from mmace_sim.model.registry import resolve_model
        from mmace_sim.training.calibrate_files import calibrate_file
        from mmace_sim.training.config_loss import check_symbols
    inputs = [resolve_model(model), *data, *(held_out or [])]
    with open_file(output, "calibrate", force=force, inputs=inputs):
        lines = calibrate_file(
            model,
            output,
            data,
            held_out or [],
            keys=parse_keys(keys),
            magforce_elements=check_symbols([part.strip() for part in magforce_elements.split(",")])
            if magforce_elements
            else None,
            fit_zero=fit_zero,
        )
    if not quiet:
        for line in lines:
            typer.echo(line)
