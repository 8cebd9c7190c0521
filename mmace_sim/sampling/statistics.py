"""Averages of correlated samples, with errors, and whether the samples are in equilibrium."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float

from mmace_sim.sampling.chains import Chain, Series
from mmace_sim.sampling.correlation import Fluctuation, autocorrelation_time, fluctuation, standard_error
from mmace_sim.units import BOLTZMANN_EV_PER_K

MIN_TIMES = 20.0
"""Fewer autocorrelation times than this in a chain are too few to judge it."""
MAX_DRIFT = 4.0
"""Halves of a chain may differ by this many standard errors."""


class CurieStatus(StrEnum):
    """How sampling ended."""

    CONVERGED = "converged"
    NOT_EQUILIBRATED = "not_equilibrated"
    FAILED = "failed"


@dataclass(frozen=True)
class Value:
    """A mean and its standard error.

    Attributes:
        mean: The mean.
        error: One standard error.
        is_known: Whether the error is; where a series is too short for one, `error` is the least that it may be.
    """

    mean: float
    error: float
    is_known: bool = True


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
    n_sweeps = len(values["order"])
    times = {key: autocorrelation_time(values[key]) for key in ("order", "energy")}
    time = max(times.values())
    drift = max(_drift(values[key], time) for key in times)
    # a chain that rejected every move, or whose energy is not finite, is in no equilibrium
    moved = bool((np.ptp(values["energy"], axis=0) > 0).all())
    settled = moved and drift <= MAX_DRIFT and n_sweeps >= MIN_TIMES * time
    kept = {key: Value(float(series.mean()), standard_error(series)) for key, series in values.items()}
    kept |= _derived(values, temperature, n)
    status = CurieStatus.CONVERGED if settled else CurieStatus.NOT_EQUILIBRATED
    return Point(temperature, n, values["order"].size, kept, time, drift, status)


def _derived(
    values: dict[str, Float[np.ndarray, "n_sweeps n_replicas"]], temperature: float, n: int
) -> dict[str, Value]:
    """Fluctuations, and the cumulant, which is 2/3 without a third of the relative variance of the squared order."""
    kt = BOLTZMANN_EV_PER_K * temperature
    width = fluctuation(values["order"] ** 2, relative=True)
    return {
        "susceptibility": _times(fluctuation(values["order"]), n / kt),
        "heat_capacity": _times(fluctuation(values["energy"]), n / kt**2),
        "binder": Value(2 / 3 - width.value / 3, width.error / 3, width.is_known),
    }


def _times(found: Fluctuation, factor: float) -> Value:
    return Value(factor * found.value, factor * found.error, found.is_known)


def _drift(series: Float[np.ndarray, "n_sweeps n_replicas"], time: float) -> float:
    """Difference of the first and the second half, in standard errors."""
    half = len(series) // 2
    if half < 2:
        return np.inf
    error = np.sqrt(2 * series.var() * time / (half * series.shape[1]))
    return float(abs(series[:half].mean() - series[half:].mean()) / max(error, 1e-300)) if error > 0 else 0.0
