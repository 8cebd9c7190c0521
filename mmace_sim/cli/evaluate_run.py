"""One run of ``mmace-sim evaluate``: read, compare, write, show."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmace_sim.base.text import json_text
from mmace_sim.cli.data_run import parse_keys
from mmace_sim.engine.folder import now
from mmace_sim.engine.inputs import load_run_model
from mmace_sim.engine.journal import decode_array, encode_array
from mmace_sim.engine.machine import quiet_imports
from mmace_sim.engine.output import versions, write_csv
from mmace_sim.engine.progress import progress, says_what_is_finished
from mmace_sim.engine.results import EXIT_INCOMPLETE, EXIT_OK
from mmace_sim.engine.resume import Task, kept, open_resumable
from mmace_sim.executors.interface import open_executor
from mmace_sim.files import scratch, write_text
from mmace_sim.report import write_report
from mmace_sim.training.evaluation.settings import EvaluateSettings

if TYPE_CHECKING:
    from mmace_sim.io.frames import Frame
    from mmace_sim.model.base import MagneticModel
    from mmace_sim.training.evaluation.evaluate import Evaluation
    from mmace_sim.training.evaluation.ranking import Ranking
    from mmace_sim.training.evaluation.relaxed import RelaxedErrors

MAX_PROBLEMS = 10
"""Skipped structures that are shown; all are in the log."""

UNITS: dict[str, str] = {
    "mae, rmse, reference_rms": "that of the entry `unit`; of components for forces, stress, magforces and torque",
    "energy_shifts": "meV/atom, predicted minus reference, mean over a composition",
    "energy_shifted": "energy without energy_shifts",
    "magforce_length": "|H| predicted minus |H| of the reference, H = −∂E/∂m",
    "magforce_longitudinal": "along the moment: H·m/|m|",
    "magforce_transverse": "length of the error perpendicular to the moment",
    "torque": "components of m × H",
    "magforce_angle": "angle between predicted and reference H; weighted: by |H| of the reference",
    "moment_length": "|m| relaxed by the model minus |m| of the reference",
    "kept_order": "share of structures whose relaxed moments have the magnetic order of the reference",
    "spearman": "rank correlation of energies per atom, 1 is the right order; of uncertainties: of σ and error",
    "coverage": "share of errors of components within one standard deviation σ; 0.68 is right",
    "reference, prediction": "meV/atom, above the mean of the geometry",
}
"""Meaning and unit of each quantity in the summary."""

COLUMNS: tuple[str, ...] = (
    "source", "config_type", "order", "composition", "n_atoms", "energy_error", "energy_error_shifted",
    "forces_rmse", "forces_max", "stress_rmse", "stress_max", "magforces_rmse", "magforces_max",
)  # fmt: skip
"""Columns of ``structures.csv``; errors in meV/atom, meV/Å, meV/Å³ and meV/μB."""

_log = logging.getLogger(__name__)


def run_evaluate(
    config: EvaluateSettings,
    *,
    resume: bool = False,
    force: bool = False,
    quiet: bool = False,
    as_json: bool = False,
) -> int:
    """Compare a model with everything that a configuration names.

    Args:
        config: The merged configuration.
        resume: Go on with an earlier run in the same folder.
        force: Overwrite an earlier run.
        quiet: Show nothing but errors.
        as_json: Print the summary in place of the tables.

    Returns:
        Exit code: 0, or 3 if a structure was skipped.

    Raises:
        ConfigError: If a label of `keys` is unknown.
        DataError: If a file cannot be read, or nothing can be compared.
        ModelFileError: If the model cannot be loaded.
        OutputError: If the folder cannot be used.
    """
    with quiet_imports():
        from mmace_sim.io.frames import file_sha256, read_frames
        from mmace_sim.training.evaluation.evaluate import Prediction, evaluate_frames, require_result
        from mmace_sim.training.evaluation.ranking import rank_orders

        model = load_run_model(config)
    found = read_frames([Path(path) for path in config.data], parse_keys(config.keys))
    files = {path: file_sha256(Path(path)) for path in config.data}
    task = Task("evaluate", config, Path(config.output), files, {config.model: model})
    with (
        open_resumable(task, resume=resume, force=force) as task.manifest,
        says_what_is_finished(lambda: kept(task, len(found.frames), "structures")),
    ):
        known = {int(key): _read_prediction(record) for key, record in task.records.items()}

        def store(predictions: dict[int, Prediction]) -> None:
            for index, prediction in predictions.items():
                task.store(str(index), {"prediction": {k: encode_array(v) for k, v in prediction.items()}})

        if config.executor is not None:
            _predict(config, found.frames, known, store, quiet=quiet)
        with progress("Evaluating", len(found.frames), "structures", quiet=quiet) as advance:
            result = evaluate_frames(
                model,
                found.frames,
                batch_size=config.batch_size,
                magforce_elements=config.magforce_elements,
                angle_threshold=config.angle_threshold,
                on_finished=advance,
                known=known,
                on_predicted=store,
            )
        result.problems[:0] = found.problems
        require_result(result)
        ranking = rank_orders(found.frames, result.structures, geometry_tol=config.geometry_tol)
        relaxed = _relaxed(model, found.frames, result, quiet=quiet) if config.relax_moments else None
        summary = _summary(task, files, result, ranking, relaxed)
        summary["uncertainty"] = honest = _honesty(model, found.frames, result, config)
        _write(task.folder, config, summary, result, ranking)
    if as_json:
        typer.echo(json_text(summary), nl=False)
    elif not quiet:
        _print(result, ranking, relaxed, task.folder)
        if honest is not None:
            Console(markup=False).print(uncertainty_table(honest))
    return EXIT_INCOMPLETE if result.problems or (relaxed and relaxed.problems) else EXIT_OK


def _predict(
    config: EvaluateSettings,
    frames: "list[Frame]",
    known: dict[int, Any],
    store: Callable[[dict[int, Any]], None],
    *,
    quiet: bool,
) -> None:
    """Predict what is not known by workers; then it is."""
    from mmace_sim.training.evaluation.workers import predict_all

    with progress("Predicting", len(frames) - len(known), "structures", quiet=quiet) as advance:

        def take(found: dict[int, Any]) -> None:
            store(found)
            known.update(found)
            advance(len(found))

        with (
            scratch(Path(config.output).absolute()) as folder,
            open_executor(config.executor, folder) as executor,
        ):
            predict_all(executor, config, frames, dict(known), take)


def _read_prediction(record: dict[str, Any]) -> dict[str, Any]:
    return {label: decode_array(values) for label, values in record["prediction"].items()}


def _relaxed(
    model: "MagneticModel", frames: "list[Frame]", result: "Evaluation", *, quiet: bool
) -> "RelaxedErrors":
    """Errors at the moments that the model relaxes, of the structures that could be evaluated."""
    from mmace_sim.graph.atoms import set_magmoms
    from mmace_sim.properties.singlepoint import SinglePoint
    from mmace_sim.training.evaluation.relaxed import compare_relaxed

    usable = [frames[record.index] for record in result.structures]
    starts = [frame.atoms.copy() for frame in usable]
    for atoms, frame in zip(starts, usable, strict=True):
        set_magmoms(atoms, frame.magmoms)
    point = SinglePoint(model, magmoms="relaxed", device=model.device, dtype=model.dtype)
    with progress("Relaxing moments", len(usable), "structures", quiet=quiet) as advance:
        points = point.run(starts, on_finished=lambda *_: advance())
    return compare_relaxed(usable, points)


def _honesty(
    model: "MagneticModel", frames: "list[Frame]", result: "Evaluation", config: EvaluateSettings
) -> dict[str, Any] | None:
    """How honest the uncertainties of the model are on what could be evaluated; None if it has none."""
    from mmace_sim.training.calibration.files import judge_uncertainty

    if getattr(model, "uncertainty", None) is None:
        return None
    usable = [frames[record.index] for record in result.structures]
    return judge_uncertainty(model, usable, magforce_elements=config.magforce_elements)


def uncertainty_table(honest: dict[str, Any]) -> Table:
    """Coverage and rank correlation of every uncertainty, and the verdicts, as a rich table.

    Args:
        honest: From `mmace_sim.training.calibration.files.judge_uncertainty`.
    """
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in honest["domain"].items())
    table = Table("uncertainty of", title=f"Uncertainty; structures: {verdicts}")
    for heading in ("typical σ\nmeV, Å, μB", "errors\nwithin 1 σ", "rank\ncorrelation", "values"):
        table.add_column(heading, justify="right")
    for target, told in honest.items():
        if target != "domain":
            rank = "–" if told["spearman"] is None else f"{told['spearman']:.2f}"
            cells = (f"{1000 * told['median']:.3g}", f"{100 * told['coverage']:.0f} %", rank)
            table.add_row(target.replace("_", ", "), *cells, str(told["count"]))
    return table


def _summary(
    task: Task,
    files: dict[str, str],
    result: "Evaluation",
    ranking: "Ranking",
    relaxed: "RelaxedErrors | None",
) -> dict[str, Any]:
    """Content of ``summary.json``."""
    ((name, model),) = task.models.items()
    return {
        "command": "evaluate",
        "created": task.created,
        "finished": now(),
        "versions": versions(),
        "units": UNITS,
        "config": task.settings.model_dump(mode="json"),
        "model": {key: value for key, value in model.metadata.items() if key != "config"} | {"name": name},
        "files": [{"file": path, "sha256": digest} for path, digest in files.items()],
        **result.as_dict(),
        "ranking": ranking.as_dict(),
        "relaxed_moments": relaxed and relaxed.as_dict(),
    }


def _write(
    folder: Path, config: EvaluateSettings, summary: dict[str, Any], result: "Evaluation", ranking: "Ranking"
) -> None:
    from mmace_sim.training.evaluation.metrics import error_line
    from mmace_sim.training.evaluation.parity import save_evaluation_plots

    _log.info("%d structures, MAE: %s", result.n_structures, error_line(result.overall))
    for problem in result.problems:
        _log.warning("skipped %s", problem)
    shifts = result.energy_shifts
    rows = [record.row(shifts.get(record.composition)) for record in result.structures]
    write_csv(folder / "structures.csv", COLUMNS, rows)
    if config.figures:
        (folder / "figures").mkdir(exist_ok=True)
        save_evaluation_plots(result, ranking, folder / "figures")
    write_text(folder / "summary.json", json_text(summary))
    if config.report:
        write_report(folder)


def _print(result: "Evaluation", ranking: "Ranking", relaxed: "RelaxedErrors | None", folder: Path) -> None:
    console = Console(markup=False)
    tables = [error_table(result)]
    tables += [error_table(result, by="order")] if len(result.by_order) > 1 else []
    tables += [error_table(result, by="element")] if len(result.by_element) > 1 else []
    tables += [derived_table(result)] if "torque" in result.derived else []
    tables += [relaxed_table(relaxed)] if relaxed else []
    if not console.is_terminal:
        console = Console(markup=False, width=max(console.width, 140))
    for table in tables:
        console.print(table)
    rate = result.timing.as_dict()
    console.print(
        f"Time: {rate['seconds_per_structure']:.3g} s/structure, {rate['milliseconds_per_atom']:.3g} ms/atom "
        f"({rate['device']}, {rate['threads']} threads, {rate['dtype']}).",
        highlight=False,
    )
    order = ranking.as_dict()
    if order["n_pairs"]:
        rho = order["spearman_within_geometries"]
        console.print(
            f"Magnetic states of {order['n_geometries']} crystals: {100 * order['pairs_in_order']:.0f} % of "
            f"{order['n_pairs']} pairs in the right order, lowest state right for {100 * order['lowest_right']:.0f} %"
            + ("." if rho is None else f", Spearman {rho:.3f}."),
            highlight=False,
        )
    if relaxed:
        console.print(
            f"Relaxed moments: {100 * relaxed.kept_share:.0f} % of {len(relaxed.kept_order)} structures keep their "
            f"magnetic order, {len(relaxed.problems)} did not come to rest.",
            highlight=False,
        )
    for problem in result.problems[:MAX_PROBLEMS]:
        console.print(Text.assemble(("skipped", "yellow"), f" {problem}"))
    if len(result.problems) > MAX_PROBLEMS:
        console.print(
            f"... and {len(result.problems) - MAX_PROBLEMS} more, see {folder / 'log.txt'}", markup=False
        )
    console.print(
        f"{result.n_structures} structures evaluated, {len(result.problems)} skipped; see {folder}",
        markup=False,
    )


def relaxed_table(relaxed: "RelaxedErrors") -> Table:
    """Errors at relaxed moments, as a rich table.

    Args:
        relaxed: Errors of a model.

    Returns:
        The table, one line for each config_type.
    """
    from mmace_sim.training.evaluation.errors import UNITS as ERROR_UNITS

    labels = list(relaxed.overall)
    headings = [f"{label.replace('_', ' ')}\n{ERROR_UNITS[label]}" for label in labels]
    table = Table("config_type", *headings, title="MAE / RMSE at relaxed moments")
    for name, errors in [*relaxed.by_config_type.items(), ("all", relaxed.overall)]:
        cells = [f"{errors[x].mae:.1f} / {errors[x].rmse:.1f}" if x in errors else "–" for x in labels]
        table.add_row(Text(name), *cells, style="bold" if name == "all" else None)
    return table


def derived_table(result: "Evaluation") -> Table:
    """Errors of length, direction and torque of magnetic forces, as a rich table.

    Args:
        result: Errors of a model.

    Returns:
        The table.
    """
    table = Table("magnetic forces", "MAE", "RMSE", "RMS of reference", "unit", "count", title="H = −∂E/∂m")
    names = ("magforces", *(name for name in result.derived if name != "energy_shifted"))
    for name in names:
        error = (result.overall | result.derived)[name]
        rms = result.reference_rms.get(name)
        table.add_row(
            name,
            f"{error.mae:.2f}",
            f"{error.rmse:.2f}",
            "–" if rms is None else f"{rms:.2f}",
            error.unit,
            str(error.count),
        )
    return table


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

    from mmace_sim.training.evaluation.metrics import UNITS

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
