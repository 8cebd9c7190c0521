"""``mmace-sim evaluate``: errors of a model on labelled structures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmace_sim.cli import options
from mmace_sim.cli.train_options import FORMATS

if TYPE_CHECKING:
    from mmace_sim.training.evaluate import Evaluation

COMPARISON = "Comparison"

_Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL", help="Model: a name (see `mmace-sim models`) or a file.", show_default=False
    ),
]
_Data = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="DATA...",
        help=f"Files with moments and labels, REF_magmom, REF_energy, ... in extended XYZ: {FORMATS}.",
        show_default=False,
    ),
]
_Keys = Annotated[str | None, options.keys_option(COMPARISON)]
_BatchSize = Annotated[
    int | None,
    typer.Option(help="Structures per batch.", show_default="16", rich_help_panel=options.MACHINE),
]
_Elements = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Elements whose magnetic forces are labels, such as `Ni`: those that the reference constrained.",
        show_default="all",
        rich_help_panel=COMPARISON,
    ),
]
_Threshold = Annotated[
    float | None,
    typer.Option(
        help="Smallest magnetic force (eV/μB) whose direction is compared.",
        show_default="0.01",
        rich_help_panel=COMPARISON,
    ),
]
_RelaxMoments = Annotated[
    bool | None,
    typer.Option(
        "--relax-moments",
        help="Compare energies, forces and moments also at the model's own moments, relaxed at fixed atoms: for data "
        "without constrained moments.",
        show_default=False,
        rich_help_panel=COMPARISON,
    ),
]
_Tolerance = Annotated[
    float | None,
    typer.Option(
        help="Structures whose cells and positions differ by less (Å) are one crystal in different magnetic states.",
        show_default="0.01",
        rich_help_panel=COMPARISON,
    ),
]
_Report = Annotated[
    bool | None,
    typer.Option(
        "--report/--no-report",
        help="Write everything as one page, `report.html`.",
        show_default="--report",
        rich_help_panel=options.RUN,
    ),
]


def evaluate(
    model: _Model = None,
    data: _Data = None,
    output: options.Output = None,
    config: options.Config = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
    report: _Report = None,
    figures: options.Figures = None,
    keys: _Keys = None,
    magforce_elements: _Elements = None,
    angle_threshold: _Threshold = None,
    geometry_tol: _Tolerance = None,
    relax_moments: _RelaxMoments = None,
    batch_size: _BatchSize = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    threads: options.Threads = None,
) -> None:
    """Compare a model with reference labels: energy, forces, stress and magnetic forces.

    Errors overall and by config_type, magnetic order and element; energies also without a constant for each
    composition; direction and length of magnetic forces, torques; the order of energies of the magnetic states of one
    crystal; the time it took; with `--relax-moments` the errors at the moments that the model finds by itself. In the
    folder of the run: `report.html`, `summary.json`, `structures.csv` (one line for each structure), `figures/`,
    `config.yaml` and `log.txt`.

    Labels that a structure does not have are left out. Structures without moments or with elements that the model
    does not know are reported, and the exit code is 3.

    Examples: `mmace-sim evaluate default test.extxyz`;
    `mmace-sim evaluate my.safetensors NiO.extxyz --magforce-elements Ni`.
    """
    from mmace_sim.cli.config import load_config

    with options.quiet_imports():
        from mmace_sim.cli.evaluate_run import EvaluateConfig, run_evaluate

    flags = {
        "model": model, "data": [str(path) for path in data] if data else None, "output": output, "report": report,
        "figures": figures, "keys": keys, "magforce_elements": magforce_elements, "batch_size": batch_size,
        "angle_threshold": angle_threshold, "geometry_tol": geometry_tol,
        "relax_moments": relax_moments, "device": device, "dtype": dtype,
        "threads": threads,
    }  # fmt: skip
    merged = load_config(EvaluateConfig, config, flags)
    if not merged.data:
        raise typer.BadParameter(
            "name a model and at least one file with labelled structures", param_hint="MODEL DATA..."
        )
    raise typer.Exit(run_evaluate(merged, force=force, quiet=quiet))


def error_table(result: "Evaluation", *, by: str = "config_type") -> Any:
    """MAE and RMSE of every label, per group and overall, as a rich table.

    Args:
        result: Errors of a model.
        by: "config_type", "order" or "element".

    Returns:
        The table.
    """
    from rich.table import Table
    from rich.text import Text

    from mmace_sim.training.metrics import UNITS

    shift = ["energy_shifted"] if "energy_shifted" in result.derived else []
    labels = [label for x in result.overall for label in ([x, *shift] if x == "energy" else [x])]
    headings = {"energy_shifted": f"energy, shifted\n{UNITS['energy']}"}
    table = Table(by, title="MAE / RMSE")
    for label in labels:
        table.add_column(headings.get(label) or f"{label}\n{UNITS[label]}", justify="right")
    rows = [*getattr(result, f"by_{by}").items(), ("all", result.overall | result.derived)]
    for k, (name, errors) in enumerate(rows):
        cells = [f"{errors[x].mae:.1f} / {errors[x].rmse:.1f}" if x in errors else "–" for x in labels]
        table.add_row(
            Text(name), *cells, style="bold" if name == "all" else None, end_section=k == len(rows) - 2
        )
    return table
