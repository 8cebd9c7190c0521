"""Errors of averages of correlated samples."""

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import chdtr, chdtrc
from scipy.stats import t as student

_DECAY = 2.0
"""S of Wolff's window: the correlation is taken to decay S times more slowly than its integral says."""
_LEAST_FREEDOM = 1.5
_TWO_SIGMA = 0.97725
"""Probability that a normal variable is below two standard deviations."""
_RARE = 4.0
"""How much τ is underestimated by series that rare, long excursions make skewed (times skewness² / n_independent)."""
_UNSEEN = 4.0
"""Skewness that few samples do not show, relative to what they show (over the root of their number)."""
_WIDEST = 10.0
"""Largest error of a variance, in units of it: it says that nothing is known."""


def autocorrelation_time(series: Float[np.ndarray, " n"] | Float[np.ndarray, "n n_replicas"]) -> float:
    """Integrated autocorrelation time τ, in samples: the error of the mean is sqrt(τ · variance / n).

    Args:
        series: Samples; several replicas as columns, whose common mean is taken.

    Returns:
        τ = 1 + 2 Σ_t ρ(t), at least 1, summed up to a window that follows from the samples (1 for a constant series).

    References:
        U. Wolff, Comput. Phys. Commun. 156, 143 (2004), doi:10.1016/S0010-4655(03)00467-3, section 3.3 for the
        window and equation 49 for the bias of a subtracted mean.
    """
    return _analysed(series.reshape(len(series), -1))[1]


def standard_error(influence: Float[np.ndarray, "n n_replicas"]) -> float:
    """Error of a function of averages, such that twice the error covers 95 % also for short series.

    It is sqrt(τ · variance / n), never less, with corrections that vanish as 1/n: for the mean that was
    subtracted, for the few independent samples that τ and variance come from (Student's t), and for skewed
    distributions, whose extreme samples a short series lacks (Johnson's t, and a longer τ).

    Args:
        influence: What each sample adds to the function, to first order: the samples themselves for their mean.

    Returns:
        One standard error; 0 for a constant series.

    References:
        U. Wolff, as in `autocorrelation_time`; N. J. Johnson, J. Am. Stat. Assoc. 73, 536 (1978), doi:10.2307/2286597.
    """
    variance, time, window, skewness = _analysed(influence)
    n = influence.size
    few = _few(n, window, time)
    n_independent = n / time
    skewed = max(skewness**2 - 6 / n_independent, 0.0) / n_independent
    n_independent = n / _with_excursions(time, skewed)
    return float(np.sqrt(variance / n_independent) * few * (1 + 2 * np.sqrt(skewed) / 3))


def variance_error(
    series: Float[np.ndarray, "n n_replicas"], influence: Float[np.ndarray, "n n_replicas"], value: float
) -> float:
    """Error of a multiple of the variance of a series, such that twice the error covers 95 % also for short series.

    Variances of few samples are not normally distributed: mostly too small, and with them the errors that follow from
    the same samples. Box's approximation is taken in place of it: value / exact is distributed as χ² / ν, with the ν
    that the variance of the value says, and the error is such that value ± 2 errors covers 95.45 % of it. ν follows
    from the kurtosis that the series shows, or from that of a truncated exponential distribution of the same skewness
    if it is larger (1.8 (1 + skewness²), exact for uniform and exponential): few samples seldom show their tail.

    Args:
        series: Samples.
        influence: What each sample adds to the value, to first order and up to a constant: (x − x̄)² for the variance.
        value: The multiple of the variance, in the unit of `influence`.

    Returns:
        One standard error, at most `_WIDEST` times the value; 0 for a constant series.

    References:
        G. E. P. Box, Biometrika 40, 318 (1953), doi:10.2307/2333350. The constants were chosen on independent samples
        of normal, uniform and exponential distributions, see tests/benchmarks/test_curie_errors.py.
    """
    spread, time, window, _ = _analysed(influence)
    variance, series_time, _, skewness = _analysed(series)
    if not (spread > 0 and variance > 0 and value > 0):
        return float(spread * 0)
    n = series.size
    few = _few(n, window, time)
    shown = spread / value**2
    skewed = max(skewness**2 - 6 * series_time / n, 0.0) * series_time / n
    # squares forget in half of the time; those of a skewed series follow it (skewness² / shown is their squared
    # correlation with it, 1/2 for an exponential distribution) and forget as slowly
    follows = min(2 * skewness**2 / shown, 1.0)
    time = max(time, _with_excursions(series_time, skewed) * (1 + follows) / 2)
    n_independent = max(n / time, 3.0)
    certain = skewness**2 / (skewness**2 + 12 / n_independent)
    tailed = 0.8 + 1.8 * (skewness * (1 + _UNSEEN / np.sqrt(n_independent))) ** 2
    relative = (shown + certain * max(tailed - shown, 0.0)) / (n_independent - 1) * few**2
    return float(value * max(np.sqrt(shown / n_independent), _half_width(2 / relative)))


def _half_width(freedom: float) -> float:
    """Half of the h for which q < 1 / (1 + h) or q > 1 / (1 − h) has a probability of 4.55 %, with q from χ² / ν."""

    def excess(logarithm: float) -> float:
        h = np.exp(logarithm)
        above = chdtrc(freedom, freedom / (1 - h)) if h < 1 else 0.0
        return float(chdtr(freedom, freedom / (1 + h)) + above - 2 * (1 - _TWO_SIGMA))

    widest = np.log(2 * _WIDEST)
    if excess(widest) > 0:
        return _WIDEST
    return float(np.exp(brentq(excess, -20.0, widest)) / 2)


def _few(n: int, window: int, time: float) -> float:
    """Student's factor for the independent samples that a variance and its τ come from."""
    freedom = max(n / (2 * window + 1 - 2 / time), _LEAST_FREEDOM)
    return float(student.ppf(_TWO_SIGMA, freedom) / 2)


def _with_excursions(time: float, skewed: float) -> float:
    """τ with rare and long excursions that most short series lack; independent samples stay independent."""
    return 1 + (time - 1) * (1 + _RARE * skewed)


def _analysed(series: Float[np.ndarray, "n n_replicas"]) -> tuple[float, float, int, float]:
    """Variance without bias, autocorrelation time, number of lags that it was summed over, and skewness."""
    n, total = len(series), series.size
    centred = series - series.mean()
    largest = max(float(np.abs(series).max()), 1e-300)
    if not np.isfinite(centred).all():
        return np.nan, 1.0, 1, 0.0
    if n < 2 or not np.any(np.abs(centred) > 1e-12 * largest):
        return 0.0, 1.0, 1, 0.0
    centred = centred / np.abs(centred).max()
    n_lags = max(n // 2, 1) + 1
    lags = np.arange(n_lags)
    spectrum = np.abs(np.fft.rfft(centred, 2 * n, axis=0)) ** 2
    products = np.fft.irfft(spectrum, axis=0)[:n_lags].sum(axis=1)
    correlation = products / (series.shape[1] * (n - lags))
    halves = np.cumsum(correlation / correlation[0]) - 0.5
    window = _window(halves, lags, total)
    lost = 1 - min((2 * window + 1) / total, 0.5)
    plain = correlation[0]
    variance = plain * (1 + max(2 * halves[window] / lost, 0.0) / total)
    time = max(2 * halves[window] * plain / (lost * variance), 1.0)
    scale = np.abs(series - series.mean()).max() ** 2
    return variance * scale, time, window, float((centred**3).mean() / plain**1.5)


def _window(halves: Float[np.ndarray, " n_lags"], lags: np.ndarray, total: int) -> int:
    """The lag where what is left out and the noise of what is summed are equal, for an exponential decay."""
    inside = halves[1:] > 0.5
    safe = np.where(inside, halves[1:], 1.0)
    decay = np.where(inside, _DECAY / np.log((2 * safe + 1) / (2 * safe - 1)), 1e-9)
    growing = np.exp(-lags[1:] / decay) - decay / np.sqrt(lags[1:] * total) > 0
    return len(lags) - 1 if growing.all() else int(np.argmin(growing)) + 1
