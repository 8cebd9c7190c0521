"""The last act of the commands that train: whether the model can be used."""

import json
import logging
from typing import TYPE_CHECKING

import typer

from mmace_sim.cli.options import tell

if TYPE_CHECKING:
    from mmace_sim.training.config import TrainerConfig
    from mmace_sim.training.trainer import TrainResult

STABILITY_KEY: str = "stability"
"""Where the summary of a run and the metadata of its model keep the verdict."""

LONGEST: float = 45.0
"""Seconds that the relaxations may take; a tenth of the training if that is less, but at least some."""
SHORTEST: float = 3.0

_log = logging.getLogger(__name__)


def judge(result: "TrainResult", settings: "TrainerConfig") -> None:
    """Test a model that was just trained, and write the verdict into its file and the summary beside it.

    Args:
        result: The training.
        settings: Its settings; nothing happens if they say so.
    """
    from mmace_sim.base.text import json_text
    from mmace_sim.files import write_text
    from mmace_sim.model.checkpoint import save_model
    from mmace_sim.model.heads import with_heads
    from mmace_sim.quality.stability import check_stability
    from mmace_sim.training.distributed import is_main
    from mmace_sim.training.trainer import SUMMARY_FILE

    if not settings.stability_test or not is_main():
        return
    model = result.model
    several = len(model.heads) > 1
    models = {head: with_heads(model, {head: head}) if several else model for head in model.heads}
    seconds = max(SHORTEST, min(LONGEST, 0.1 * result.seconds))
    report = check_stability(models, result.examples, seconds=seconds, seed=settings.seed)
    (_log.info if report.passed else _log.warning)("%s", report.message)
    model.metadata[STABILITY_KEY] = report.as_dict()
    save_model(model, result.path)
    path = result.path.with_name(SUMMARY_FILE)
    summary = json.loads(path.read_text(encoding="utf-8")) | {STABILITY_KEY: report.as_dict()}
    write_text(path, json_text(summary, indent=2))


def report_and_exit(result: "TrainResult") -> None:
    """Say that a model must not be used, and end the program as one does whose structures failed.

    Args:
        result: The training, after `judge`.

    Raises:
        typer.Exit: If it cannot.
    """
    from mmace_sim.engine.results import EXIT_INCOMPLETE

    problems = result.model.metadata.get(STABILITY_KEY, {}).get("problems", [])
    if not problems:
        return
    text = f'Do not use it, because {"; ".join(problems)}. See docs/training.md, "When a model is refused".'
    tell(text, stderr=True)
    raise typer.Exit(EXIT_INCOMPLETE)
