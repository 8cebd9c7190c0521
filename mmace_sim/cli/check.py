"""``mmace-sim check``: does a magnetic potential obey the physics that it must?"""

from pathlib import Path
from typing import Annotated

import typer

from mmace_sim.cli import options as opt

CALCULATOR = "Calculators (a model knows all of this)"

_Structures = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH",
        help="File or folder with structures to check on (may be repeated); without moments, random ones are set.",
        show_default="bcc, fcc, hcp, rattled, random cell, dimer",
        rich_help_panel=opt.RUN,
    ),
]
_Elements = Annotated[
    str | None,
    typer.Option(
        metavar="Fe,Ni",
        help="Elements of the built-in structures; needed for a calculator without --structures.",
        show_default="all of the model",
        rich_help_panel=opt.RUN,
    ),
]
_Tolerance = Annotated[
    float | None,
    typer.Option(help="Factor for all tolerances.", show_default="1", rich_help_panel=opt.RUN),
]
_Plot = Annotated[
    bool,
    typer.Option(
        "--plot",
        help="Draw E(moment), E(angle), E(volume) and dimer curves, PNG and SVG.",
        rich_help_panel=opt.RUN,
    ),
]
_RMax = Annotated[
    float | None,
    typer.Option(
        help="Cutoff radius, Å; needed for the jump at the cutoff.",
        show_default="not known",
        rich_help_panel=CALCULATOR,
    ),
]
_MaxMoment = Annotated[
    float | None,
    typer.Option(
        help="Largest moment that it was made for, μB.", show_default="3", rich_help_panel=CALCULATOR
    ),
]
_SpinOrbit = Annotated[
    bool | None,
    typer.Option(
        "--spin-orbit/--no-spin-orbit",
        help="Whether it has spin–orbit coupling; without it, moments alone may be rotated.",
        show_default="not known",
        rich_help_panel=CALCULATOR,
    ),
]


def check(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Model: a name (see `mmace-sim models`), a file, or `module:factory` of any ASE calculator.",
            show_default="default",
        ),
    ] = None,
    structures: _Structures = None,
    elements: _Elements = None,
    tolerance: _Tolerance = None,
    plot: _Plot = False,
    output: opt.Output = None,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
    r_max: _RMax = None,
    max_moment: _MaxMoment = None,
    spin_orbit: _SpinOrbit = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
) -> None:
    """Check whether a magnetic potential obeys the physics that it must: symmetries, limits, derivatives.

    Measures each identity (rotation, inversion, time reversal, smoothness, jump at the cutoff, moments that are too
    long, forces against differences, ...) and by how much it is violated, in meV/atom and relative. The table is kept
    in `summary.json`, beside `config.yaml`, `log.txt` and, with `--plot`, `figures/`. What a potential does not give
    is skipped and never counted as passed. Exit code 3 if anything failed.

    `module:factory` names a function without arguments that returns an ASE calculator, which reads non-collinear
    moments (n_atoms, 3) from `initial_magmoms`, and gives magnetic forces −∂E/∂m as result `magforces` or
    `magnetic_forces` if it can. Its module may be in the working folder.

    Examples: `mmace-sim check`; `mmace-sim check my.safetensors --plot -o my_check`;
    `mmace-sim check my_potential:make_calculator --elements Fe,Ni --r-max 5`.
    """
    from mmace_sim.cli.check_run import CheckConfig, run_check
    from mmace_sim.cli.config import load_config

    flags = {
        "model": model, "structures": [str(path) for path in structures] if structures else None,
        "elements": [part.strip() for part in elements.split(",")] if elements is not None else None,
        "tolerance": tolerance, "plot": plot or None, "output": output, "r_max": r_max, "max_moment": max_moment,
        "spin_orbit": spin_orbit, "device": device, "dtype": dtype, "threads": threads,
    }  # fmt: skip
    raise typer.Exit(run_check(load_config(CheckConfig, None, flags), force=force, quiet=quiet))
