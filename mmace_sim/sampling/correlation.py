"""Errors of averages of correlated samples."""

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

_DECAY = 2.0
"""S of Wolff's window: the correlation is taken to decay S times more slowly than its integral says."""
_LEAST_FREEDOM = 1.5
_TWO_SIGMA = 0.97725
"""Probability that a normal variable is below two standard deviations."""


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


def standard_error(influence: Float[np.ndarray, "n n_replicas"], *, least_time: float = 1.0) -> float:
    """Error of a function of averages, such that twice the error covers 95 % also for short series.

    It is sqrt(τ · variance / n), never less, with three corrections that vanish as 1/n: for the mean that was
    subtracted, for the few independent samples that τ and variance come from (Student's t), and for skewed
    distributions, whose extreme samples a short series lacks (Johnson's t).

    Args:
        influence: What each sample adds to the function, to first order: the samples themselves for their mean, and
            (x − x̄)² for a variance.
        least_time: Autocorrelation time, in samples, that is taken if the series itself has a shorter one.

    Returns:
        One standard error; 0 for a constant series.

    References:
        U. Wolff, as in `autocorrelation_time`; N. J. Johnson, J. Am. Stat. Assoc. 73, 536 (1978), doi:10.2307/2286597.
    """
    variance, time, window, skewness = _analysed(influence)
    n = influence.size
    freedom = max(n / (2 * window + 1 - 2 / time), _LEAST_FREEDOM)
    time = max(time, least_time)
    n_independent = n / time
    skewed = np.sqrt(max(skewness**2 - 6 / n_independent, 0.0) / n_independent)
    few = student.ppf(_TWO_SIGMA, freedom) / 2
    return float(np.sqrt(variance / n_independent) * few * (1 + 2 * skewed / 3))


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
