"""``mmace-sim order``: which magnetic order of each structure is lowest."""

from typing import Annotated

import typer

from mmace_sim.cli import options as opt

STARTS = "Starts"

_MaxSupercell = Annotated[
    int | None,
    typer.Option(
        help="Largest number of primitive cells in a magnetic cell: 2 for ferromagnet and simple antiferromagnets of a "
        "lattice with one atom, 4 for double layers too.",
        show_default="2",
        rich_help_panel=STARTS,
    ),
]
_MaxOrders = Annotated[
    int | None,
    typer.Option(
        help="Largest number of collinear orders of a structure, the simplest ones first.",
        show_default="32",
        rich_help_panel=STARTS,
    ),
]
_NonMagnetic = Annotated[
    bool | None,
    typer.Option(
        "--nm/--no-nm",
        help="Add a start without moments.",
        show_default="--nm",
        rich_help_panel=STARTS,
    ),
]
_Random = Annotated[
    int | None,
    typer.Option(
        "--random",
        metavar="N",
        help="Add N starts with random directions.",
        show_default="0",
        rich_help_panel=STARTS,
    ),
]
_Spirals = Annotated[
    bool | None,
    typer.Option(
        "--spirals/--no-spirals",
        help="Add the spin spirals that fit into a magnetic cell of 3 or more primitive cells.",
        show_default="--no-spirals",
        rich_help_panel=STARTS,
    ),
]
_Tilt = Annotated[
    float | None,
    typer.Option(
        metavar="DEGREES",
        help="Turn every moment of every start by this angle about a random axis, so that unstable orders are left.",
        show_default="0",
        rich_help_panel=STARTS,
    ),
]
_Seed = Annotated[
    int | None,
    typer.Option(help="Seed of random directions and tilts.", show_default="0", rich_help_panel=STARTS),
]
_Magmoms = Annotated[
    str | None,
    typer.Option(
        metavar="joint|adiabatic|fixed",
        help="**joint**: relax moments together with atoms and cell. **adiabatic**: converge them at every step. "
        "**fixed**: keep them.",
        show_default="joint",
        rich_help_panel=opt.MOMENTS,
    ),
]
_RelaxCell = Annotated[
    bool | None,
    typer.Option(
        "--relax-cell/--fixed-cell",
        help="Relax the cell of each order.",
        show_default="--relax-cell",
        rich_help_panel=opt.RELAXATION,
    ),
]
_RelaxPositions = Annotated[
    bool | None,
    typer.Option(
        "--relax-positions/--fixed-positions",
        help="Relax the atoms of each order.",
        show_default="--relax-positions",
        rich_help_panel=opt.RELAXATION,
    ),
]
_Fmax = Annotated[float | None, opt.fmax_option("0.01")]
_StressTol = Annotated[
    float | None,
    typer.Option(
        help="Largest stress of a converged structure, GPa.",
        show_default="0.1",
        rich_help_panel=opt.RELAXATION,
    ),
]
_MagforceTol = Annotated[float | None, opt.magforce_tol_option("0.001")]
_MaxSteps = Annotated[
    int | None,
    typer.Option(help="Largest number of steps.", show_default="1000", rich_help_panel=opt.RELAXATION),
]
_EnergyTol = Annotated[
    float | None,
    typer.Option(
        help="Relaxed orders that look alike are one state if their energies differ by less, eV/atom.",
        show_default="0.001",
        rich_help_panel=opt.RELAXATION,
    ),
]
_Symprec = Annotated[
    float | None,
    typer.Option(help="Tolerance of positions for symmetry, Å.", show_default="0.01", rich_help_panel=STARTS),
]


def order(
    paths: opt.Paths = None,
    output: opt.Output = None,
    model: opt.Model = None,
    yes: opt.Yes = None,
    config: opt.Config = None,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
    report: opt.Report = None,
    figures: opt.Figures = None,
    max_supercell: _MaxSupercell = None,
    max_orders: _MaxOrders = None,
    non_magnetic: _NonMagnetic = None,
    random: _Random = None,
    spirals: _Spirals = None,
    tilt: _Tilt = None,
    seed: _Seed = None,
    symprec: _Symprec = None,
    magmoms: _Magmoms = None,
    initial_magmoms: opt.InitialMagmoms = None,
    collinear: opt.Collinear = None,
    fix_magnitude: opt.FixMagnitude = None,
    spin_orbit: opt.SpinOrbit = None,
    relax_cell: _RelaxCell = None,
    relax_positions: _RelaxPositions = None,
    fmax: _Fmax = None,
    stress_tol: _StressTol = None,
    magforce_tol: _MagforceTol = None,
    max_steps: _MaxSteps = None,
    energy_tol: _EnergyTol = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
    max_batch_atoms: opt.MaxBatchAtoms = None,
) -> None:
    """Find the lowest magnetic order of every structure in PATHS: many starts, relaxed in one batch, ranked.

    The structure is reduced to its primitive cell. Collinear orders (ferromagnet, antiferromagnets, ferrimagnets) in it
    and its supercells are enumerated by symmetry; random directions, spirals and an order of the file are added. Equal
    results are recognised. In the folder of the run: `summary.json` and `summary.csv` (one line for each start),
    `relaxed.extxyz` (all relaxed orders), `structures/` (the lowest order of each structure as mCIF), `figures/`,
    `config.yaml` and `log.txt`.

    Examples: `mmace-sim order POSCAR`; `mmace-sim order bcc.cif fcc.cif --max-supercell 4 --spirals --random 10`.
    """
    from mmace_sim.cli.config import load_run_config

    with opt.quiet_imports():
        from mmace_sim.cli.order_run import OrderConfig, run_order

    flags = {
        "paths": paths or None, "output": output, "model": model, "fetch_models": yes, "figures": figures,
        "max_supercell": max_supercell, "max_orders": max_orders, "non_magnetic": non_magnetic, "random": random,
        "spirals": spirals, "tilt": tilt, "seed": seed, "symprec": symprec, "magmoms": magmoms,
        "initial_magmoms": initial_magmoms, "collinear": collinear, "fix_magnitude": fix_magnitude,
        "spin_orbit": spin_orbit or None, "relax_cell": relax_cell, "relax_positions": relax_positions, "fmax": fmax,
        "stress_tol": stress_tol, "magforce_tol": magforce_tol, "max_steps": max_steps, "energy_tol": energy_tol,
        "device": device, "dtype": dtype, "threads": threads, "max_batch_atoms": max_batch_atoms, "report": report,
    }  # fmt: skip
    merged = load_run_config(OrderConfig, config, flags)
    raise typer.Exit(run_order(merged, force=force, quiet=quiet))
