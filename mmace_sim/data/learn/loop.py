"""The loop itself; every stage is a file, so that a killed run goes on where it was."""

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mmace_sim.base.text import json_text
from mmace_sim.data.candidates import ID, TYPE, Distinct, candidate, load_candidates, named, refusal
from mmace_sim.data.label.batch import LABELLED
from mmace_sim.data.label.calculation import make_calculations
from mmace_sim.data.label.engine import BatchEngine, Engine, MissingProgramError, load_engine, refusals
from mmace_sim.data.label.run import label
from mmace_sim.data.learn.rounds import Round, measure, write_curve
from mmace_sim.data.learn.settings import LearnSettings
from mmace_sim.data.learn.training import train_round
from mmace_sim.data.propose import Proposal, propose, read_parents
from mmace_sim.data.select import Scores, random_choice, score, select
from mmace_sim.data.settings import ProposeSettings
from mmace_sim.errors import ConfigError, DataError, UncalibratedModelError
from mmace_sim.files import write_text
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.io.frames import Frame, read_frames
from mmace_sim.io.writing import write_extxyz
from mmace_sim.model.checkpoint import load_model
from mmace_sim.training.evaluation.evaluate import evaluate_frames
from mmace_sim.training.evaluation.metrics import UNITS, LabelError

_log = logging.getLogger(__name__)

CANDIDATES = "candidates.extxyz"
CHOSEN = "chosen.extxyz"
PROPOSED = "proposed.extxyz"
RECORD = "round.json"
TEST = "test"
CURVE = "curve.csv"

_SNAPSHOTS = ("md", "relax")
_MAX_UNTRUSTED = 2

Tell = Callable[[str], None]


@dataclass
class _Labels:
    """Labels of some candidates.

    Attributes:
        files: Where they are, those that can be trained on.
        n_failed: Candidates without.
        trusted: Whether `data check` found no error.
        findings: What it found.
    """

    files: list[Path] = field(default_factory=list)
    n_failed: int = 0
    trusted: bool = True
    findings: list[str] = field(default_factory=list)


@dataclass
class Learning:
    """The loop of one run.

    Attributes:
        settings: Everything.
        folder: Folder of the run, which exists.
        tell: Told what begins, in words.
        rounds: What is finished.
        problems: Structures and candidates that could not be used.
        model: The model of the last round.
        parents: Structures with moments, by short names.
        resumed: Whether it goes on with an earlier run.
        computed: For each kind of candidates the numbers of "finished" and "failed" calculations, and "cpu_s".

    Raises:
        DataError: If there is no structure.
    """

    settings: LearnSettings
    folder: Path
    tell: Tell = print
    rounds: list[Round] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    model: Path | None = None
    parents: dict[str, Atoms] = field(default_factory=dict)
    resumed: bool = False
    computed: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.settings.structures or self.settings.propose.paths:
            self.parents, problems = read_parents(self._proposing)
            self.problems += problems

    def run(self) -> str:
        """Go on until there is a reason to stop.

        Raises:
            DataError: If there is nothing to learn from: no structure, no candidate, no calculation that worked.
        """
        self._known = {str(f.atoms.info.get(ID)): f.atoms for f in self._frames_of(self.settings.labels)}
        pool, test_ids = self._first_pool()
        self._cpu, self._n_calculations = 0.0, 0
        self._training = [Path(file) for file in self.settings.known]
        self._test_candidates = test = [atoms for atoms in pool if atoms.info[ID] in test_ids]
        self.tell(f"{len(pool)} candidates; {len(test)} of them are the test")
        labelled = self._label(self.folder / TEST, test)
        self._test = read_frames(labelled.files).frames if labelled.files else []
        if test and not self._test:
            told = "; ".join(labelled.findings) or "all calculations failed"
            raise DataError(f"the test cannot be used: {told}. See {self.folder / TEST}/summary.json.")
        if labelled.n_failed:
            self.problems.append(f"{labelled.n_failed} calculations of the test failed")
        self._pool = [atoms for atoms in pool if atoms.info[ID] not in test_ids]
        self._taken: set[str] = set()
        self._exhausted = False
        while not (reason := self._reason_to_stop()):
            self.model = self._round(len(self.rounds), self.model)
        return reason

    def _frames_of(self, files: Sequence[str]) -> list[Frame]:
        return read_frames([Path(file) for file in files]).frames if files else []

    @cached_property
    def _engine(self) -> Engine | BatchEngine:
        """What computes."""
        try:
            return load_engine(self.settings.label)
        except MissingProgramError as error:
            raise ConfigError(
                f"{str(error).partition(':')[0]}: no such program here. The loop starts every calculation itself: say "
                "with --command how, and with --executor CLUSTER.yaml on which cluster. Or go its way by hand: data "
                "propose, data select, label --write-only, label --collect, train (docs/learn.md)."
            ) from error

    @cached_property
    def _proposing(self) -> ProposeSettings:
        """Settings of the proposals: those of the section, with the structures and what the engine can do."""
        settings = self.settings
        update: dict[str, Any] = {
            "paths": [*settings.propose.paths, *settings.structures],
            "seed": settings.seed,
        }
        if not settings.propose.collinear and self._engine_is_collinear():
            update["collinear"] = True
            _log.info("%s: collinear states only, candidates are made so", settings.label.engine)
        return settings.propose.model_copy(update=update)

    def _engine_is_collinear(self) -> bool:
        """Whether the engine refuses moments that do not lie along one axis."""
        canted = Atoms("Fe2", positions=[[0, 0, 0], [1.4, 1.4, 1.4]], cell=[2.8] * 3, pbc=True)
        canted = candidate(canted, np.array([[0, 0, 2.0], [2.0, 0, 0]]), hold=True)
        straight = candidate(canted, np.array([[0, 0, 2.0], [0, 0, 2.0]]), hold=True)
        probes = [named(canted, "probe", "canted"), named(straight, "probe", "straight")]
        calculations, _ = make_calculations(probes, self.settings.label)
        refused = refusals(self._engine, calculations)
        return [failure.index for failure in refused] == [0]

    def _first_pool(self) -> tuple[list[Atoms], set[str]]:
        """Candidates of the recipes and the structures themselves, and the names of those for the test."""
        file = self.folder / CANDIDATES
        if not file.exists():
            distinct = Distinct()
            starts = [
                named(candidate(atoms, get_magmoms(atoms), hold=False), name, "start")
                for name, atoms in self.parents.items()
            ]
            own, problems = (
                load_candidates(self.settings.candidates) if self.settings.candidates else ([], [])
            )
            self.problems += problems
            given = [atoms for atoms in [*starts, *own] if distinct.is_new(atoms)]
            made = propose(self.parents, self._proposing, distinct=distinct) if self.parents else Proposal()
            self.problems += made.problems
            write_extxyz(file, self._computable([*given, *made.candidates]))
        known = {str(f.atoms.info.get(ID)) for f in self._frames_of(self.settings.known)}
        pool = [atoms for atoms in load_candidates([file])[0] if atoms.info[ID] not in known]
        others = [atoms.info[ID] for atoms in pool if not str(atoms.info[TYPE]).endswith("-start")]
        order = np.random.default_rng([self.settings.seed, len(others)]).permutation(len(others))
        n_test = min(self.settings.test, len(others) // 3)
        return pool, {others[k] for k in order[:n_test]}

    def _computable(self, candidates: Sequence[Atoms]) -> list[Atoms]:
        """Candidates that have labels or that the engine does not refuse."""
        unknown = [atoms for atoms in candidates if atoms.info[ID] not in self._known]
        calculations, failures = make_calculations(unknown, self.settings.label)
        failures += refusals(self._engine, calculations) if calculations else []
        refused = {failure.config_id: failure.reason for failure in failures}
        for name, reason in refused.items():
            _log.info("%s: left out, %s", name, reason)
        left = [atoms for atoms in candidates if atoms.info[ID] not in refused and not refusal(atoms)]
        if not left:
            told = next(iter(refused.values()), "there is none")
            raise DataError(f"the engine {self.settings.label.engine} can compute no candidate: {told}.")
        return left

    def _reason_to_stop(self) -> str:
        """Why no round begins, or ""."""
        settings, rounds = self.settings, self.rounds
        if rounds and rounds[-1].enough(settings):
            return "the model knows enough: its uncertainties and its errors are below the limits"
        if len(rounds) >= _MAX_UNTRUSTED and not any(r.trusted for r in rounds[-_MAX_UNTRUSTED:]):
            return f"{_MAX_UNTRUSTED} batches in a row must not be trained on; see data check in their summary.json"
        if self._n_calculations >= settings.max_calculations:
            return f"the budget of {settings.max_calculations} calculations is spent"
        if settings.max_hours is not None and self._cpu / 3600 >= settings.max_hours:
            return f"the budget of {settings.max_hours:g} CPU hours is spent"
        if self._exhausted:
            return "no candidate is left"
        return ""

    def _round(self, index: int, model: Path | None) -> Path | None:
        """One round; returns the model that it ends with."""
        folder = self.folder / "rounds" / f"{index:02d}"
        (folder / "train").mkdir(parents=True, exist_ok=True)
        record = Round(index)
        chosen = self._choose(folder, model, record)
        if not chosen:
            self._exhausted = True
            return model
        self.tell(f"round {index}: {len(chosen)} calculations")
        found = self._label(folder / "label", chosen)
        record.n_failed, record.trusted, record.findings = found.n_failed, found.trusted, found.findings
        self._training += found.files
        if not found.trusted:
            told = "; ".join(found.findings) or "all calculations failed"
            self.problems.append(f"round {index}: its labels are not trained on: {told}")
        record.n_chosen = len(chosen)
        record.n_calculations, record.cpu_hours = self._n_calculations, self._cpu / 3600
        if found.files:
            self.tell(f"round {index}: training")
            model, record.n_training, record.train_seconds = train_round(
                self.settings, folder / "train", self._training, model
            )
            self._measure(folder, model, record)
        self.rounds.append(record)
        write_curve(self.folder / CURVE, self.rounds)
        self.tell(_told(record))
        return model

    def _choose(self, folder: Path, model: Path | None, record: Round) -> list[Atoms]:
        """Candidates of a round; those of an earlier run if it came so far."""
        if (
            model is not None
            and self.parents
            and self.settings.fresh
            and self.settings.choose == "informative"
        ):
            self._pool += self._fresh(folder, model)
        left = [atoms for atoms in self._pool if atoms.info[ID] not in self._taken]
        record.n_candidates = len(left)
        file = folder / CHOSEN
        if not file.exists():
            write_extxyz(file, self._selected(left, model, record.index))
        chosen = load_candidates([file])[0] if file.stat().st_size else []
        self._taken |= {atoms.info[ID] for atoms in chosen}
        return chosen

    def _fresh(self, folder: Path, model: Path) -> list[Atoms]:
        """Candidates that the model leads to."""
        file = folder / PROPOSED
        if not file.exists():
            distinct = Distinct()
            for atoms in (*self._pool, *self._test_candidates):
                distinct.is_new(atoms)
            settings = self._proposing.model_copy(
                update={
                    "recipe": [f"{name}:{self.settings.fresh}" for name in _SNAPSHOTS],
                    "model": str(model),
                    "seed": self.settings.seed + 1 + len(self.rounds),
                }
            )
            made = propose(self.parents, settings, distinct=distinct).candidates
            try:
                made = self._computable(made)
            except DataError:
                made = []
            write_extxyz(file, made)
        return load_candidates([file])[0] if file.stat().st_size else []

    def _selected(self, left: list[Atoms], model: Path | None, index: int) -> list[Atoms]:
        """What a round computes: its share of the budget, first of all the structures themselves."""
        settings = self.settings
        starts = [atoms for atoms in left if str(atoms.info[TYPE]).endswith("-start")]
        others = [atoms for atoms in left if not str(atoms.info[TYPE]).endswith("-start")]
        budget = settings.max_calculations - self._n_calculations
        count = min(settings.first if index == 0 else settings.batch, max(budget - len(starts), 0))
        known = None if model is None or settings.choose != "informative" else load_model(model)
        if settings.choose == "random":
            indices = random_choice(others, count, settings.seed + index)
        elif known is None or known.uncertainty is None:
            indices = self._varied(others, count)
        else:
            indices = [choice.index for choice in select(others, count, score(others, known))]
        return [*starts, *(others[k] for k in indices)][: max(budget, 0)]

    def _varied(self, others: list[Atoms], count: int) -> list[int]:
        """Candidates unlike one another and unlike those that were taken."""
        taken = [atoms for atoms in self._pool if atoms.info[ID] in self._taken]
        both = [*taken, *others]
        chosen = select(both, count, score(both, None), taken=range(len(taken)))
        return [choice.index - len(taken) for choice in chosen]

    def _label(self, folder: Path, chosen: Sequence[Atoms]) -> _Labels:
        """Labels of candidates; those that another run has are not computed again."""
        known = [self._known[atoms.info[ID]] for atoms in chosen if atoms.info[ID] in self._known]
        missing = [atoms for atoms in chosen if atoms.info[ID] not in self._known]
        found = _Labels()
        if known:
            write_extxyz(folder.with_suffix(".extxyz"), known)
            found.files.append(folder.with_suffix(".extxyz"))
            self._cpu += sum(float(atoms.info.get("cpu_s", 0.0)) for atoms in known)
        if missing:
            settings = self.settings.label.model_copy(update={"output": str(folder), "candidates": []})
            begun = self.resumed and (folder / "finished.jsonl").is_file()
            outcome = label(settings, missing, resume=begun, force=folder.is_dir() and not begun)
            found.n_failed = len(missing) - len(outcome.frames)
            found.trusted = outcome.trainable
            found.findings = [f["message"] for f in outcome.findings if f["severity"] in ("error", "warning")]
            self._cpu += outcome.cpu_seconds
            if outcome.trainable:
                found.files.append(folder / LABELLED)
        self._n_calculations += len(chosen)
        self._count(chosen, known, outcome.summary["structures"] if missing else ())
        return found

    def _count(
        self, chosen: Sequence[Atoms], known: Sequence[Atoms], entries: Sequence[Mapping[str, Any]]
    ) -> None:
        """What was computed, by kind: frames of another run, and entries of a batch; failures cost time, too."""
        costs = {str(atoms.info[ID]): float(atoms.info.get("cpu_s", 0.0)) for atoms in known}
        costs |= {entry["config_id"]: float(entry.get("cpu_s", 0.0)) for entry in entries}
        finished = {str(atoms.info[ID]) for atoms in known}
        finished |= {entry["config_id"] for entry in entries if entry["status"] == "finished"}
        for atoms in chosen:
            counts = self.computed.setdefault(
                str(atoms.info[TYPE]), {"finished": 0, "failed": 0, "cpu_s": 0.0}
            )
            counts["finished" if atoms.info[ID] in finished else "failed"] += 1
            counts["cpu_s"] += costs.get(str(atoms.info[ID]), 0.0)

    def _measure(self, folder: Path, path: Path, record: Round) -> None:
        """Errors on the test and uncertainties over the candidates; kept, so that they are not computed twice."""
        file = folder / RECORD
        if file.exists():
            stored = Round.of(json.loads(file.read_text()))
            for name in ("errors", "rmse", "by_kind", "uncertainty", "outside", "worst"):
                setattr(record, name, getattr(stored, name))
            return
        model = load_model(path)
        if self._test:
            found = evaluate_frames(model, self._test)
            record.errors = _maes(found.overall)
            record.by_kind = {kind: _maes(errors) for kind, errors in found.by_config_type.items()}
            record.rmse = {
                name: error.rmse for name, error in found.overall.items() if math.isfinite(error.rmse)
            }
        left = [atoms for atoms in self._pool if atoms.info[ID] not in self._taken]
        try:
            scores: Scores | None = score(left, model)
        except UncalibratedModelError:
            scores = None
        if scores is not None:
            measure(record, scores, [str(atoms.info[TYPE]) for atoms in left])
        write_text(file, json_text(record.as_dict()))


def _maes(errors: Mapping[str, LabelError]) -> dict[str, float]:
    return {name: error.mae for name, error in errors.items() if math.isfinite(error.mae)}


def _told(record: Round) -> str:
    """How a round ended."""
    told = [name for name in ("energy", "forces", "magforces") if name in record.errors]
    errors = ", ".join(f"{name} {record.errors[name]:.3g} {UNITS[name]}" for name in told)
    outside = "" if record.outside is None else f"; {100 * record.outside:.0f} % of the candidates not inside"
    return (
        f"round {record.index}: {record.n_calculations} calculations, {record.cpu_hours:.2f} CPU h; "
        f"test MAE {errors or 'not known'}{outside}"
    )
