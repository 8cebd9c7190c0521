"""Tables of ``mmace-sim evaluate``: errors by group, of magnetic forces, at relaxed moments, and of uncertainties."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from mmace_sim.cli.options import wide_console
from mmace_sim.training.evaluation.errors import UNITS as RELAXED_UNITS
from mmace_sim.training.evaluation.metrics import UNITS
from mmace_sim.training.evaluation.plan import MAX_PROBLEMS

if TYPE_CHECKING:
    from mmace_sim.training.evaluation.evaluate import Evaluation
    from mmace_sim.training.evaluation.ranking import Ranking
    from mmace_sim.training.evaluation.relaxed import RelaxedErrors


def print_evaluation(
    result: "Evaluation", ranking: "Ranking", relaxed: "RelaxedErrors | None", folder: Path
) -> None:
    """Print everything that an evaluation found.

    Args:
        result: Errors of a model.
        ranking: How it orders magnetic states.
        relaxed: Errors at relaxed moments, if they were asked for.
        folder: Where it was written.
    """
    console = wide_console(140)
    tables = [error_table(result)]
    tables += [error_table(result, by="order")] if len(result.by_order) > 1 else []
    tables += [error_table(result, by="element")] if len(result.by_element) > 1 else []
    tables += [_derived_table(result)] if "torque" in result.derived else []
    tables += [_relaxed_table(relaxed)] if relaxed else []
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


def _relaxed_table(relaxed: "RelaxedErrors") -> Table:
    """Errors at relaxed moments, one line for each config_type."""
    labels = list(relaxed.overall)
    headings = [f"{label.replace('_', ' ')}\n{RELAXED_UNITS[label]}" for label in labels]
    table = Table("config_type", *headings, title="MAE / RMSE at relaxed moments")
    for name, errors in [*relaxed.by_config_type.items(), ("all", relaxed.overall)]:
        cells = [f"{errors[x].mae:.1f} / {errors[x].rmse:.1f}" if x in errors else "–" for x in labels]
        table.add_row(Text(name), *cells, style="bold" if name == "all" else None)
    return table


def _derived_table(result: "Evaluation") -> Table:
    """Errors of length, direction and torque of magnetic forces."""
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


def error_table(result: "Evaluation", *, by: str = "config_type") -> Table:
    """MAE and RMSE of every label, per group and overall, as a rich table.

    Args:
        result: Errors of a model.
        by: "config_type", "order" or "element".

    Returns:
        The table.
    """
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
