"""``mmace-sim anisotropy``: energy against the direction of the moments, anisotropy constants, easy axes."""

from typing import Annotated

import typer

from mmace_sim.cli import options as opt

ANISOTROPY = "Anisotropy"

_Directions = Annotated[
    int | None,
    typer.Option(
        help="Least number of directions; the next grid of Lebedev's is taken, half of it by time reversal.",
        show_default="50",
        rich_help_panel=ANISOTROPY,
    ),
]
_Plane = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,Z",
        help="Turn in the plane with this normal (Cartesian) only.",
        show_default="the whole sphere",
        rich_help_panel=ANISOTROPY,
    ),
]
_Form = Annotated[
    str | None,
    typer.Option(
        metavar="auto|uniaxial|cubic|general",
        help="What is fitted. **auto**: as the symmetry of crystal and order asks for.",
        show_default="auto",
        rich_help_panel=ANISOTROPY,
    ),
]
_Axis = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,Z",
        help="Unique axis (Cartesian).",
        show_default="that of the crystal",
        rich_help_panel=ANISOTROPY,
    ),
]
_MaxEll = Annotated[
    int | None,
    typer.Option(help="Highest degree of the harmonics.", show_default="6", rich_help_panel=ANISOTROPY),
]
_CurvePoints = Annotated[
    int | None,
    typer.Option(
        help="Directions in each of three planes, to check and to draw; 0: none.",
        show_default="18",
        rich_help_panel=ANISOTROPY,
    ),
]
_Map = Annotated[
    bool | None,
    typer.Option(
        "--map",
        help="Instead, only how much random rotations of all moments change the energy: a map of a data set.",
        show_default=False,
        rich_help_panel=ANISOTROPY,
    ),
]
_Rotations = Annotated[
    int | None,
    typer.Option(help="Number of rotations of a map.", show_default="16", rich_help_panel=ANISOTROPY),
]
_Seed = Annotated[
    int | None, typer.Option(help="Seed of the rotations.", show_default="0", rich_help_panel=ANISOTROPY)
]
_Magmoms = Annotated[
    str | None,
    typer.Option(
        metavar="fixed|relaxed",
        help="**relaxed**: lengths of collinear orders relax first. **fixed**: they stay as they are.",
        show_default="relaxed",
        rich_help_panel=opt.MOMENTS,
    ),
]
_Lengths = Annotated[
    str | None,
    typer.Option(
        metavar="rigid|relaxed",
        help="Lengths of the moments while they turn (relaxed: collinear orders only).",
        show_default="rigid",
        rich_help_panel=opt.MOMENTS,
    ),
]
_MagforceTol = Annotated[float | None, opt.magforce_tol_option("0.000001")]


def anisotropy(
    paths: opt.Paths = None,
    output: opt.Output = None,
    model: opt.Model = None,
    yes: opt.Yes = None,
    config: opt.Config = None,
    resume: opt.Resume = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
    report: opt.Report = None,
    figures: opt.Figures = None,
    directions: _Directions = None,
    plane: _Plane = None,
    form: _Form = None,
    axis: _Axis = None,
    max_ell: _MaxEll = None,
    curve_points: _CurvePoints = None,
    map_: _Map = None,
    rotations: _Rotations = None,
    seed: _Seed = None,
    magmoms: _Magmoms = None,
    lengths: _Lengths = None,
    initial_magmoms: opt.InitialMagmoms = None,
    magforce_tol: _MagforceTol = None,
    max_steps: opt.MaxSteps = None,
    device: opt.Device = None,
    threads: opt.Threads = None,
    max_batch_atoms: opt.MaxBatchAtoms = None,
) -> None:
    """Magnetic anisotropy of every magnet in PATHS: which direction of the moments is easy, and what others cost.

    All moments of a structure turn as a body; all directions of all structures are one batch, always in float64. K1 > 0
    is an easy axis (uniaxial) or easy ⟨100⟩ (cubic), MAE = E(hard) − E(easy). Needs a model **with spin–orbit
    coupling**; the default model has none. In the folder of the run: `summary.csv` ranked by MAE, `summary.json`,
    and for each structure `directions.csv` and figures.

    Examples: `mmace-sim anisotropy folder/ -m soc.safetensors`; `mmace-sim anisotropy --map train.extxyz -m
    soc.safetensors`.
    """
    from mmace_sim.cli.config import load_run_config

    with opt.quiet_imports():
        from mmace_sim.cli.anisotropy_run import AnisotropyConfig, run_anisotropy

    flags = {
        "paths": paths or None, "output": output, "model": model, "fetch_models": yes, "figures": figures,
        "report": report, "directions": directions, "plane": plane, "form": form, "axis": axis, "max_ell": max_ell,
        "curve_points": curve_points, "map": map_, "rotations": rotations, "seed": seed, "magmoms": magmoms,
        "lengths": lengths, "initial_magmoms": initial_magmoms, "magforce_tol": magforce_tol, "max_steps": max_steps,
        "device": device, "threads": threads, "max_batch_atoms": max_batch_atoms,
    }  # fmt: skip
    merged = load_run_config(AnisotropyConfig, config, flags)
    raise typer.Exit(run_anisotropy(merged, resume=resume, force=force, quiet=quiet))
