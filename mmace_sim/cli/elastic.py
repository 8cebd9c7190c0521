"""``mmace-sim elastic``: elastic constants of many magnetic crystals."""

from typing import Annotated

import typer

from mmace_sim.cli import options as opt

_Magmoms = Annotated[
    str | None,
    typer.Option(
        metavar="relaxed|fixed|both",
        help=(
            "**relaxed**: moments follow the strain adiabatically. **fixed**: they stay as they are in the "
            "unstrained structure. **both**: compute and compare."
        ),
        show_default="relaxed",
        rich_help_panel=opt.MOMENTS,
    ),
]
_Relax = Annotated[
    bool | None,
    typer.Option(
        "--relax/--no-relax",
        help="Relax cell, atoms and moments before straining.",
        show_default="--relax",
        rich_help_panel=opt.RELAXATION,
    ),
]
_RelaxPositions = Annotated[
    bool | None,
    typer.Option(
        "--relax-positions/--clamped-ions",
        help="Relax the atoms in the strained cells.",
        show_default="--relax-positions",
        rich_help_panel=opt.RELAXATION,
    ),
]
_Strains = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Magnitudes of the strains, separated by commas; each is applied with both signs.",
        show_default="0.005,0.01",
        rich_help_panel=opt.STRAIN,
    ),
]
_Symmetry = Annotated[
    bool | None,
    typer.Option(
        "--symmetry/--no-symmetry",
        help="Let the magnetic symmetry reduce the strains; else all six are applied.",
        show_default="--symmetry",
        rich_help_panel=opt.STRAIN,
    ),
]
_Symprec = Annotated[
    float | None,
    typer.Option(help="Tolerance of the symmetry, Å.", show_default="0.01", rich_help_panel=opt.STRAIN),
]
_StressTol = Annotated[
    float | None,
    typer.Option(
        help="Largest stress of the relaxed structure, GPa.",
        show_default="0.001",
        rich_help_panel=opt.RELAXATION,
    ),
]
_MaxSteps = Annotated[
    int | None,
    typer.Option(
        help="Largest number of steps of each relaxation.",
        show_default="1000",
        rich_help_panel=opt.RELAXATION,
    ),
]
_Fmax = Annotated[float | None, opt.fmax_option("0.0001")]
_MagforceTol = Annotated[float | None, opt.magforce_tol_option("0.00001")]


def elastic(
    paths: opt.Paths = None,
    output: opt.Output = None,
    model: opt.Model = None,
    yes: opt.Yes = None,
    config: opt.Config = None,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
    report: opt.Report = None,
    figures: opt.Figures = None,
    magmoms: _Magmoms = None,
    initial_magmoms: opt.InitialMagmoms = None,
    collinear: opt.Collinear = None,
    spin_orbit: opt.SpinOrbit = None,
    strains: _Strains = None,
    symmetry: _Symmetry = None,
    symprec: _Symprec = None,
    relax: _Relax = None,
    relax_positions: _RelaxPositions = None,
    fmax: _Fmax = None,
    stress_tol: _StressTol = None,
    magforce_tol: _MagforceTol = None,
    max_steps: _MaxSteps = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
    max_batch_atoms: opt.MaxBatchAtoms = None,
) -> None:
    """Elastic constants of every structure in PATHS, with relaxed ions, in one batch.

    Gives C_ij in GPa, stability (Born), bulk, shear and Young's modulus (Voigt–Reuss–Hill), Poisson's ratio and the
    universal anisotropy. In the folder of the run: `summary.json` (everything, pymatgen's tensor included),
    `summary.csv`, `relaxed.extxyz` (unstrained structures), `figures/`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim elastic structures/`; `mmace-sim elastic POSCAR --magmoms both`;
    `mmace-sim elastic POSCAR --no-relax --strains 0.003,0.006`.
    """
    from mmace_sim.cli.config import load_run_config

    with opt.quiet_imports():
        from mmace_sim.cli.elastic_run import ElasticConfig, run_elastic

    flags = {
        "paths": paths or None, "output": output, "model": model, "fetch_models": yes, "figures": figures,
        "magmoms": magmoms, "initial_magmoms": initial_magmoms, "collinear": collinear,
        "spin_orbit": spin_orbit or None, "strains": strains, "symmetry": symmetry, "symprec": symprec,
        "relax": relax, "relax_positions": relax_positions, "fmax": fmax, "stress_tol": stress_tol,
        "magforce_tol": magforce_tol, "max_steps": max_steps, "device": device, "dtype": dtype, "threads": threads,
        "max_batch_atoms": max_batch_atoms, "report": report,
    }  # fmt: skip
    merged = load_run_config(ElasticConfig, config, flags)
    raise typer.Exit(run_elastic(merged, force=force, quiet=quiet))
