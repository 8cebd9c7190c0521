"""``mmace-sim eos``: energy against volume of many structures and magnetic states."""

from typing import Annotated

import typer

from mmace_sim.cli import options as opt

_States = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help=(
            "Magnetic states, separated by commas. **file**: the moments of the structure. **fm**, **fm-ls**: "
            "ferromagnetic, from the high-spin or the low-spin side. **afm**: near neighbours opposite. **afmd**: "
            "double layers along the third cell vector. **nm**: no moments. **random:SEED**."
        ),
        show_default="file",
        rich_help_panel=opt.MOMENTS,
    ),
]
_RelaxPositions = Annotated[
    bool | None,
    typer.Option(
        "--relax-positions/--fixed-positions",
        help="Relax the atoms within the cell at each volume.",
        show_default="--fixed-positions",
        rich_help_panel=opt.RELAXATION,
    ),
]
_VolumeMin = Annotated[float | None, opt.volume_option("Smallest", "0.88")]
_VolumeMax = Annotated[float | None, opt.volume_option("Largest", "1.12")]
_NVolumes = Annotated[
    int | None, typer.Option(help="Number of volumes.", show_default="13", rich_help_panel=opt.STRAIN)
]
_Fmax = Annotated[float | None, opt.fmax_option("0.005")]
_MagforceTol = Annotated[float | None, opt.magforce_tol_option("0.0001")]


def eos(
    paths: opt.Paths = None,
    output: opt.Output = None,
    model: opt.Model = None,
    yes: opt.Yes = None,
    config: opt.Config = None,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
    report: opt.Report = None,
    figures: opt.Figures = None,
    states: _States = None,
    magmoms: opt.PointMagmoms = None,
    initial_magmoms: opt.InitialMagmoms = None,
    collinear: opt.Collinear = None,
    spin_orbit: opt.SpinOrbit = None,
    volume_min: _VolumeMin = None,
    volume_max: _VolumeMax = None,
    n_volumes: _NVolumes = None,
    relax_positions: _RelaxPositions = None,
    fmax: _Fmax = None,
    magforce_tol: _MagforceTol = None,
    max_steps: opt.MaxSteps = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
    max_batch_atoms: opt.MaxBatchAtoms = None,
) -> None:
    """Energy against volume of every structure in PATHS, in each magnetic state, in one batch.

    Gives V₀, B₀, B₀′ (Birch–Murnaghan, in a window that the residual chooses), the moment against volume and where it
    jumps, and the volumes where two states have the same energy. The cell keeps its shape. In the folder of the run:
    `summary.json` and `summary.csv` (one line for each minimum), `curves.csv` (every point), `points.extxyz`
    (structures with moments), `figures/`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim eos POSCAR`; `mmace-sim eos fcc.cif --states fm,afm,afmd,nm --volume-max 1.3 --n-volumes 25`.
    """
    from mmace_sim.cli.config import load_run_config

    with opt.quiet_imports():
        from mmace_sim.cli.eos_run import EosConfig, run_eos

    flags = {
        "paths": paths or None, "output": output, "model": model, "fetch_models": yes, "figures": figures,
        "states": states, "magmoms": magmoms, "initial_magmoms": initial_magmoms, "collinear": collinear,
        "spin_orbit": spin_orbit or None, "volume_min": volume_min, "volume_max": volume_max, "n_volumes": n_volumes,
        "relax_positions": relax_positions, "fmax": fmax, "magforce_tol": magforce_tol, "max_steps": max_steps,
        "device": device, "dtype": dtype, "threads": threads, "max_batch_atoms": max_batch_atoms, "report": report,
    }  # fmt: skip
    merged = load_run_config(EosConfig, config, flags)
    raise typer.Exit(run_eos(merged, force=force, quiet=quiet))
