"""One run of ``mmace-sim evaluate``: read, compare, write, show."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from mmace_sim.base.text import json_text
from mmace_sim.cli.data_run import parse_keys
from mmace_sim.cli.evaluation_tables import print_evaluation, uncertainty_table
from mmace_sim.cli.options import Switches
from mmace_sim.engine.folder import now
from mmace_sim.engine.inputs import load_run_model
from mmace_sim.engine.machine import quiet_imports
from mmace_sim.engine.output import versions, write_csv
from mmace_sim.engine.progress import progress, says_what_is_finished
from mmace_sim.engine.results import EXIT_INCOMPLETE, EXIT_OK
from mmace_sim.engine.resume import Task, kept, open_resumable
from mmace_sim.files import write_text
from mmace_sim.report import write_report
from mmace_sim.training.evaluation.settings import EvaluateSettings

if TYPE_CHECKING:
    from mmace_sim.io.frames import Frame
    from mmace_sim.model.base import MagneticModel
    from mmace_sim.training.evaluation.evaluate import Evaluation
    from mmace_sim.training.evaluation.ranking import Ranking
    from mmace_sim.training.evaluation.relaxed import RelaxedErrors

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


def run_evaluate(config: EvaluateSettings, switches: Switches) -> int:
    """Compare a model with everything that a configuration names.

    Args:
        config: The merged configuration.
        switches: What the command was told besides.

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
        from mmace_sim.training.evaluation.evaluate import evaluate_frames, require_result, supported
        from mmace_sim.training.evaluation.plan import plan_evaluation
        from mmace_sim.training.evaluation.prediction import Prediction, from_record, to_record
        from mmace_sim.training.evaluation.ranking import rank_orders

        model = load_run_model(config)
    found = read_frames([Path(path) for path in config.data], parse_keys(config.keys))
    if switches.dry_run:
        size, elements = config.batch_size, config.magforce_elements
        typer.echo(plan_evaluation(model, found, batch_size=size, magforce_elements=elements))
        typer.echo(f"Would write to {config.output}/. Nothing was written.")
        return EXIT_OK
    files = {path: file_sha256(Path(path)) for path in config.data}
    total = len(supported(model, list(enumerate(found.frames)))[0])
    task = Task("evaluate", config, Path(config.output), files, {config.model: model}, total)
    with (
        open_resumable(task, resume=switches.resume, force=switches.force) as task.manifest,
        says_what_is_finished(lambda: kept(task, total, "structures")),
    ):
        task.records = {key: record for key, record in task.records.items() if "prediction" in record}
        if config.executor is not None:
            from mmace_sim.training.evaluation.workers import predict_all

            predict_all(task, config, found.frames, quiet=switches.quiet)
        known = {int(key): from_record(record) for key, record in task.records.items()}

        def store(predictions: dict[int, Prediction | str]) -> None:
            for index, prediction in predictions.items():
                task.store(str(index), to_record(found.frames[index], prediction))

        with progress("Evaluating", len(found.frames), "structures", quiet=switches.quiet) as advance:
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
        relaxed = (
            _relaxed(model, found.frames, result, quiet=switches.quiet) if config.relax_moments else None
        )
        summary = _summary(task, files, result, ranking, relaxed)
        summary["uncertainty"] = honest = _honesty(model, found.frames, result, config)
        _write(task.folder, config, summary, result, ranking)
    if switches.as_json:
        typer.echo(json_text(summary), nl=False)
    elif not switches.quiet:
        print_evaluation(result, ranking, relaxed, task.folder)
        if honest is not None:
            Console(markup=False).print(uncertainty_table(honest))
    return EXIT_INCOMPLETE if result.problems or (relaxed and relaxed.problems) else EXIT_OK


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
