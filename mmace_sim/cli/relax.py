"""``mmace-sim relax``: positions, cell and magnetic moments of many structures in one batch."""

from typing import Annotated

import typer

from mmace_sim.cli import options as opt

_Magmoms = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        help=(
            "**joint**: relax moments together with positions and cell. **adiabatic**: converge "
            "the moments at every step. **fixed**: keep them. A START is understood here too: "
            "`--magmoms afm` means `--initial-magmoms afm --magmoms joint`."
        ),
        show_default="joint",
        rich_help_panel=opt.MOMENTS,
    ),
]
_RelaxCell = Annotated[
    bool | None,
    typer.Option(
        "--relax-cell/--fixed-cell",
        help="Relax the cell too (of crystals; a molecule has none).",
        show_default="--relax-cell",
        rich_help_panel=opt.RELAXATION,
    ),
]
_CellMask = Annotated[
    str | None,
    typer.Option(
        metavar="XX,YY,...",
        help=(
            "Relax only these components of the cell: names out of xx,yy,zz,yz,xz,xy, or six numbers 1 or 0 in that "
            "order. Also for a slab, whose cell stays fixed otherwise: `xx,yy,xy`."
        ),
        show_default="all of a crystal, none of a slab",
        rich_help_panel=opt.RELAXATION,
    ),
]
_Stability = Annotated[
    bool | None,
    typer.Option(
        "--stability/--no-stability",
        help="Tell minima from saddle points of the moments by the lowest curvature of the energy.",
        show_default="--stability",
        rich_help_panel=opt.MOMENTS,
    ),
]
_Perturb = Annotated[
    bool,
    typer.Option(
        "--perturb",
        help="Push the moments off a saddle point, along the direction that goes down, and relax on.",
        rich_help_panel=opt.MOMENTS,
    ),
]
_Fmax = Annotated[float | None, opt.fmax_option("0.01")]
_MagforceTol = Annotated[float | None, opt.magforce_tol_option("0.0003")]
_StressTol = Annotated[
    float | None,
    typer.Option(
        help="Largest stress of a converged structure, GPa.",
        show_default="0.05",
        rich_help_panel=opt.RELAXATION,
    ),
]
_Write = Annotated[
    list[str] | None,
    typer.Option(
        metavar="cif|mcif|poscar",
        help=("Write each relaxed structure in this format too (may be repeated); mcif keeps the moments."),
        show_default=False,
        rich_help_panel=opt.RUN,
    ),
]


def relax(
    paths: opt.Paths = None,
    output: opt.Output = None,
    model: opt.Model = None,
    yes: opt.Yes = None,
    write: _Write = None,
    config: opt.Config = None,
    resume: opt.Resume = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
    report: opt.Report = None,
    magmoms: _Magmoms = None,
    initial_magmoms: opt.InitialMagmoms = None,
    collinear: opt.Collinear = None,
    fix_magnitude: opt.FixMagnitude = None,
    spin_orbit: opt.SpinOrbit = None,
    stability: _Stability = None,
    perturb: _Perturb = False,
    relax_cell: _RelaxCell = None,
    cell_mask: _CellMask = None,
    fmax: _Fmax = None,
    stress_tol: _StressTol = None,
    magforce_tol: _MagforceTol = None,
    max_steps: opt.MaxSteps = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
    max_batch_atoms: opt.MaxBatchAtoms = None,
) -> None:
    """Relax positions, cell and magnetic moments of every structure in PATHS, in one batch.

    The results are in the folder of the run: `summary.json` and `summary.csv` (energies, moments, magnetic
    orders, statuses), `relaxed.extxyz` (structures with moments and forces), `config.yaml` and `log.txt`.

    Examples: `mmace-sim relax structures/`; `mmace-sim relax POSCAR --initial-magmoms afm -o afm`;
    `mmace-sim relax *.cif --fixed-cell --magmoms adiabatic`; `mmace-sim relax structures/ --resume`.
    """
    from mmace_sim.cli.config import RelaxConfig, load_run_config

    flags = {
        "paths": paths or None, "output": output, "model": model, "fetch_models": yes, "magmoms": magmoms,
        "initial_magmoms": initial_magmoms, "collinear": collinear, "fix_magnitude": fix_magnitude,
        "write": write or None, "spin_orbit": spin_orbit or None, "relax_cell": relax_cell, "cell_mask": cell_mask,
        "stability": stability, "perturb": perturb or None, "fmax": fmax, "stress_tol": stress_tol,
        "magforce_tol": magforce_tol, "max_steps": max_steps, "device": device, "dtype": dtype, "threads": threads,
        "max_batch_atoms": max_batch_atoms, "report": report,
    }  # fmt: skip
    merged = load_run_config(RelaxConfig, config, flags)
    from mmace_sim.cli.relax_run import run_relax

    raise typer.Exit(run_relax(merged, resume=resume, force=force, quiet=quiet))
