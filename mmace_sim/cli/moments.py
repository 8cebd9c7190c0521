"""``mmace-sim moments``: minima of the energy over the moments at fixed atoms."""

from typing import Annotated

import typer

from mmace_sim.cli import options as opt

_SEARCH = "Search"

_Starts = Annotated[
    int | None,
    typer.Option(
        "--starts", help="Random starts of each structure.", show_default="32", rich_help_panel=_SEARCH
    ),
]
_Seed = Annotated[
    int | None, typer.Option(help="Seed of the random starts.", show_default="0", rich_help_panel=_SEARCH)
]
_Solver = Annotated[
    str | None,
    typer.Option(
        metavar="lbfgs|fire",
        help="How to go downhill.",
        show_default="lbfgs",
        rich_help_panel=opt.RELAXATION,
    ),
]
_Only = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Elements, or indices of atoms from 0, whose moments may change, such as `Mn` or `0,1`; the others stay.",
        show_default="all",
        rich_help_panel=opt.MOMENTS,
    ),
]
_Field = Annotated[
    str | None,
    typer.Option(
        metavar="BX,BY,BZ",
        help="Applied field in tesla: energy −B·Σm, moments align with it.",
        show_default="none",
        rich_help_panel=opt.MOMENTS,
    ),
]
_EnergyTol = Annotated[
    float | None,
    typer.Option(
        help="Ends closer than this (eV/atom) with like moments are one minimum.",
        show_default="0.0001",
        rich_help_panel=_SEARCH,
    ),
]
_Stability = Annotated[
    bool | None,
    typer.Option(
        "--stability/--no-stability",
        help="Tell minima from saddle points by the curvature of the energy.",
        show_default="--stability",
        rich_help_panel=_SEARCH,
    ),
]
_MagforceTol = Annotated[float | None, opt.magforce_tol_option("0.0001")]


def moments(
    paths: opt.Paths = None,
    output: opt.Output = None,
    model: opt.Model = None,
    yes: opt.Yes = None,
    config: opt.Config = None,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
    report: opt.Report = None,
    figures: opt.Figures = None,
    starts: _Starts = None,
    seed: _Seed = None,
    energy_tol: _EnergyTol = None,
    stability: _Stability = None,
    initial_magmoms: opt.InitialMagmoms = None,
    only: _Only = None,
    field: _Field = None,
    collinear: opt.Collinear = None,
    fix_magnitude: opt.FixMagnitude = None,
    spin_orbit: opt.SpinOrbit = None,
    solver: _Solver = None,
    magforce_tol: _MagforceTol = None,
    max_steps: opt.MaxSteps = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
    max_batch_atoms: opt.MaxBatchAtoms = None,
) -> None:
    """Minimise the energy over the moments of every structure in PATHS at fixed atoms, from many random starts at once.

    Every moment is turned by a random angle about a random axis and scaled by up to 1.5. What the starts end in is put
    into groups: the different minima, how many starts found each, its magnetic space group, and whether it is one. In
    the folder of the run: `summary.json` and `summary.csv` (one line for each minimum), `starts.csv` (one line for each
    start), `minima.extxyz`, `structures/NAME-NUMBER.mcif`, `figures/`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim moments Mn3Pt.cif --starts 256`; `mmace-sim moments POSCAR --only Mn --field 0,0,20`.
    """
    from mmace_sim.cli.config import load_run_config

    with opt.quiet_imports():
        from mmace_sim.cli.moments_run import MomentsConfig, run_moments

    flags = {
        "paths": paths or None, "output": output, "model": model, "fetch_models": yes, "figures": figures,
        "starts": starts, "seed": seed, "energy_tol": energy_tol, "stability": stability,
        "initial_magmoms": initial_magmoms, "only": only, "field": field, "collinear": collinear,
        "fix_magnitude": fix_magnitude, "spin_orbit": spin_orbit or None, "solver": solver,
        "magforce_tol": magforce_tol, "max_steps": max_steps, "device": device, "dtype": dtype, "threads": threads,
        "max_batch_atoms": max_batch_atoms, "report": report,
    }  # fmt: skip
    merged = load_run_config(MomentsConfig, config, flags)
    raise typer.Exit(run_moments(merged, force=force, quiet=quiet))
