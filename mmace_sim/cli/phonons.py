"""``mmace-sim phonons``: phonons of many magnetic crystals, all displacements in one batch."""

from typing import Annotated

import typer

from mmace_sim.cli import options as opt

PHONONS = "Phonons"

_Relax = Annotated[
    bool | None,
    typer.Option(
        "--relax/--no-relax",
        help="Relax positions, cell and moments first.",
        show_default="--relax",
        rich_help_panel=opt.RELAXATION,
    ),
]
_MinLength = Annotated[
    float | None,
    typer.Option(
        help="Smallest distance between an atom and its images in the supercell, Å.",
        show_default="10",
        rich_help_panel=PHONONS,
    ),
]
_Supercell = Annotated[
    str | None,
    typer.Option(
        metavar='"N N N"',
        help="Multiples of the cell vectors instead (one or three), or nine integers as in phonopy's DIM.",
        show_default=False,
        rich_help_panel=PHONONS,
    ),
]
_Displacement = Annotated[
    float | None,
    typer.Option(
        help="Length of the displacements, Å; 0.03 with float32.",
        show_default="0.01",
        rich_help_panel=PHONONS,
    ),
]
_Symprec = Annotated[
    float | None,
    typer.Option(
        help="Tolerance of symmetry, Å for positions and μB for moments.",
        show_default="0.001",
        rich_help_panel=PHONONS,
    ),
]
_Plots = Annotated[
    bool,
    typer.Option("--plots/--no-plots", help="Draw bands and density of states.", rich_help_panel=opt.RUN),
]
_Write = Annotated[
    list[str] | None,
    typer.Option(
        metavar="force_sets|force_constants",
        help="Write phonopy's FORCE_SETS or FORCE_CONSTANTS too (may be repeated).",
        show_default=False,
        rich_help_panel=opt.RUN,
    ),
]


def phonons(
    paths: opt.Paths = None,
    output: opt.Output = None,
    model: opt.Model = None,
    yes: opt.Yes = None,
    write: _Write = None,
    plots: _Plots = True,
    config: opt.Config = None,
    resume: opt.Resume = False,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
    report: opt.Report = None,
    min_length: _MinLength = None,
    supercell: _Supercell = None,
    displacement: _Displacement = None,
    symprec: _Symprec = None,
    magmoms: opt.PointMagmoms = None,
    initial_magmoms: opt.InitialMagmoms = None,
    spin_orbit: opt.SpinOrbit = None,
    relax: _Relax = None,
    fmax: Annotated[float | None, opt.fmax_option("0.001")] = None,
    magforce_tol: Annotated[float | None, opt.magforce_tol_option("1e-5")] = None,
    max_steps: opt.MaxSteps = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
    max_batch_atoms: opt.MaxBatchAtoms = None,
) -> None:
    """Compute the phonons of every crystal in PATHS, with all displacements of all crystals in one batch.

    Displacements are phonopy's, reduced by the symmetry of the crystal with its moments. With relaxed moments the
    frequencies at frozen moments are computed too, drawn in the same figure, and their difference is reported.

    Each crystal has a folder with `phonopy_params.yaml`, `band.yaml`, `total_dos.dat`, `thermal_properties.yaml`
    and `bands.png`. `summary.json` and `summary.csv` hold frequencies, imaginary modes, free energies, moments and
    statuses; `relaxed.extxyz` the crystals.

    Examples: `mmace-sim phonons structures/`; `mmace-sim phonons bcc.cif --supercell "4 4 4" --magmoms fixed`;
    `mmace-sim phonons relax/ --no-relax -o ph`.
    """
    from mmace_sim.cli.config import load_run_config
    from mmace_sim.cli.phonons_config import PhononsConfig

    flags = {
        "paths": paths or None, "output": output, "model": model, "fetch_models": yes, "write": write or None,
        "min_length": min_length, "supercell": supercell, "displacement": displacement, "symprec": symprec,
        "magmoms": magmoms, "initial_magmoms": initial_magmoms, "spin_orbit": spin_orbit or None, "relax": relax,
        "fmax": fmax, "magforce_tol": magforce_tol, "max_steps": max_steps, "device": device, "dtype": dtype,
        "threads": threads, "max_batch_atoms": max_batch_atoms, "report": report,
    }  # fmt: skip
    merged = load_run_config(PhononsConfig, config, flags)
    with opt.quiet_imports():
        from mmace_sim.cli.phonons_run import run_phonons
    raise typer.Exit(run_phonons(merged, plots=plots, resume=resume, force=force, quiet=quiet))
