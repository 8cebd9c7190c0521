"""Fits what a model file says of its own errors and of its domain (`mmace_sim.model.uncertainty`)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from mmace_sim.errors import DataError
from mmace_sim.io.frames import Frame
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.error_sizes import (
    log_distance,
    max_of_systems,
    mean_of_systems,
    predictors,
    regress,
    structure_predictors,
)
from mmace_sim.model.uncertainty import (
    ATOM_TARGETS,
    EDGE,
    FAR,
    STRUCTURE_TARGETS,
    TARGETS,
    Target,
    Uncertainty,
    UncertaintyFacts,
)
from mmace_sim.training.calibration.evidence import Evidence, gather
from mmace_sim.training.calibration.novelty import choose_landmarks, fit_coordinates, nearest_of_others
from mmace_sim.training.data.stream import Frames
from mmace_sim.training.data.stream_summary import sample

logger = logging.getLogger(__name__)

MAX_STRUCTURES: int = 2000
"""Structures looked at, of those that the model has seen and of the others."""
MIN_STRUCTURES: int = 10
MAX_LANDMARKS: int = 800
MIN_VALUES: int = 8
"""Atoms or structures with an error, below which nothing is said of a target."""
KNOWN_SHARE: float = 0.95
HELD_OUT_SHARE: float = 0.90
"""Structures are inside of the domain up to the distance that this share of the calibration data has: of those that the
model was trained on from each other, and of those that it has not seen from them, whichever is larger."""
RIDGES: tuple[float, ...] = (3.0, 30.0, 300.0)
"""Strengths of the penalty on the weights of standardised predictors, of which the validation chooses one."""
SOFTENING: float = 0.1
"""Errors are taken as at least about this share of the median, so that lucky zeros do not count too much."""
TAIL: float = 0.01
"""Share of the sizes on either side beyond which they stay at a limit."""
FOLDS: int = 5
ONE_SIGMA: float = 0.6827
SPREAD_FLOOR: float = 0.2
"""Smallest unit of a coordinate in the regression, over the largest: what the data hardly vary in must not decide."""
SPHERE_FLOOR: float = 0.1
"""Smallest unit of distances, in standard deviations: of data that are all but copies of one structure."""


def calibrate(
    model: MagneticModel,
    known: Frames,
    held_out: Sequence[Frame] = (),
    *,
    magforce_elements: Sequence[str] | None = None,
    fit_zero: bool = False,
    batch_size: int = 8,
    note: str = "",
) -> Uncertainty:
    """Uncertainties of a model, from labelled structures.

    The regression of the sizes of errors, and the scale of them, are those of five-fold cross-validation by structures.
    Errors on structures that a model was trained on are too small; so the scale is that of the held-out ones wherever
    it is larger, and of all where the held-out ones are too few.

    Args:
        model: The model.
        known: Structures with labels, of a kind that the model is good for: those that it was trained on, or any.
        held_out: Structures that it was not trained on, if the others are those that it was trained on.
        magforce_elements: Symbols of the elements whose magnetic forces are labels; None means all.
        fit_zero: Whether the energies of the structures may have another zero for each element than the model.
        batch_size: Structures per batch.
        note: What a reader has to know about the structures.

    Returns:
        What `model.uncertainty` is to be.

    Raises:
        DataError: If there are too few structures, or none of them has labels.
    """
    some, others = sample(known, MAX_STRUCTURES), sample(held_out, MAX_STRUCTURES)
    n_known, frames = len(some), [*some, *others]
    if len(frames) < MIN_STRUCTURES:
        raise DataError(
            f"{len(frames)} structures with elements of the model are too few to calibrate it, {MIN_STRUCTURES} are "
            "needed. Add labelled structures of the kind that you compute."
        )
    evidence = gather(model, frames, magforce_elements=magforce_elements, batch_size=batch_size)
    if fit_zero:
        evidence.fit_zero()
    fresh = torch.arange(evidence.n_systems) >= n_known
    return fit_uncertainty(evidence, fresh, note)


def fit_uncertainty(evidence: Evidence, fresh: Bool[Tensor, " n_systems"], note: str = "") -> Uncertainty:
    """Fit everything to what a model got wrong.

    Args:
        evidence: Structures.
        fresh: Which of them the model has not seen; none if that makes no difference.
        note: What a reader has to know about them.

    Raises:
        DataError: If nothing is labelled.
    """
    means, matrix, coordinates, species = fit_coordinates(evidence.rows, evidence.numbers)
    marks = choose_landmarks(coordinates, evidence.numbers, MAX_LANDMARKS)
    alone = nearest_of_others(coordinates, evidence, marks)
    unit = _unit_of_distance(alone, coordinates, evidence, marks, fresh)
    coordinates, matrix, distance = coordinates / unit, matrix / unit, (alone / unit).clamp(max=FAR)
    deviations = coordinates.std(dim=0)
    spread = deviations.clamp(min=SPREAD_FLOOR * float(deviations.max()))
    elements = torch.unique(evidence.numbers).tolist()
    sizes = torch.cat([evidence.sizes, log_distance(distance)], dim=1)
    rows = predictors(coordinates, species, sizes, spread, len(elements))
    structures = structure_predictors(rows, distance, evidence.system, evidence.n_systems)
    growth = distance.clamp(min=EDGE) / EDGE
    mean_growth = mean_of_systems(growth.square()[:, None], evidence.system, evidence.n_systems)[:, 0].sqrt()
    folds = _folds(evidence.n_systems)
    whole = torch.arange(evidence.n_systems)
    tables = {
        "atom": _Table(rows, growth, evidence.system, fresh, folds),
        "structure": _Table(structures, mean_growth, whole, fresh, folds),
    }
    fits = {
        target: tables["atom" if target in ATOM_TARGETS else "structure"].fit(evidence.errors[target])
        for target in TARGETS
    }
    if not any(fit is not None for fit in fits.values()):
        raise DataError("no structure has a label that could be compared with the model; are the keys right?")
    facts = UncertaintyFacts(
        elements=elements,
        n_landmarks=len(marks),
        known=[target for target in TARGETS if fits[target] is not None],
        n_structures=evidence.n_systems,
        n_held_out=int(fresh.sum()),
        calibration={target: fit.facts for target, fit in fits.items() if fit is not None},
        note=note,
    )
    tensors = {
        "landmarks": coordinates[marks],
        "means": means,
        "whitening": matrix,
        "spread": spread,
        **_stacked("atom", ATOM_TARGETS, fits, rows.shape[1]),
        **_stacked("structure", STRUCTURE_TARGETS, fits, structures.shape[1]),
    }
    tensors = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    tensors["numbers"] = evidence.numbers[marks].contiguous()
    return Uncertainty(facts, tensors)


@dataclass
class _Fit:
    """Weights, limits and facts of one target."""

    weights: Tensor
    limits: Tensor
    facts: dict[str, float | int | None]


@dataclass
class _Table:
    """Predictors of atoms or of structures, what their sizes are multiplied by, and the folds of the validation."""

    rows: Float[Tensor, "n n_predictors"]
    growth: Float[Tensor, " n"]
    system: Int[Tensor, " n"]
    fresh: Bool[Tensor, " n_systems"]
    folds: Int[Tensor, " n_systems"]

    def fit(self, errors: Float[Tensor, "n n_components"]) -> _Fit | None:
        """The regression of one target, or None with too few errors."""
        known = (~torch.isnan(errors)).any(dim=1)
        if int(known.sum()) < MIN_VALUES:
            return None
        rows, errors, system = self.rows[known], errors[known], self.system[known]
        growth = self.growth[known]
        y = errors.square().nanmean(dim=1).sqrt() / growth
        fresh = self.fresh[system]
        sizes, ridge = _validated(rows, y, self.folds[system])
        weights, limits = _ridge(rows, y, ridge)
        sizes = sizes * growth
        scale = _scale(errors.abs() / sizes[:, None], system)
        if int(fresh.sum()) >= MIN_VALUES:
            scale = max(scale, _scale(errors[fresh].abs() / sizes[fresh, None], system[fresh]))
        told = fresh if int(fresh.sum()) >= MIN_VALUES else torch.ones_like(fresh)
        facts = {
            "count": int((~torch.isnan(errors[told])).sum()),
            "spearman": rank_correlation(sizes[told], errors[told].square().nanmean(dim=1).sqrt()),
            "median": float((scale * sizes[told]).median()),
        }
        return _Fit(weights, limits + float(np.log(scale)), facts)


def _validated(
    rows: Float[Tensor, "n p"], y: Float[Tensor, " n"], fold: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], float]:
    """Sizes from regressions that had not seen them, and the best penalty by these."""
    tried: list[tuple[float, float, Tensor]] = []
    for ridge in RIDGES:
        weights, limits = _ridge(rows, y, ridge)
        sizes = regress(rows, weights[:, None], limits[:, None])[:, 0]
        for k in range(FOLDS):
            seen, unseen = fold != k, fold == k
            if int(seen.sum()) >= MIN_VALUES and unseen.any():
                weights, limits = _ridge(rows[seen], y[seen], ridge)
                sizes[unseen] = regress(rows[unseen], weights[:, None], limits[:, None])[:, 0]
        wrong = float((_softened(y) - sizes.log()).square().mean())
        tried.append((wrong, ridge, sizes))
    _, ridge, sizes = min(tried, key=lambda trial: trial[0])
    return sizes, ridge


def _softened(y: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Logarithms of errors."""
    return (y + SOFTENING * y.median().clamp(min=1e-9)).log()


def _ridge(rows: Float[Tensor, "n p"], y: Float[Tensor, " n"], ridge: float) -> tuple[Tensor, Tensor]:
    """Weights of the logarithm of errors, and its constant and limits."""
    target = _softened(y)
    mean, deviation = rows.mean(dim=0), rows.std(dim=0)
    deviation = torch.where(deviation > 1e-6 * (1.0 + mean.abs()), deviation, torch.inf)
    x = (rows - mean) / deviation
    matrix = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    solution = torch.linalg.solve(matrix, x.T @ (target - target.mean()))
    weights = solution / deviation
    constant = target.mean() - mean @ weights
    sizes = x @ solution + target.mean()
    ends = torch.quantile(sizes, torch.tensor([TAIL, 1.0 - TAIL], dtype=sizes.dtype))
    return weights, torch.stack([constant, ends[0], ends[1]])


def _scale(ratios: Float[Tensor, "n n_components"], system: Int[Tensor, " n"]) -> float:
    """What ratios of errors and sizes have to be divided by for 68 % to be below one, in a new structure too."""
    n = len(torch.unique(system))
    level = min(ONE_SIGMA * (n + 1) / n, 0.99)
    return max(float(np.nanquantile(ratios.numpy(), level)), 1e-6)


def rank_correlation(first: Float[Tensor, " n"], second: Float[Tensor, " n"]) -> float | None:
    """Spearman's correlation; None if one of both is constant."""
    if min(np.ptp(first.numpy()), np.ptp(second.numpy())) == 0.0:
        return None
    return float(spearmanr(first.numpy(), second.numpy()).statistic)


def _unit_of_distance(
    alone: Float[Tensor, " n_atoms"],
    coordinates: Float[Tensor, "n_atoms n_surroundings"],
    evidence: Evidence,
    marks: Int[Tensor, " n_landmarks"],
    fresh: Bool[Tensor, " n_systems"],
) -> float:
    """The distance up to which structures are inside of the domain."""
    farthest = _farthest(alone, evidence)
    finite = farthest[torch.isfinite(farthest)]
    unit = float(torch.quantile(finite, KNOWN_SHARE)) if len(finite) else 0.0
    old = marks[~fresh[evidence.system[marks]]]
    if fresh.any() and len(old):
        seen = _farthest(nearest_of_others(coordinates, evidence, old), evidence)[fresh]
        seen = seen[torch.isfinite(seen)]
        unit = max(unit, float(torch.quantile(seen, HELD_OUT_SHARE))) if len(seen) else unit
    return max(unit, SPHERE_FLOOR) / EDGE


def _farthest(distance: Float[Tensor, " n_atoms"], evidence: Evidence) -> Float[Tensor, " n_systems"]:
    return max_of_systems(distance, evidence.system, evidence.n_systems)


def _folds(n_systems: int) -> Int[Tensor, " n_systems"]:
    """Which fifth each structure belongs to, at random but always the same."""
    order = torch.randperm(n_systems, generator=torch.Generator().manual_seed(0))
    return order % FOLDS


def _stacked(
    name: str, targets: Sequence[Target], fits: dict[Target, _Fit | None], n_rows: int
) -> dict[str, Tensor]:
    """Tensors of several targets; zeros where nothing is known."""
    found = [fits[target] for target in targets]
    weights = [torch.zeros(n_rows) if fit is None else fit.weights for fit in found]
    limits = [torch.zeros(3) if fit is None else fit.limits for fit in found]
    return {
        f"{name}_weights": torch.stack([w.double() for w in weights], dim=1),
        f"{name}_limits": torch.stack([limit.double() for limit in limits], dim=1),
    }
