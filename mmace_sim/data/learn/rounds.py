"""What is known of each round, and how the loop stands."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mmace_sim.data.learn.settings import LearnSettings
from mmace_sim.data.select import TOLD, Scores
from mmace_sim.files import write_text
from mmace_sim.model.error_sizes import max_of_systems
from mmace_sim.model.uncertainty import EDGE
from mmace_sim.training.evaluation.metrics import MILLI, UNITS

QUANTILE: float = 0.9
"""Share of the candidates whose uncertainties have to be below the limits."""

LABELS: tuple[str, ...] = ("energy", "forces", "stress", "magforces")


@dataclass
class Round:
    """One round.

    Attributes:
        index: Which; 0 is the first set.
        n_candidates: Candidates that were there to choose from.
        n_chosen: Candidates chosen.
        n_failed: Those of them without labels.
        n_training: Structures that the model was trained on.
        n_calculations: Calculations so far, those of the test and failed ones too.
        cpu_hours: CPU time of all calculations so far, in hours.
        train_seconds: Duration of the training.
        trusted: Whether `data check` found no error in the labels; others are not trained on.
        findings: What it found.
        errors: Mean absolute errors on the test, in the units of `mmace_sim.training.evaluation.metrics.UNITS`.
        rmse: The same, root mean square.
        by_kind: Mean absolute errors by the kind of the candidate.
        uncertainty: By name of `TOLD`, what nine tenths of the candidates are below, in eV.
        outside: Share of the candidates that are not inside of the domain of the model.
        worst: Kinds of candidates with the largest uncertainties, and these over their median.
    """

    index: int
    n_candidates: int = 0
    n_chosen: int = 0
    n_failed: int = 0
    n_training: int = 0
    n_calculations: int = 0
    cpu_hours: float = 0.0
    train_seconds: float = 0.0
    trusted: bool = True
    findings: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    rmse: dict[str, float] = field(default_factory=dict)
    by_kind: dict[str, dict[str, float]] = field(default_factory=dict)
    uncertainty: dict[str, float] = field(default_factory=dict)
    outside: float | None = None
    worst: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Round":
        """A round from what `as_dict` gave."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    def enough(self, settings: LearnSettings) -> bool:
        """Whether all uncertainties are known and below the limits, and the errors on the test too, if there is one.

        Uncertainties of a model that was made of a handful of structures may be far too small; its errors tell.
        """
        limits = {"energy": settings.energy_limit, "forces": settings.forces_limit}
        limits |= dict.fromkeys(
            ("magforces", "magforces_length", "magforces_transverse"), settings.magforces_limit
        )
        known = {name: value for name, value in self.uncertainty.items() if np.isfinite(value)}
        errors = {name: value / MILLI for name, value in self.errors.items() if name in limits}
        everything = (*known.items(), *errors.items())
        return "energy" in known and all(value <= limits[name] for name, value in everything)


def measure(record: Round, scores: Scores, kinds: Sequence[str]) -> None:
    """Put into a round how uncertain its model is about the candidates.

    Args:
        record: The round.
        scores: Of all candidates, from `mmace_sim.data.select.score`.
        kinds: Kind of each candidate.
    """
    for name in TOLD:
        sizes = scores.sizes.get(name)
        choosable = [k for k in range(len(kinds)) if k not in scores.refused]
        known = np.array([]) if sizes is None else sizes[choosable][np.isfinite(sizes[choosable])]
        if len(known):
            record.uncertainty[name] = float(np.quantile(known, QUANTILE))
    usable = np.unique(scores.system.numpy())
    if not scores.sizes or not len(usable):
        return
    farthest = max_of_systems(scores.distance.double(), scores.system, len(kinds)).numpy()[usable]
    record.outside = float((farthest > EDGE).mean())
    information = np.mean([*scores.ratios().values()] or [np.ones(len(kinds))], axis=0)
    means = {
        kind: float(np.mean([information[k] for k in usable if kinds[k] == kind]))
        for kind in dict.fromkeys(kinds[k] for k in usable)
    }
    record.worst = dict(sorted(means.items(), key=lambda item: -item[1])[:5])


def write_curve(path: Path, rounds: Sequence[Round]) -> None:
    """Write one line for each round."""
    text = io.StringIO()
    names = ("index", "n_calculations", "n_training", "n_failed", "cpu_hours", "train_seconds", "outside")
    columns = [
        *names,
        *(f"test_{label}_mae" for label in LABELS),
        *(f"test_{label}_rmse" for label in LABELS),
    ]
    columns += [f"uncertainty_{name}" for name in TOLD]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for record in rounds:
        row: list[Any] = [getattr(record, name) for name in names]
        row += [record.errors.get(label) for label in LABELS] + [record.rmse.get(label) for label in LABELS]
        row += [record.uncertainty.get(name) for name in TOLD]
        writer.writerow(["" if x is None else f"{x:.6g}" if isinstance(x, float) else x for x in row])
    write_text(path, text.getvalue())


def curve_units() -> dict[str, str]:
    """Units of the columns of ``curve.csv``."""
    units = {f"test_{label}_{kind}": UNITS[label] for label in LABELS for kind in ("mae", "rmse")}
    units |= {
        f"uncertainty_{name}": "eV/atom, eV/Å or eV/μB; nine tenths of the candidates are below"
        for name in TOLD
    }
    return units | {"cpu_hours": "h, of all calculations so far", "train_seconds": "s"}
