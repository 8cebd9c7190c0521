"""The work test: do energies agree with forces, stress and magnetic forces, in sign and unit?

The energy differences of close pairs are fitted by Σ factor · work, with one factor for forces, one for stress, and one
for the magnetic forces of each element. All are 1 if the labels belong together. The fit is robust (Huber); its
uncertainty adds the jackknife over structures, the difference between the nearer half and all pairs, and half of the
relative misfit, which stands for the third-order error of the trapezoidal rule.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmace_sim.quality.preflight.pairs import PairWork

MIN_PAIRS = 10
"""Fewer close pairs are no test."""

MAX_UNCERTAINTY = 0.25
"""A factor that is less certain than this says nothing."""

_N_BLOCKS = 15
_ENERGY_NOISE = 1e-5
"""Energies are not better than this (eV per atom)."""

_MIN_SHARE = 1e-3
"""A part that does less than this share of the work is not fitted."""


@dataclass(frozen=True)
class Factor:
    """By how much the energies exceed the work of one part of the labels.

    Attributes:
        value: 1 if energies and label belong together; above 1, the label is too small.
        uncertainty: Standard uncertainty.
    """

    value: float
    uncertainty: float

    @property
    def is_certain(self) -> bool:
        """Whether it is known well enough to say something."""
        return self.uncertainty < max(MAX_UNCERTAINTY, 0.2 * abs(self.value))

    @property
    def is_one(self) -> bool:
        """Whether label and energies agree, within 5 % or twice the uncertainty."""
        return abs(self.value - 1.0) < max(0.05, 2.0 * self.uncertainty)


@dataclass
class WorkFit:
    """Result of the work test over some pairs.

    Attributes:
        name: Which pairs: `all`, or a config_type.
        n_pairs: Number of pairs.
        factors: Factor of each part that does work.
        misfit: Root mean square of what the fit leaves of the energy differences, relative to them.
        energy: E_b − E_a of each pair, in eV.
        work: Work by the labels as they are (all factors 1), in eV.
        aligned: Share of the pairs whose moments are rotated against each other as a whole.
        n_working: Number of pairs in which each part does work.
    """

    name: str
    n_pairs: int
    factors: dict[str, Factor] = field(default_factory=dict)
    misfit: float = 0.0
    energy: np.ndarray = field(default_factory=lambda: np.zeros(0))
    work: np.ndarray = field(default_factory=lambda: np.zeros(0))
    aligned: float = 0.0
    n_working: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        factors = {k: {"factor": f.value, "uncertainty": f.uncertainty} for k, f in self.factors.items()}
        return {
            "pairs": self.name,
            "n_pairs": self.n_pairs,
            "factors": factors,
            "misfit": self.misfit,
            "aligned": self.aligned,
        }


def fit_work(pairs: PairWork, name: str = "all") -> WorkFit:
    """Fit the factors of the work test.

    Args:
        pairs: Close pairs.
        name: What to call them.

    Returns:
        The fit; without factors if there are fewer than `MIN_PAIRS` pairs that differ in energy.
    """
    noise = _ENERGY_NOISE * pairs.n_atoms
    share = {k: float(np.abs(v).sum()) for k, v in pairs.work.items()}
    total = sum(share.values())
    working = {k: int((v != 0).sum()) for k, v in pairs.work.items()}
    parts = [k for k, v in share.items() if v > _MIN_SHARE * total and working[k] >= MIN_PAIRS]
    if len(pairs) < MIN_PAIRS or not parts:
        return WorkFit(name, len(pairs), n_working=working)
    work = np.stack([pairs.work[k] for k in parts], axis=1)
    scale = noise + pairs.curvature
    everything = np.ones(len(pairs), dtype=bool)
    values, weights = _huber(work, pairs.energy, scale)
    residual = weights * (pairs.energy - work @ values)
    misfit = float(np.sqrt((residual**2).sum() / max(((weights * pairs.energy) ** 2).sum(), 1e-300)))
    near = scale <= np.median(scale)
    halves = (
        _huber(work[near], pairs.energy[near], scale[near])[0] - values if near.sum() >= MIN_PAIRS else 0.0
    )
    jackknife = _jackknife(pairs, work, scale, everything)
    uncertainty = np.sqrt(jackknife**2 + halves**2 + (0.5 * misfit * np.abs(values)) ** 2)
    return WorkFit(
        name=name,
        n_pairs=len(pairs),
        factors={k: Factor(float(v), float(u)) for k, v, u in zip(parts, values, uncertainty, strict=True)},
        misfit=misfit,
        energy=pairs.energy,
        work=sum(pairs.work.values(), np.zeros(len(pairs))),
        aligned=float(pairs.aligned.mean()),
        n_working=working,
    )


def _huber(work: np.ndarray, energy: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares without intercept, with less weight on outliers."""
    robust = np.ones(len(energy))
    values = np.zeros(work.shape[1])
    for _ in range(20):
        weights = robust / scale
        design = work * weights[:, None]
        size = np.maximum(np.linalg.norm(design, axis=0), 1e-300)
        values = np.linalg.lstsq(design / size, energy * weights, rcond=1e-10)[0] / size
        residual = np.abs(energy - work @ values) / scale
        limit = 2.0 * 1.4826 * np.median(residual) + 1e-9
        robust = np.sqrt(np.minimum(1.0, limit / np.maximum(residual, 1e-12)))
    return values, robust / scale


def _jackknife(pairs: PairWork, work: np.ndarray, scale: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Uncertainty from leaving out blocks of structures: pairs that share one are not independent."""
    members = np.unique(np.concatenate([pairs.first, pairs.second]))
    n_blocks = min(_N_BLOCKS, len(members))
    estimates = []
    for block in range(n_blocks):
        left_out = members[block::n_blocks]
        kept = mask & ~np.isin(pairs.first, left_out) & ~np.isin(pairs.second, left_out)
        if kept.sum() >= max(MIN_PAIRS // 2, work.shape[1] + 1):
            estimates.append(_huber(work[kept], pairs.energy[kept], scale[kept])[0])
    if len(estimates) < 3:
        return np.full(work.shape[1], np.inf)
    n = len(estimates)
    return np.sqrt((n - 1) / n * ((np.array(estimates) - np.mean(estimates, axis=0)) ** 2).sum(axis=0))
