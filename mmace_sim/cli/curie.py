"""``mmace-sim curie``: Monte Carlo at finite temperature, ordering temperatures."""

from typing import Annotated

import typer

from mmace_sim.cli import options as opt

SAMPLING = "Sampling"
DIRECT = "Direct method"

_Method = Annotated[
    str | None,
    typer.Option(
        metavar="heisenberg|direct",
        help="**heisenberg**: spins coupled by the exchange constants. **direct**: the energy of the model itself.",
        show_default="heisenberg",
        rich_help_panel=SAMPLING,
    ),
]
_Temperatures = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="K: `100:1500:100` (first, last, step) or `300,600,900`.",
        show_default="around the transition; direct: 100:1500:100",
        rich_help_panel=SAMPLING,
    ),
]
_Sizes = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Multiples of the cell; two or more give the crossing of cumulants.",
        show_default="6,8,12; direct: 3,4",
        rich_help_panel=SAMPLING,
    ),
]
_Sweeps = Annotated[
    int | None,
    typer.Option(
        help="Sweeps of each chain that count.", show_default="3000; direct: 300", rich_help_panel=SAMPLING
    ),
]
_Equilibration = Annotated[
    int | None,
    typer.Option(help="Sweeps before.", show_default="a fifth of the sweeps", rich_help_panel=SAMPLING),
]
_Replicas = Annotated[
    int | None,
    typer.Option(help="Chains at each temperature.", show_default="1", rich_help_panel=SAMPLING),
]
_Quantum = Annotated[
    bool | None,
    typer.Option(
        "--quantum",
        help="Give T_C of quantum spins as well: (S+1)/S times that of classical ones, S = |m|/2.",
        show_default="off",
        rich_help_panel=SAMPLING,
    ),
]
_Seed = Annotated[
    int | None, typer.Option(help="Seed of the random numbers.", show_default="0", rich_help_panel=SAMPLING)
]
_OverRelaxation = Annotated[
    int | None,
    typer.Option(
        help="Over-relaxation sweeps after each heat bath.", show_default="3", rich_help_panel=SAMPLING
    ),
]
_From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="DIR|uppasd|vampire",
        help="Exchange of an earlier `mmace-sim exchange`, by the names of the structures. **uppasd**, **vampire**: "
        "PATHS are folders with the files of that code.",
        show_default="computed",
        rich_help_panel=SAMPLING,
    ),
]
_Cutoff = Annotated[
    float | None,
    typer.Option(help="Largest distance of exchange, Å.", show_default="6", rich_help_panel=SAMPLING),
]
_Lengths = Annotated[
    str | None,
    typer.Option(
        metavar="fixed|variable", help="Lengths of the moments.", show_default="fixed", rich_help_panel=DIRECT
    ),
]
_Lattice = Annotated[
    str | None,
    typer.Option(
        metavar="fixed|moving|free",
        help="**moving**: atoms are sampled too. **free**: the volume too, at zero pressure.",
        show_default="fixed",
        rich_help_panel=DIRECT,
    ),
]
_Moves = Annotated[
    str | None,
    typer.Option(
        metavar="hybrid|local",
        help="**hybrid**: all moments at once by gradients. **local**: Metropolis moves of single moments.",
        show_default="hybrid",
        rich_help_panel=DIRECT,
    ),
]
_Steps = Annotated[
    int | None,
    typer.Option(help="Leapfrog steps of a hybrid move.", show_default="10", rich_help_panel=DIRECT),
]


def curie(
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
    method: _Method = None,
    temperatures: _Temperatures = None,
    sizes: _Sizes = None,
    sweeps: _Sweeps = None,
    equilibration: _Equilibration = None,
    replicas: _Replicas = None,
    seed: _Seed = None,
    over_relaxation: _OverRelaxation = None,
    exchange_run: _From = None,
    cutoff: _Cutoff = None,
    quantum: _Quantum = None,
    lengths: _Lengths = None,
    lattice: _Lattice = None,
    moves: _Moves = None,
    n_steps: _Steps = None,
    magmoms: opt.PointMagmoms = None,
    initial_magmoms: opt.InitialMagmoms = None,
    spin_orbit: opt.SpinOrbit = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
) -> None:
    """Ordering temperature of every collinear magnet in PATHS by Monte Carlo: M(T), χ, heat capacity, Binder cumulant.

    All temperatures and sizes are one batch. T_C by the crossing of cumulants, the peak of the susceptibility and a fit
    of (T_C − T)^β, each with its error. Chains that are not in equilibrium are named (exit code 3). In the folder of
    the run, for each structure: `points.csv`, figures, and `samples-*.npz`, from which `--resume` goes on; beside them
    `summary.json`, `summary.csv`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim curie iron.cif`; `mmace-sim curie iron.cif --from exchange --sizes 8,12,16`;
    `mmace-sim curie Fe3Y/ --from uppasd --quantum`;
    `mmace-sim curie iron.cif --method direct --temperatures 200:1400:200 --lengths variable`.
    """
    from mmace_sim.cli.config import load_run_config

    with opt.quiet_imports():
        from mmace_sim.cli.curie_run import CurieConfig, run_curie

    flags = {
        "paths": paths or None, "output": output, "model": model, "fetch_models": yes, "figures": figures,
        "report": report, "method": method, "temperatures": temperatures, "sizes": sizes, "sweeps": sweeps,
        "equilibration": equilibration, "replicas": replicas, "seed": seed, "over_relaxation": over_relaxation,
        "exchange_run": exchange_run, "cutoff": cutoff, "quantum": quantum or None, "lengths": lengths,
        "lattice": lattice, "moves": moves, "n_steps": n_steps, "magmoms": magmoms,
        "initial_magmoms": initial_magmoms, "spin_orbit": spin_orbit or None, "device": device, "dtype": dtype,
        "threads": threads,
    }  # fmt: skip
    merged = load_run_config(CurieConfig, config, flags)
    raise typer.Exit(run_curie(merged, resume=resume, force=force, quiet=quiet))
