"""A batch of candidates from the first to the last."""

from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from mmace_sim.base.settings import load_settings
from mmace_sim.data.label.batch import CANDIDATES, Batch, OnFinished
from mmace_sim.data.label.calculation import Calculation, make_calculations, read_candidates
from mmace_sim.data.label.engine import load_engine, refusals
from mmace_sim.data.label.outcome import Failure, LabelOutcome
from mmace_sim.data.label.settings import NOT_PHYSICS, LabelSettings
from mmace_sim.engine.progress import progress, says_what_is_finished
from mmace_sim.engine.resume import kept, open_resumable
from mmace_sim.errors import ConfigError
from mmace_sim.io.collection import read_structures


def label(
    settings: LabelSettings,
    candidates: Sequence[Atoms] | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    quiet: bool = True,
    on_finished: OnFinished | None = None,
) -> LabelOutcome:
    """Compute the labels of candidates, or write or collect their calculations.

    Args:
        settings: What computes, and how.
        candidates: Structures with `config_id` in ``info`` and moments; None: those of the files of the settings.
        resume: Go on with an earlier run in the same folder; what is finished is not computed again.
        force: Overwrite an earlier run in the same folder.
        quiet: Show no progress.
        on_finished: Called with each candidate as soon as it is finished, also with those of the earlier run.

    Returns:
        Frames, failures, and what `data check` says of the frames.

    Raises:
        ConfigError: If there are no candidates, or the engine cannot work as it is set up.
        DataError: If two candidates have the same name.
        OutputError: If the folder cannot be used.
    """
    unread: list[Failure] = []
    if candidates is None:
        settings, candidates, unread = _named_candidates(settings)
    engine = load_engine(settings)
    calculations, unusable = make_calculations(candidates, settings)
    batch = Batch(settings, engine, calculations, on_finished)
    batch.refuse([*unread, *unusable])
    resume, total = resume or settings.collect, len(batch.pending)
    with (
        open_resumable(batch.task, resume=resume, force=force, may_differ=NOT_PHYSICS) as manifest,
        says_what_is_finished(lambda: kept(batch.task, total, "calculations")),
    ):
        batch.task.manifest = manifest
        batch.take_up()
        with progress("Labelling", total, "structures", quiet=quiet) as advance:
            batch.write_head()
            advance(total - len(batch.pending))
            batch.run(advance)
        return batch.finish()


def preview(settings: LabelSettings) -> tuple[list[Calculation], list[Failure]]:
    """What would be computed, and which candidates cannot be; nothing is written.

    Args:
        settings: What computes, and how.
    """
    settings, candidates, unread = _named_candidates(settings)
    engine = load_engine(settings)
    calculations, unusable = make_calculations(candidates, settings)
    refused = refusals(engine, calculations)
    names = {failure.config_id for failure in refused}
    return [c for c in calculations if c.config_id not in names], [*unread, *unusable, *refused]


def _named_candidates(settings: LabelSettings) -> tuple[LabelSettings, list[Atoms], list[Failure]]:
    """Candidates of the files of the settings; when collecting without any, those of the folder and its settings."""
    folder = Path(settings.output)
    if not settings.collect or settings.candidates:
        return settings, *read_candidates(settings)
    if not (folder / CANDIDATES).is_file():
        raise ConfigError(
            f"{folder}: has no {CANDIDATES} to collect. Write calculations there with --write-only."
        )
    now_given = {"output": str(folder), "collect": True, "write_only": False, "candidates": []}
    earlier = load_settings(LabelSettings, folder / "config.yaml", now_given)
    return earlier, [item.atoms for item in read_structures(folder / CANDIDATES)], []
