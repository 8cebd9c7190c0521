"""A run of the loop: its folder, its log, its summary, its figures and its page."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmace_sim.base.text import json_text
from mmace_sim.data.learn.figures import save_curve_figure
from mmace_sim.data.learn.loop import CURVE, Learning
from mmace_sim.data.learn.rounds import Round, curve_units
from mmace_sim.data.learn.settings import LearnSettings
from mmace_sim.engine.folder import now
from mmace_sim.engine.journal import fingerprint
from mmace_sim.engine.output import versions
from mmace_sim.engine.progress import says_what_is_finished
from mmace_sim.engine.resume import Task, open_resumable
from mmace_sim.errors import ConfigError
from mmace_sim.files import replacing, write_text
from mmace_sim.report import write_report

_log = logging.getLogger(__name__)

MODEL_FILE = "model.safetensors"
MAY_DIFFER: frozenset[str] = frozenset(
    {"output", "max_calculations", "max_hours", "label.executor", "label.timeout"}
)
"""Settings that may differ when a run is resumed: a larger budget goes on with it."""


@dataclass
class LearnOutcome:
    """What was learned.

    Attributes:
        folder: Folder of the run.
        model: The model file; None if there is none.
        rounds: The rounds.
        reason: Why it ended.
        problems: What could not be used.
        summary: Content of ``summary.json``.
    """

    folder: Path
    model: Path | None
    rounds: list[Round]
    reason: str
    problems: list[str]
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether everything could be used, and every batch was trained on."""
        return not self.problems and all(record.trusted for record in self.rounds)


def learn(
    settings: LearnSettings,
    *,
    resume: bool = False,
    force: bool = False,
    tell: Callable[[str], None] = lambda _text: None,
) -> LearnOutcome:
    """Propose, select, label and train until the model knows enough or the budget is spent.

    Args:
        settings: Everything.
        resume: Go on with an earlier run in the same folder; nothing is computed twice, and the budget may be larger.
        force: Overwrite an earlier run in the same folder.
        tell: Told what begins and how each round ended.

    Returns:
        The model and how it came about.

    Raises:
        ConfigError: If no structure is named, or the engine cannot work as it is set up.
        DataError: If there is nothing to learn from.
        OutputError: If the folder cannot be used.
    """
    if not (settings.propose.paths or settings.structures or settings.candidates):
        raise ConfigError(
            "name structures to learn from: --structures PATH, or `structures` in the configuration (or candidates of "
            "your own: --candidates FILE)."
        )
    if settings.max_calculations < settings.test + 2:
        raise ConfigError(
            f"max_calculations {settings.max_calculations} leave nothing to learn from beside the {settings.test} of "
            "the test. Raise it, or lower --test."
        )
    folder = Path(settings.output)
    learning = Learning(settings, folder, resumed=resume)
    identities = {name: fingerprint(atoms) for name, atoms in learning.parents.items()}
    task = Task("learn", settings, folder, identities)

    def told(text: str) -> None:
        _log.info("%s", text)
        tell(text)

    learning.tell = told
    with open_resumable(task, resume=resume, force=force, may_differ=MAY_DIFFER) as task.manifest:
        task.manifest.begin()
        with says_what_is_finished(lambda: _kept(learning)):
            reason = learning.run()
        told(reason)
        return _concluded(learning, reason, task.created)


def _kept(learning: Learning) -> str:
    return (
        f"{len(learning.rounds)} rounds are finished, and every finished calculation is safe in {learning.folder}: run "
        "the same command with --resume to go on."
    )


def _concluded(learning: Learning, reason: str, created: str) -> LearnOutcome:
    folder, rounds = learning.folder, learning.rounds
    model = learning.model
    if model is not None:
        with replacing(folder / MODEL_FILE) as file:
            file.write_bytes(model.read_bytes())
        model = folder / MODEL_FILE
    outcome = LearnOutcome(folder, model, rounds, reason, learning.problems)
    outcome.summary = {
        "command": "learn",
        "created": created,
        "finished": now(),
        "versions": versions(),
        "units": curve_units(),
        "config": learning.settings.model_dump(mode="json"),
        "reason": reason,
        "model": {"name": "none" if model is None else model.name},
        "computed": learning.computed,
        "rounds": [record.as_dict() for record in rounds],
        "problems": learning.problems,
    }
    write_text(folder / "summary.json", json_text(outcome.summary))
    (folder / "figures").mkdir(exist_ok=True)
    save_curve_figure(rounds, folder / "figures" / Path(CURVE).stem)
    write_report(folder)
    return outcome
