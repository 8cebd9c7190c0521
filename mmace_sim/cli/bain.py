"""``mmace-sim bain``: energy maps over c/a and volume in several magnetic states."""

from typing import Annotated

import typer

from mmace_sim.cli import options as opt

_Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATHS]",
        help="Files and folders with tetragonal or cubic cells; without any, the cell of an element is built.",
        show_default=False,
    ),
]
_Element = Annotated[
    str | None,
    typer.Option(
        metavar="SYMBOL",
        help="Element of the cell that is built: body-centred, two atoms, the volume of the known crystal.",
        show_default="that of a model with a single one",
        rich_help_panel=opt.RUN,
    ),
]
_States = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help=(
            "Magnetic states, separated by commas. **fm**, **fm-ls**: ferromagnetic, from the high-spin or the "
            "low-spin side. **afm**: near neighbours opposite. **afmd**: double layers. **nm**: no moments. "
            "**file**: the moments of the structure. **random:SEED**."
        ),
        show_default="fm,afm,afmd,nm",
        rich_help_panel=opt.MOMENTS,
    ),
]
_RatioMin = Annotated[
    float | None, typer.Option(help="Smallest c/a.", show_default="0.85", rich_help_panel=opt.STRAIN)
]
_RatioMax = Annotated[
    float | None, typer.Option(help="Largest c/a.", show_default="1.65", rich_help_panel=opt.STRAIN)
]
_NRatios = Annotated[
    int | None, typer.Option(help="Number of c/a.", show_default="17", rich_help_panel=opt.STRAIN)
]
_VolumeMin = Annotated[float | None, opt.volume_option("Smallest", "0.84")]
_VolumeMax = Annotated[float | None, opt.volume_option("Largest", "1.12")]
_NVolumes = Annotated[
    int | None, typer.Option(help="Number of volumes.", show_default="9", rich_help_panel=opt.STRAIN)
]
_MagforceTol = Annotated[float | None, opt.magforce_tol_option("0.0001")]


def bain(
    paths: _Paths = None,
    element: _Element = None,
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
    collinear: opt.Collinear = None,
    spin_orbit: opt.SpinOrbit = None,
    ratio_min: _RatioMin = None,
    ratio_max: _RatioMax = None,
    n_ratios: _NRatios = None,
    volume_min: _VolumeMin = None,
    volume_max: _VolumeMax = None,
    n_volumes: _NVolumes = None,
    magforce_tol: _MagforceTol = None,
    max_steps: opt.MaxSteps = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    threads: opt.Threads = None,
    max_batch_atoms: opt.MaxBatchAtoms = None,
) -> None:
    """Energy over c/a and volume (the Bain path from bcc to fcc) in several magnetic states, in one batch.

    Gives maps of the energy and of the moment, and the minima of each state. In a body-centred cell of two atoms
    c/a = 1 is bcc and c/a = √2 is fcc. In the folder of the run: `summary.json` and `summary.csv` (one line for each
    minimum), `curves.csv` (every point), `figures/`, `config.yaml` and `log.txt`.

    Examples: `mmace-sim bain`; `mmace-sim bain --element Fe --states fm,nm`; `mmace-sim bain B2.cif --ratio-max 1.5`.
    """
    from mmace_sim.cli.config import load_config

    with opt.quiet_imports():
        from mmace_sim.cli.bain_run import BainConfig, run_bain

    flags = {
        "paths": paths or None, "element": element, "output": output, "model": model, "fetch_models": yes,
        "figures": figures, "states": states, "magmoms": magmoms, "collinear": collinear,
        "spin_orbit": spin_orbit or None, "ratio_min": ratio_min, "ratio_max": ratio_max, "n_ratios": n_ratios,
        "volume_min": volume_min, "volume_max": volume_max, "n_volumes": n_volumes, "magforce_tol": magforce_tol,
        "max_steps": max_steps, "device": device, "dtype": dtype, "threads": threads,
        "max_batch_atoms": max_batch_atoms, "report": report,
    }  # fmt: skip
    merged = load_config(BainConfig, config, flags)
    raise typer.Exit(run_bain(merged, force=force, quiet=quiet))
