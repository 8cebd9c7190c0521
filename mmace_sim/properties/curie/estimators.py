"""The ordering temperature from observables: crossing of cumulants, peak of the susceptibility, power law."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq, curve_fit

from mmace_sim.sampling.statistics import Point, Value

ORDERED_BINDER, DISORDERED_BINDER = 2 / 3, 4 / 9
"""U = 1 − ⟨o⁴⟩/(3⟨o²⟩²) of a three-component order parameter far below and far above the transition."""
_CRITICAL_BINDER = 0.6
"""About that of a periodic cube at the transition, 0.62."""
_N_BOOTSTRAP = 200
_WINDOW = 1.5
"""Temperatures this many widths from a crossing enter the curve that it is refined with (more bend too much)."""
_HIGH = 0.6
"""Values above this fraction of the highest make up the peak."""
_LAW_WINDOW = (0.6, 0.97)
"""The power law is fitted between these fractions of the best other estimate."""
_SHIFT = 3.0
"""The peak lies above the crossing by up to this many widths of the transition (0.9 to 2.3 were seen)."""
_COARSE = 3.0
"""Temperatures farther apart than this many widths of the transition only say between which two of them it is."""
_AT_BOUND = 1e-3
"""Parameters this close to a bound, relative to it, are not determined by the fit."""


def width(n_spins: float) -> float:
    """Width of the transition of a finite crystal relative to T_C, n^(−1/3ν) with ν = 0.711 of the Heisenberg model.

    Args:
        n_spins: Number of spins, n.
    """
    return n_spins ** (-1 / (3 * 0.711))


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

    Errors come from repeating each estimate with every point moved by its own statistical error, and from how far apart
    the temperatures are.

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
    for (small, large), at in zip(pairwise(points), peaks[1:], strict=True):
        value, note = _crossing(small, large, at, rng)
        crossings.append(value)
        notes += [note] if note and large is points[-1] else []
    if len(points) < 2:
        notes.append("one size only: no crossing of cumulants; give several --sizes.")
    if peaks[-1] is None:
        notes.append(
            f"the susceptibility of the largest size has no peak within the temperatures{_missed(points[-1])}."
        )
    near = next((v for v in (crossings[-1:] or [None]) + peaks[-1:] if v is not None), None)
    law, note = (None, None) if near is None else _power_law(points[-1], near.mean, rng)
    if law is None:
        notes.append(note or "too few temperatures below the transition for a fit of (T_C − T)^β.")
    if near is not None:
        notes += _finer(points[-1], near, found=crossings[-1:] != [None])
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
    temperatures: Float[np.ndarray, " n"],
    difference: Float[np.ndarray, " n"],
    guess: float,
    *,
    errors: Float[np.ndarray, " n"] | None = None,
    inside: tuple[float, float] = (-np.inf, np.inf),
    window: float = 0.1,
) -> float:
    """Where a function goes from negative to positive values, nearest to a guess.

    The root of the straight line through the two points on either side, or of a parabola or cubic through all points
    near it, if they are enough.

    Args:
        temperatures: In K, ascending.
        difference: Cumulant of the smaller less that of the larger size: negative below the transition.
        guess: Where the root is about, in K.
        errors: Of the difference, for the weights of the points; by default all are the same.
        inside: Lowest and highest temperature that count, in K.
        window: Points this close to the root, relative to it, are fitted.

    Returns:
        Temperature in K; NaN if there is no change of sign.
    """
    t, d = temperatures, difference
    changes = np.flatnonzero((d[:-1] < 0) & (d[1:] >= 0))
    roots = t[changes] - d[changes] * (t[changes + 1] - t[changes]) / (d[changes + 1] - d[changes])
    roots = roots[(roots >= inside[0]) & (roots <= inside[1])]
    if len(roots) == 0:
        return np.nan
    root = float(roots[np.argmin(np.abs(roots - guess))])
    near = np.abs(t / root - 1) <= window
    below, above = (near & (t < root)).sum(), (near & (t > root)).sum()
    if min(below, above) < 2:
        return root
    x = t[near] / root - 1
    weights = None if errors is None else 1 / np.maximum(errors[near], 1e-3 * errors.max() + 1e-300)
    fit = np.polynomial.Polynomial.fit(x, d[near], 3 if near.sum() > 6 else 2, w=weights)
    grid = np.linspace(x[0], x[-1], 201)
    values = fit(grid)
    changes = np.flatnonzero((values[:-1] < 0) & (values[1:] >= 0))
    if len(changes) == 0:
        return root
    k = changes[np.argmin(np.abs(grid[changes]))]
    refined = float(root * (1 + brentq(fit, grid[k], grid[k + 1])))
    return refined if inside[0] <= refined <= inside[1] else root


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
    found = _bootstrap(lambda noise: peak(t, np.clip(mean + noise * error, 1e-12, None)), len(t), rng)
    if found is None:
        return None
    n_high = int((mean >= _HIGH * mean.max()).sum())
    grid = _spacing(t, found.mean) / 12**0.5 * min(1.0, 3 / n_high)
    return Value(found.mean, float(np.hypot(found.error, grid)))


def _spacing(temperatures: Float[np.ndarray, " n"], at: float) -> float:
    """Distance of the two temperatures on either side."""
    k = int(np.clip(np.searchsorted(temperatures, at), 1, len(temperatures) - 1))
    return float(temperatures[k] - temperatures[k - 1])


def _crossing(
    small: Sequence[Point], large: Sequence[Point], at: Value | None, rng: np.random.Generator
) -> tuple[Value | None, str | None]:
    """Crossing of the cumulants near the peak of the larger size, and why there is none."""
    t, first, first_error = _columns(small, "binder")
    _, second, second_error = _columns(large, "binder")
    if len(t) < 3:
        return None, "fewer than three temperatures: no crossing of cumulants."
    susceptibility = _columns(large, "susceptibility")[1]
    top = float(t[np.argmax(susceptibility)]) if at is None else at.mean
    n = (small[0].n_spins * large[0].n_spins) ** 0.5
    space = _spacing(t, top) + (0.0 if at is None else 2 * at.error)
    inside = (top / (1 + _SHIFT * width(large[0].n_spins)) - space, top + space)
    difference, error = first - second, np.hypot(first_error, second_error)
    k = int(np.argmax(second < _CRITICAL_BINDER)) if second[-1] < _CRITICAL_BINDER else 0
    if k > 0 and (wide := _between(t, k, width(n))) is not None:  # far from T_C both cumulants are the same
        return wide, None
    window = _WINDOW * width(n)

    def root(noise: np.ndarray, limits: tuple[float, float] = inside) -> float:
        moved = difference + noise * error
        return crossing(t, moved, top, errors=error, inside=limits, window=window)

    found = _bootstrap(root, len(t), rng)
    if found is None:
        elsewhere = root(np.zeros(len(t)), (-np.inf, np.inf))
        if np.isnan(elsewhere) or inside[0] <= elsewhere <= inside[1]:
            return None, "the cumulants of the two largest sizes do not cross once within the temperatures."
        return None, (
            f"the cumulants of the two largest sizes cross at {elsewhere:.0f} K, far from the susceptibility, which is "
            f"largest at {top:.0f} K: not counted."
        )
    if (wide := _between(t, int(np.searchsorted(t, found.mean)), width(n))) is not None:
        return wide, None
    apart = _spacing(t, found.mean)  # a straight line misses a curve of this width by apart²/8/width
    grid = min(apart / 12**0.5, apart**2 / (8 * width(n) * found.mean))
    return Value(found.mean, float(np.hypot(found.error, grid))), None


def _between(temperatures: Float[np.ndarray, " n"], k: int, relative: float) -> Value | None:
    """The middle of two successive temperatures, if they are so far apart that no more can be said."""
    low, high = temperatures[k - 1 : k + 1]
    if high - low <= _COARSE * relative * high:
        return None
    return Value(float(low + high) / 2, float(high - low) / 12**0.5)


def _missed(row: Sequence[Point]) -> str:
    """On which side of the temperatures a transition is that they miss."""
    values = [point.values["susceptibility"].mean for point in row]
    if len(values) > 1 and np.argmax(values) in (0, len(values) - 1):
        side = "lowest" if np.argmax(values) == 0 else "highest"
        return f" (largest at the {side} one: add {'lower' if side == 'lowest' else 'higher'} --temperatures)"
    return ""


def _finer(row: Sequence[Point], near: Value, *, found: bool) -> list[str]:
    """A better choice of temperatures, where they are too far apart for the size of the crystal."""
    t = np.array([point.temperature for point in row])
    wide = width(row[0].n_spins) * near.mean
    if len(t) < 2 or (found and _spacing(t, near.mean) <= 1.5 * wide):
        return []
    half = max(2 * wide, 2 * near.error)
    step = next(s for e in range(-3, 6) for m in (1, 2, 5) if (s := m * 10.0**e) >= half / 6)
    low = max(np.floor((near.mean - half) / step), 1) * step
    high = np.ceil((near.mean + half) / step) * step
    return [f"for a better T_C add temperatures around it: --temperatures {low:g}:{high:g}:{step:g}."]


def _power_law(
    row: Sequence[Point], near: float, rng: np.random.Generator
) -> tuple[tuple[Value, Value] | None, str | None]:
    """T_C and exponent, and why there are none."""
    t, mean, error = _columns(row, "order")
    inside = (t >= _LAW_WINDOW[0] * near) & (t <= _LAW_WINDOW[1] * near)
    if inside.sum() < 4:
        return None, None
    t, mean, error = t[inside], mean[inside], np.maximum(error[inside], 1e-6)
    bounds = np.array([[0.1, t[-1] * 1.0001, 0.05], [5.0, 2 * near, 1.5]])
    start = (1.0, max(near, t[-1] * 1.01), 0.35)

    def fit(noise: np.ndarray) -> np.ndarray:
        try:
            found = curve_fit(power_law, t, mean + noise * error, start, error, bounds=bounds)[0]
        except RuntimeError:
            return np.full(2, np.nan)
        free = (np.abs(found / bounds - 1) > _AT_BOUND).all()
        return found[1:] if free else np.full(2, np.nan)

    trials = np.array([fit(rng.normal(size=len(t))) for _ in range(_N_BOOTSTRAP // 4)])
    central, good = fit(np.zeros(len(t))), np.isfinite(trials).all(axis=1)
    if not np.isfinite(central).all() or good.mean() < 0.5:
        return None, "the fit of (T_C − T)^β ends at a bound of its parameters: it determines no T_C."
    errors = np.std(trials[good], axis=0)
    return (Value(float(central[0]), float(errors[0])), Value(float(central[1]), float(errors[1]))), None


def _bootstrap(function: Callable[[np.ndarray], float], n: int, rng: np.random.Generator) -> Value | None:
    """A function of points and its error; None if it fails for the points, or for half of the trials."""
    central = function(np.zeros(n))
    trials = np.array([function(rng.normal(size=n)) for _ in range(_N_BOOTSTRAP)])
    good = np.isfinite(trials)
    if not np.isfinite(central) or good.mean() < 0.5:
        return None
    return Value(central, float(np.std(trials[good])))
