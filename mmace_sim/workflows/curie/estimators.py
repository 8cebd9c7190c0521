"""The ordering temperature from observables: crossing of cumulants, peak of the susceptibility, power law."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq, curve_fit

from mmace_sim.workflows.curie.statistics import Point, Value

ORDERED_BINDER, DISORDERED_BINDER = 2 / 3, 4 / 9
"""U = 1 − ⟨o⁴⟩/(3⟨o²⟩²) of a three-component order parameter far below and far above the transition."""
_N_BOOTSTRAP = 200
_WINDOW = 0.15
"""Temperatures this close to an estimate, relative to it, enter the curves that it is refined with."""
_HIGH = 0.6
"""Values above this fraction of the highest make up the peak."""
_LAW_WINDOW = (0.6, 0.97)
"""The power law is fitted between these fractions of the best other estimate."""


@dataclass(frozen=True)
class CurieTemperature:
    """Ordering temperatures by each estimator, in K.

    Attributes:
        crossings: Crossing of the cumulants of each two successive sizes.
        peaks: Peak of the susceptibility of each size.
        power_law: T_C of M = M₀ (1 − T/T_C)^β for the largest size.
        exponent: β of that fit.
        notes: What could not be determined, and why.
    """

    crossings: list[Value | None] = field(default_factory=list)
    peaks: list[Value | None] = field(default_factory=list)
    power_law: Value | None = None
    exponent: Value | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def best(self) -> tuple[str, Value] | None:
        """Crossing of the largest sizes if there is one, else the peak of the largest size, else the power law."""
        named = (
            ("binder_crossing", self.crossings[-1] if self.crossings else None),
            ("susceptibility_peak", self.peaks[-1] if self.peaks else None),
            ("power_law", self.power_law),
        )
        return next(((name, value) for name, value in named if value is not None), None)


def estimate(points: Sequence[Sequence[Point]], *, seed: int = 0) -> CurieTemperature:
    """Ordering temperatures from points of several sizes.

    Errors come from repeating each estimate with every point moved by its own statistical error.

    Args:
        points: For each size, smallest first, points at ascending temperatures.
        seed: Of the random numbers of the errors.

    Returns:
        What can be determined.
    """
    rng = np.random.default_rng(seed)
    notes: list[str] = []
    peaks = [_peak(row, rng) for row in points]
    crossings: list[Value | None] = []
    for small, large in pairwise(points):
        guess = next((p.mean for p in reversed(peaks) if p is not None), None)
        crossings.append(_crossing(small, large, guess, rng))
    if len(points) < 2:
        notes.append("one size only: no crossing of cumulants; give several --sizes.")
    elif crossings[-1] is None:
        notes.append("the cumulants of the two largest sizes do not cross once within the temperatures.")
    if peaks[-1] is None:
        notes.append("the susceptibility of the largest size has no peak within the temperatures.")
    near = next((v.mean for v in (crossings[-1:] or [None]) + peaks[-1:] if v is not None), None)
    law = None if near is None else _power_law(points[-1], near, rng)
    if law is None:
        notes.append("too few temperatures below the transition for a fit of (T_C − T)^β.")
    return CurieTemperature(crossings, peaks, *(law or (None, None)), notes)


def peak(temperatures: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> float:
    """Position of the maximum: a parabola through the logarithms of all values above 60 % of the highest.

    Args:
        temperatures: In K, ascending.
        values: Positive values.

    Returns:
        Temperature in K; NaN if the maximum is at an end.
    """
    top = int(np.argmax(values))
    if top in (0, len(values) - 1):
        return np.nan
    high = np.flatnonzero(values >= _HIGH * values[top])
    first, last = min(high[0], top - 1), max(high[-1], top + 1) + 1
    t = temperatures[first:last] - temperatures[top]
    a, b, _ = np.polyfit(t, np.log(values[first:last]), 2)
    centre = -b / (2 * a) if a < 0 else np.nan
    return float(temperatures[top] + centre) if t[0] < centre < t[-1] else np.nan


def crossing(
    temperatures: Float[np.ndarray, " n"], difference: Float[np.ndarray, " n"], guess: float
) -> float:
    """Root of a smooth function through points.

    Args:
        temperatures: In K, ascending.
        difference: Cumulant of the smaller less that of the larger size: negative below the transition.
        guess: Where the root is about; a polynomial is fitted within 15 % of it.

    Returns:
        Temperature in K; NaN if there is no change of sign.
    """
    near = np.abs(temperatures / guess - 1) <= _WINDOW
    if near.sum() < 3:
        near = np.argsort(np.abs(temperatures - guess)) < 4
    t, d = temperatures[near] / guess - 1, difference[near]
    fit = np.polynomial.Polynomial.fit(t, d, min(3 if len(t) > 6 else 2, len(t) - 1))
    grid = np.linspace(t[0], t[-1], 201)
    signs = np.sign(fit(grid))
    changes = np.flatnonzero((signs[:-1] < 0) & (signs[1:] >= 0))
    if len(changes) == 0:
        return np.nan
    k = changes[np.argmin(np.abs(grid[changes]))]
    return float(guess * (1 + brentq(fit, grid[k], grid[k + 1])))


def power_law(temperature: np.ndarray, zero: float, critical: float, exponent: float) -> np.ndarray:
    """M₀ (1 − T/T_C)^β, zero above.

    Args:
        temperature: T in K.
        zero: M₀.
        critical: T_C in K.
        exponent: β.
    """
    return zero * np.clip(1 - temperature / critical, 1e-12, None) ** exponent


def _columns(row: Sequence[Point], key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values = [point.values[key] for point in row]
    return (
        np.array([point.temperature for point in row]),
        np.array([value.mean for value in values]),
        np.array([value.error for value in values]),
    )


def _peak(row: Sequence[Point], rng: np.random.Generator) -> Value | None:
    t, mean, error = _columns(row, "susceptibility")
    return _bootstrap(lambda noise: peak(t, np.clip(mean + noise * error, 1e-12, None)), len(t), rng)


def _crossing(
    small: Sequence[Point], large: Sequence[Point], guess: float | None, rng: np.random.Generator
) -> Value | None:
    t, first, first_error = _columns(small, "binder")
    _, second, second_error = _columns(large, "binder")
    if len(t) < 3:
        return None
    middle = (
        float(np.interp(-0.5 * (ORDERED_BINDER + DISORDERED_BINDER), -second, t)) if guess is None else guess
    )
    error = np.hypot(first_error, second_error)
    rough = crossing(t, first - second, middle)
    centre = middle if np.isnan(rough) else rough
    return _bootstrap(lambda noise: crossing(t, first - second + noise * error, centre), len(t), rng)


def _power_law(row: Sequence[Point], near: float, rng: np.random.Generator) -> tuple[Value, Value] | None:
    t, mean, error = _columns(row, "order")
    inside = (t >= _LAW_WINDOW[0] * near) & (t <= _LAW_WINDOW[1] * near)
    if inside.sum() < 4:
        return None
    t, mean, error = t[inside], mean[inside], np.maximum(error[inside], 1e-6)

    def fit(noise: np.ndarray) -> np.ndarray:
        try:
            bounds = ([0.1, t[-1] * 1.0001, 0.05], [5.0, 2 * near, 1.5])
            start = (1.0, max(near, t[-1] * 1.01), 0.35)
            return curve_fit(power_law, t, mean + noise * error, start, error, bounds=bounds)[0][1:]
        except RuntimeError:
            return np.full(2, np.nan)

    trials = np.array([fit(rng.normal(size=len(t))) for _ in range(_N_BOOTSTRAP // 4)])
    central = fit(np.zeros(len(t)))
    if not np.isfinite(central).all():
        return None
    errors = np.nanstd(trials, axis=0)
    return Value(float(central[0]), float(errors[0])), Value(float(central[1]), float(errors[1]))


def _bootstrap(function: Callable[[np.ndarray], float], n: int, rng: np.random.Generator) -> Value | None:
    """A function of points and its error; None if it fails for the points, or for half of the trials."""
    central = function(np.zeros(n))
    trials = np.array([function(rng.normal(size=n)) for _ in range(_N_BOOTSTRAP)])
    good = np.isfinite(trials)
    if not np.isfinite(central) or good.mean() < 0.5:
        return None
    return Value(central, float(np.std(trials[good])))
