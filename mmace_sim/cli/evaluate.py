"""``mmace-sim evaluate``: errors of a model on labelled structures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmace_sim.cli import options

if TYPE_CHECKING:
    from mmace_sim.training.evaluate import Evaluation

EXIT_INCOMPLETE = 3


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model: a name (see `mmace-sim models`) or a file.")
    ],
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...",
            help="Files with moments REF_magmom and labels REF_energy, REF_forces, REF_stress, REF_magforces.",
        ),
    ],
    output: options.Output = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Structures per batch.")] = 16,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw parity plots.")] = True,
    device: options.Device = None,
    dtype: options.Dtype = None,
    threads: options.Threads = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare a model with reference labels: energy, forces, stress and magnetic forces.

    Writes `summary.json` (MAE and RMSE, overall and per config_type), `config.yaml`, `log.txt` and parity plots
    (`parity_*.png`, `.svg`) to one folder. Labels that a structure does not have are left out.
    Structures without moments or with elements that the model does not know are reported, and the exit code is 3.
    """
    from mmace_sim.cli.run_dir import log_to, prepare_folder

    settings: dict[str, Any] = {
        "model": model,
        "data": [str(path) for path in data],
        "batch_size": batch_size,
        "device": device or "auto",
        "dtype": dtype or "float64",
        "threads": threads,
    }
    loaded = _load(settings)
    folder = Path(output or "evaluate")
    prepare_folder(folder, resume=False, force=force)
    _write_config(folder / "config.yaml", settings)
    with log_to(folder / "log.txt"):
        result = _run(loaded, folder, settings, plots=plots)
    if not quiet:
        _report(result, folder)
    if result.problems:
        raise typer.Exit(EXIT_INCOMPLETE)


def _write_config(path: Path, settings: dict[str, Any]) -> None:
    import yaml

    from mmace_sim.workflows.output import write_text

    write_text(path, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def _load(settings: dict[str, Any]) -> Any:
    """The model on its device."""
    from mmace_sim.cli.options import pick_device, quiet_imports
    from mmace_sim.errors import UnsupportedOptionError

    with quiet_imports():
        import torch

        from mmace_sim.model.checkpoint import load_model
    precisions = {"float64": torch.float64, "float32": torch.float32}
    if settings["dtype"] not in precisions:
        raise UnsupportedOptionError(f"dtype {settings['dtype']!r} is unknown; choose float64 or float32")
    target = pick_device(settings["device"], settings["threads"])
    with quiet_imports():
        return load_model(settings["model"], device=target, dtype=precisions[settings["dtype"]])


def _run(loaded: Any, folder: Path, settings: dict[str, Any], *, plots: bool) -> "Evaluation":
    import logging

    from mmace_sim.cli.options import quiet_imports

    with quiet_imports():
        from mmace_sim.training.evaluate import evaluate_files, save_evaluation
        from mmace_sim.training.metrics import error_line
        from mmace_sim.training.parity import save_parity_plots
    files = [Path(path) for path in settings["data"]]
    result = evaluate_files(loaded, files, batch_size=settings["batch_size"])
    log = logging.getLogger(__name__)
    log.info("%d structures, MAE: %s", result.n_structures, error_line(result.overall))
    for problem in result.problems:
        log.warning("skipped %s", problem)
    if plots:
        save_parity_plots(result, folder)
    save_evaluation(result, folder / "summary.json", model=settings["model"], files=files)
    return result


def _report(result: "Evaluation", folder: Path) -> None:
    from rich.console import Console

    console = Console()
    console.print(error_table(result))
    for problem in result.problems[:10]:
        console.print(f"[yellow]skipped[/yellow] {problem}", highlight=False)
    if len(result.problems) > 10:
        console.print(f"... and {len(result.problems) - 10} more, see {folder / 'log.txt'}")
    console.print(f"{result.n_structures} structures evaluated, {len(result.problems)} skipped; see {folder}")


def error_table(result: "Evaluation") -> Any:
    """MAE and RMSE of every label, per config_type and overall, as a rich table.

    Args:
        result: Errors of a model.

    Returns:
        The table.
    """
    from rich.table import Table

    from mmace_sim.training.metrics import UNITS

    labels = list(result.overall)
    table = Table("config_type", title="MAE / RMSE")
    for label in labels:
        table.add_column(f"{label}\n{UNITS[label]}", justify="right")
    rows = [*result.by_config_type.items(), ("all", result.overall)]
    for k, (name, errors) in enumerate(rows):
        cells = [f"{errors[x].mae:.1f} / {errors[x].rmse:.1f}" if x in errors else "–" for x in labels]
        table.add_row(name, *cells, style="bold" if name == "all" else None, end_section=k == len(rows) - 2)
    return table
