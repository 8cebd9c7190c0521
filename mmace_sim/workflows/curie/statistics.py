"""Averages of correlated samples, with errors, and whether the samples are in equilibrium."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from mmace_sim.units import BOLTZMANN_EV_PER_K
from mmace_sim.workflows.curie.chains import Chain, Series

WINDOW = 5.0
"""The autocorrelation is summed up to this many times its own integral."""
MIN_TIMES = 20.0
"""Fewer autocorrelation times than this in a chain are too few to judge it."""
MAX_DRIFT = 4.0
"""Halves of a chain may differ by this many standard errors."""
_BLOCKS = 20


class CurieStatus(StrEnum):
    """How sampling ended."""

    CONVERGED = "converged"
    NOT_EQUILIBRATED = "not_equilibrated"
    FAILED = "failed"


@dataclass(frozen=True)
class Value:
    """A mean and its standard error."""

    mean: float
    error: float


@dataclass(frozen=True)
class Point:
    """Observables of one size at one temperature.

    Attributes:
        temperature: In K.
        n_spins: Number of spins.
        n_samples: Samples of all replicas together.
        values: By name: "energy" (eV per spin), "order" (0 to 1), "magnetization" (μB per spin), "heat_capacity" (k_B
            per spin), "susceptibility" (per spin and eV, of unit vectors), "binder", and whatever else was observed.
        autocorrelation: Integrated time of the order or the energy, whichever is longer, in sweeps.
        drift: Largest difference of halves of the chains, in standard errors.
        status: Whether it is in equilibrium.
    """

    temperature: float
    n_spins: int
    n_samples: int
    values: dict[str, Value]
    autocorrelation: float
    drift: float
    status: CurieStatus


def autocorrelation_time(series: Float[np.ndarray, " n"]) -> float:
    """Integrated autocorrelation time τ, in samples: the error of the mean is sqrt(τ · variance / n).

    Args:
        series: Samples.

    Returns:
        τ = 1 + 2 Σ_t ρ(t), at least 1, summed up to `WINDOW` τ (1 for a constant series).

    References:
        Sokal, in Functional Integration (1997), section 3; the windowing is that of emcee (dfm/emcee, autocorr.py).
    """
    n = len(series)
    centred = series - series.mean()
    if not np.any(np.abs(centred) > 1e-12 * max(1.0, float(np.abs(series).max()))):
        return 1.0
    spectrum = np.fft.rfft(centred, 2 * n)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:n]
    times = 2 * np.cumsum(correlation / correlation[0]) - 1
    outside = np.arange(n) >= WINDOW * times
    return float(max(times[np.argmax(outside) if outside.any() else n - 1], 1.0))


def points(series: Series, chains: list[Chain], n_spins: list[int]) -> list[list[Point]]:
    """Observables at each temperature, replicas of a temperature taken together.

    Args:
        series: From `run_blocks`.
        chains: The columns of the series.
        n_spins: Spins of each size.

    Returns:
        For each size, one point for each temperature, ascending.
    """
    temperatures = np.array([chain.temperature for chain in chains])
    counted = series.counted
    return [
        [
            _point({key: v[:, k, temperatures == t] for key, v in counted.items()}, float(t), n)
            for t in np.unique(temperatures)
        ]
        for k, n in enumerate(n_spins)
    ]


def _point(values: dict[str, Float[np.ndarray, "n_sweeps n_replicas"]], temperature: float, n: int) -> Point:
    n_sweeps, n_replicas = values["order"].shape
    slow = [values["order"], values["energy"]]
    time = max(autocorrelation_time(series[:, r]) for series in slow for r in range(n_replicas))
    drift = max(_drift(series, time) for series in slow)
    # a chain that rejected every move, or whose energy is not finite, is in no equilibrium
    moved = bool((np.ptp(values["energy"], axis=0) > 0).all())
    settled = moved and drift <= MAX_DRIFT and n_sweeps >= MIN_TIMES * time
    kept = {key: _jackknife(lambda part, key=key: part[key].mean(), values) for key in values}
    kept |= {key: _jackknife(f, values) for key, f in _derived(temperature, n).items()}
    status = CurieStatus.CONVERGED if settled else CurieStatus.NOT_EQUILIBRATED
    return Point(temperature, n, n_sweeps * n_replicas, kept, time, drift, status)


def _derived(temperature: float, n: int) -> dict:
    """Fluctuations, and the cumulant."""
    kt = BOLTZMANN_EV_PER_K * temperature
    return {
        "susceptibility": lambda v: n * v["order"].var() / kt,
        "heat_capacity": lambda v: n * v["energy"].var() / kt**2,
        "binder": lambda v: 1 - (v["order"] ** 4).mean() / (3 * (v["order"] ** 2).mean() ** 2),
    }


def _drift(series: Float[np.ndarray, "n_sweeps n_replicas"], time: float) -> float:
    """Difference of the first and the second half, in standard errors."""
    half = len(series) // 2
    if half < 2:
        return np.inf
    error = np.sqrt(2 * series.var() * time / (half * series.shape[1]))
    return float(abs(series[:half].mean() - series[half:].mean()) / max(error, 1e-300)) if error > 0 else 0.0


def _jackknife(function: Callable, values: dict[str, Float[np.ndarray, "n_sweeps n_replicas"]]) -> Value:
    """A function of averages and its error, leaving out one block of sweeps after the other."""
    n_sweeps, n_replicas = next(iter(values.values())).shape
    per_replica = max(_BLOCKS // n_replicas, 4)
    edges = np.linspace(0, n_sweeps, per_replica + 1).astype(int)
    flat = {key: value.T.ravel() for key, value in values.items()}
    parts = []
    for replica in range(n_replicas):
        for first, last in pairwise(edges):
            keep = np.ones(n_sweeps * n_replicas, dtype=bool)
            keep[replica * n_sweeps + first : replica * n_sweeps + last] = False
            parts.append(function({key: value[keep] for key, value in flat.items()}))
    n = len(parts)
    return Value(float(function(flat)), float(np.sqrt((n - 1) * np.var(parts))))
