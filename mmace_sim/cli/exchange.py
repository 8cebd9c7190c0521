"""``mmace-sim exchange``: exchange constants, magnons, mean-field temperature, input of spin-dynamics codes."""

from typing import Annotated

import typer

from mmace_sim.cli import options as opt

EXCHANGE = "Exchange"

_Cutoff = Annotated[
    float | None,
    typer.Option(help="Largest distance of a pair, Å.", show_default="6", rich_help_panel=EXCHANGE),
]
_Routes = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help=(
            "Separated by commas. **derivatives**: second derivatives of the energy. **four-state**: energies of "
            "tilted pairs. **spirals**: E(q), isotropic exchange only. The first gives magnons and exports."
        ),
        show_default="derivatives,four-state,spirals",
        rich_help_panel=EXCHANGE,
    ),
]
_Angle = Annotated[
    float | None,
    typer.Option(
        help="Tilt of four states and spirals, degrees. 90: how far from a Heisenberg model?",
        show_default="10",
        rich_help_panel=EXCHANGE,
    ),
]
_Lengths = Annotated[
    str | None,
    typer.Option(
        metavar="rigid|relaxed",
        help="Lengths of the moments while they turn.",
        show_default="rigid",
        rich_help_panel=EXCHANGE,
    ),
]
_MagforceTol = Annotated[float | None, opt.magforce_tol_option("0.00001")]


def exchange(
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
    cutoff: _Cutoff = None,
    routes: _Routes = None,
    angle: _Angle = None,
    lengths: _Lengths = None,
    magmoms: opt.PointMagmoms = None,
    initial_magmoms: opt.InitialMagmoms = None,
    spin_orbit: opt.SpinOrbit = None,
    magforce_tol: _MagforceTol = None,
    max_steps: opt.MaxSteps = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
    max_batch_atoms: opt.MaxBatchAtoms = None,
) -> None:
    """Exchange constants of every collinear magnet in PATHS, by up to three routes, and what follows from them.

    J', DMI and anisotropic exchange for E = E₀ − Σ over pairs of J' e·e, unit vectors, J' > 0 ferromagnetic; magnons,
    spin stiffness, mean-field ordering temperature. In the folder of the run, for each structure: `shells.csv`,
    `pairs.csv`, `magnons.csv`, figures, and input for VAMPIRE, UppASD and Spirit and TB2J's listing; beside them
    `summary.json`, `summary.csv`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim exchange iron.cif`; `mmace-sim exchange folder/ --cutoff 5 --routes derivatives`.
    """
    from mmace_sim.cli.config import load_run_config

    with opt.quiet_imports():
        from mmace_sim.cli.exchange_run import ExchangeConfig, run_exchange

    flags = {
        "paths": paths or None, "output": output, "model": model, "fetch_models": yes, "figures": figures,
        "report": report, "cutoff": cutoff, "routes": routes, "angle": angle, "lengths": lengths, "magmoms": magmoms,
        "initial_magmoms": initial_magmoms, "spin_orbit": spin_orbit or None, "magforce_tol": magforce_tol,
        "max_steps": max_steps, "device": device, "dtype": dtype, "threads": threads,
        "max_batch_atoms": max_batch_atoms,
    }  # fmt: skip
    merged = load_run_config(ExchangeConfig, config, flags)
    raise typer.Exit(run_exchange(merged, resume=resume, force=force, quiet=quiet))
