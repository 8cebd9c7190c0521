"""``mmace-sim md``: molecular dynamics of atoms and magnetic moments."""

from typing import Annotated

import typer

from mmace_sim.cli import options as opt

_DYNAMICS = "Dynamics"

_Spins = Annotated[
    str | None,
    typer.Option(
        metavar="frozen|adiabatic|llg",
        help="**frozen**: moments stay. **adiabatic**: relaxed at every step. **llg**: they precess and are damped.",
        show_default="frozen",
        rich_help_panel=opt.MOMENTS,
    ),
]
_Ensemble = Annotated[
    str | None,
    typer.Option(
        metavar="nve|nvt|npt",
        help="Constant energy, a heat bath, or a heat bath and a pressure.",
        show_default="nvt",
        rich_help_panel=_DYNAMICS,
    ),
]
_Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        "-T",
        help="Temperature of the bath, and of velocities that the file does not have, K.",
        show_default="300",
        rich_help_panel=_DYNAMICS,
    ),
]
_Timestep = Annotated[
    float | None, typer.Option(help="Time step, fs.", show_default="1", rich_help_panel=_DYNAMICS)
]
_Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Number of steps.", show_default="1000", rich_help_panel=_DYNAMICS),
]
_Every = Annotated[
    int | None,
    typer.Option(
        "--every",
        help="Steps between two frames; a killed run goes on from the last one.",
        show_default="10",
        rich_help_panel=_DYNAMICS,
    ),
]
_Supercell = Annotated[
    str | None,
    typer.Option(
        metavar="N|NX,NY,NZ",
        help="Repeat every structure.",
        show_default="as it is",
        rich_help_panel=_DYNAMICS,
    ),
]
_Friction = Annotated[
    float | None,
    typer.Option(help="Friction of the atoms, 1/ps.", show_default="10", rich_help_panel=_DYNAMICS),
]
_Pressure = Annotated[
    float | None,
    typer.Option(help="Pressure for `npt`, GPa.", show_default="0", rich_help_panel=_DYNAMICS),
]
_Seed = Annotated[
    int | None, typer.Option(help="Seed of all noise.", show_default="0", rich_help_panel=_DYNAMICS)
]
_Damping = Annotated[
    float | None,
    typer.Option(help="Gilbert damping α.", show_default="0.1; 0 for nve", rich_help_panel=opt.MOMENTS),
]
_Lengths = Annotated[
    str | None,
    typer.Option(
        metavar="fixed|langevin",
        help="Lengths of moments under `llg`: fixed, or fluctuating with the bath.",
        show_default="fixed",
        rich_help_panel=opt.MOMENTS,
    ),
]
_LengthFriction = Annotated[
    float | None,
    typer.Option(
        help="Friction of fluctuating lengths, μB²/(eV fs).",
        show_default="0.05",
        rich_help_panel=opt.MOMENTS,
    ),
]
_GFactor = Annotated[
    str | None,
    typer.Option(
        metavar="G|Fe:G,Co:G",
        help="g factor of all moments, or by element.",
        show_default="2.0023",
        rich_help_panel=opt.MOMENTS,
    ),
]
_Field = Annotated[
    str | None,
    typer.Option(
        metavar="BX,BY,BZ",
        help="Applied field in tesla: energy −B·Σm.",
        show_default="none",
        rich_help_panel=opt.MOMENTS,
    ),
]
_Solver = Annotated[
    str | None,
    typer.Option(
        metavar="midpoint|sib",
        help="How a step of the moments is solved.",
        show_default="midpoint",
        rich_help_panel=opt.MOMENTS,
    ),
]
_MagforceTol = Annotated[
    float | None,
    typer.Option(
        help="Largest magnetic force that `adiabatic` leaves, eV/μB.",
        show_default="0.001",
        rich_help_panel=opt.MOMENTS,
    ),
]


def md(
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
    ensemble: _Ensemble = None,
    temperature: _Temperature = None,
    timestep: _Timestep = None,
    n_steps: _Steps = None,
    record_every: _Every = None,
    supercell: _Supercell = None,
    friction: _Friction = None,
    pressure: _Pressure = None,
    seed: _Seed = None,
    spins: _Spins = None,
    initial_magmoms: opt.InitialMagmoms = None,
    damping: _Damping = None,
    lengths: _Lengths = None,
    length_friction: _LengthFriction = None,
    g_factor: _GFactor = None,
    field: _Field = None,
    solver: _Solver = None,
    magforce_tol: _MagforceTol = None,
    spin_orbit: opt.SpinOrbit = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
    max_batch_atoms: opt.MaxBatchAtoms = None,
) -> None:
    """Simulate every structure in PATHS at constant energy or temperature, moments included, in one batch.

    In the folder of the run: `summary.json` and `summary.csv` (averages), for each structure a folder with
    `trajectory.extxyz` (velocities and moments), `thermo.csv`, figures and a checkpoint, and `config.yaml` and
    `log.txt`. A run that was killed, or is to be longer (`--steps`), goes on with `--resume`. A structure that explodes
    or fails, or with steps whose moments were not solved for (unsettled), ends with exit code 3; the others go on.

    Examples: `mmace-sim md Fe.cif --supercell 3 -T 600`; `mmace-sim md Fe.cif --supercell 3 --spins llg -T 300
    --steps 5000`; `mmace-sim md Fe.cif --ensemble nve --spins adiabatic`.
    """
    from mmace_sim.cli.config import load_run_config

    with opt.quiet_imports():
        from mmace_sim.cli.md_run import MDConfig, refuse_idle, run_md

    flags = {
        "paths": paths or None, "output": output, "model": model, "fetch_models": yes, "report": report,
        "figures": figures, "ensemble": ensemble, "temperature": temperature, "timestep": timestep,
        "n_steps": n_steps, "record_every": record_every, "supercell": supercell, "friction": friction,
        "pressure": pressure, "seed": seed, "spins": spins, "initial_magmoms": initial_magmoms, "damping": damping,
        "lengths": lengths, "length_friction": length_friction, "g_factor": g_factor, "field": field,
        "solver": solver, "magforce_tol": magforce_tol, "spin_orbit": spin_orbit or None, "device": device,
        "dtype": dtype, "threads": threads, "max_batch_atoms": max_batch_atoms,
    }  # fmt: skip
    merged = load_run_config(MDConfig, config, flags)
    refuse_idle(merged, {name for name, value in flags.items() if value is not None})
    raise typer.Exit(run_md(merged, resume=resume, force=force, quiet=quiet))
