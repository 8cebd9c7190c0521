"""The page about what a loop has learned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmace_sim.report.evaluation import digits, limited_table
from mmace_sim.report.images import collect_images
from mmace_sim.report.run_facts import filled_page
from mmace_sim.report.template import HEAD, LEFT_OUT, MACROS, RUN
from mmace_sim.report.values import Table

TEMPLATE: str = (
    MACROS
    + HEAD
    + """\
</header>
<main>
<section aria-labelledby="results"><h2 id="results">Learning curve</h2>
<p>Ended: {{ reason }}.</p>
{% if common %}{{ figures(common) }}{% endif %}
{{ table(rounds) }}
</section>
<section aria-labelledby="bad"><h2 id="bad">Where the model is still bad</h2>
{% for t in bad %}{{ table(t) }}{% endfor %}
</section>
<section aria-labelledby="cost"><h2 id="cost">What was computed</h2>{{ table(computed) }}</section>
"""
    + LEFT_OUT
    + RUN
)
"""The page."""

_ERRORS = {
    "energy": "E\n(meV/atom)",
    "forces": "F\n(meV/Å)",
    "stress": "stress\n(meV/Å³)",
    "magforces": "H\n(meV/μB)",
}


def render_learning(folder: Path, summary: dict[str, Any], max_bytes: int) -> str:
    """The page of a run of ``mmace-sim learn``.

    Args:
        folder: Folder of the run.
        summary: Its ``summary.json``.
        max_bytes: Size that figures may not exceed.

    Returns:
        HTML.
    """
    last = summary["rounds"][-1] if summary["rounds"] else {}
    return filled_page(
        TEMPLATE,
        folder,
        summary,
        f"{last.get('n_calculations', 0)} calculations, {len(summary['rounds'])} rounds",
        reason=summary["reason"],
        common=collect_images(folder, [], max_bytes).common,
        rounds=_rounds(summary["rounds"]),
        bad=_bad(last),
        computed=_computed(summary["computed"]),
        problems=summary["problems"],
    )


def _rounds(rounds: list[dict[str, Any]]) -> Table:
    header = ["round", "calculations", "failed", "trained on", "CPU h", *_ERRORS.values(), "not inside\n(%)"]
    rows = [
        [
            *(str(r[key]) for key in ("index", "n_calculations", "n_failed", "n_training")), f"{r['cpu_hours']:.2f}",
            *(digits(r["errors"].get(label)) for label in _ERRORS),
            digits(None if r["outside"] is None else 100 * r["outside"]),
        ]
        for r in rounds
    ]  # fmt: skip
    caption = "Mean absolute errors on the test; H = −∂E/∂m. Candidates that are not inside of the domain of the model"
    return limited_table(caption, header, rows, [True] * len(header))


def _bad(last: Mapping[str, Any]) -> list[Table]:
    by_kind, worst = last.get("by_kind", {}), last.get("worst", {})
    rows = [[kind, *(digits(errors.get(label)) for label in _ERRORS)] for kind, errors in by_kind.items()]
    tables = [
        limited_table(
            "Mean absolute errors on the test", ["kind", *_ERRORS.values()], rows, [False] + [True] * 4
        )
    ]
    rows = [[kind, digits(value)] for kind, value in worst.items()]
    caption = "Kinds of candidates that the model is least sure of: uncertainties over their medians"
    return [*tables, Table(caption, ["kind", "uncertainty"], rows, [False, True])]


def _computed(computed: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [
        [kind, str(int(c["finished"])), str(int(c["failed"])), f"{c['cpu_s'] / 3600:.2f}"]
        for kind, c in computed.items()
    ]
    return limited_table("By kind, the test included", ["kind", "finished", "failed", "CPU h"], rows,
                         [False, True, True, True])  # fmt: skip
