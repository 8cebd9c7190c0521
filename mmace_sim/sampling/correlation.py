"""Errors of averages and of variances of correlated samples."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

_DECAY = 2.0
"""S of Wolff's window: the correlation is taken to decay S times more slowly than its integral says."""
_LEAST_FREEDOM = 1.5
_TWO_SIGMA = 0.97725
"""Probability that a normal variable is below two standard deviations."""
_SKEWED = (2**4 + 2 * 2**2 - 3) / 18
"""Hall's factor of skewness² / n in the width of a symmetric interval of two standard errors."""
_SLOW_TAILS = 3.0
"""What `_SKEWED` becomes for correlated samples: where a distribution is skewed, a series stays longer in its tail than
elsewhere, so that mean and error go together more than for independent samples (measured on pairs of spins)."""
_LOST = 2 * 2 * _SKEWED * float(np.exp(-2) / np.sqrt(2 * np.pi))
"""The same of what such an interval loses of its coverage where it is not widened."""
_MOST_LOST = 1 / 16
"""Where more than this would be lost, what a series shows does not suffice to widen the interval."""
_LEAST_TIMES = 30.0
"""τ that a series must have for an error of its variance."""
_N_DRAWS = 999
_MOST_BLOCKS = 320
_WIDEST = 10.0
"""Largest error of a variance, in units of it: it says that nothing is known."""


@dataclass(frozen=True)
class Fluctuation:
    """The variance of a series.

    Attributes:
        value: The variance, without the part that the mean of a short series takes.
        error: One standard error.
        is_known: Whether the series is long enough for it, for the skewness that it has.
    """

    value: float
    error: float
    is_known: bool


@dataclass(frozen=True)
class _Analysed:
    """Variance without bias, autocorrelation time τ, lags that it was summed over, and skewness."""

    variance: float = 0.0
    time: float = 1.0
    window: int = 1
    skewness: float = 0.0


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
    return _analysed(series.reshape(len(series), -1)).time


def standard_error(series: Float[np.ndarray, "n n_replicas"]) -> float:
    """Error of a mean, such that twice the error covers 95 % also for short series.

    It is sqrt(τ · variance / n), never less, with corrections that vanish as 1/n: for the mean that was subtracted, for
    the few independent samples that τ and variance come from (Student's t), and for skewness (Hall's expansion). The
    skewness is that of means of independent blocks, but at least that of the samples: few blocks show little. It counts
    up to three times as much for correlated samples, whose excursions last longer than τ says.

    Args:
        series: Samples; several replicas as columns.

    Returns:
        One standard error; 0 for a constant series.

    References:
        U. Wolff, as in `autocorrelation_time`; P. Hall, The Bootstrap and Edgeworth Expansion (Springer, 1992),
        section 2.6, the even polynomial of a studentised mean.
    """
    found, n = _analysed(series), series.size
    if not found.variance > 0:
        return float(found.variance)
    means = _block_means(series, _block_length(series, found))
    skewed = max(_skewed(_skewness(means), len(means)), _skewed(found.skewness, n / found.time))
    freedom = max(n / (2 * found.window + 1 - 2 / found.time), _LEAST_FREEDOM)
    few = student.ppf(_TWO_SIGMA, freedom) / 2
    factor = _SKEWED * (_SLOW_TAILS - (_SLOW_TAILS - 1) / found.time)
    return float(np.sqrt(found.variance * found.time / n) * few * (1 + factor * skewed))


def fluctuation(series: Float[np.ndarray, "n n_replicas"], *, relative: bool = False) -> Fluctuation:
    """Variance of a series, with an error such that value ± 2 errors covers 95 % also for short series.

    The error of its logarithm is sqrt(τ · variance / n) of what each sample adds to it. How far the logarithm is off
    in units of this error is not normally distributed: its distribution comes from drawing blocks of the series again
    (bootstrap-t), each draw with an error of its own, and the error is such that value (1 ± 2 errors / value) holds
    95.45 % of it. What a series does not show can be in no draw: rare excursions make squares so skewed that few
    independent samples do not suffice. How many are needed follows from the skewness of the series, and from what that
    means for its squares where the distribution is that of Pearson's type III (exponential, normal and between).

    Args:
        series: Samples; several replicas as columns.
        relative: Divide by the square of the mean.

    Returns:
        Variance and error, at most `_WIDEST` times the variance; 0 for a constant series.

    References:
        P. Hall, Ann. Statist. 16, 927 (1988), doi:10.1214/aos/1176350933 (symmetric bootstrap-t); A. C. Davison and
        P. Hall, Aust. J. Stat. 35, 215 (1993), doi:10.1111/j.1467-842X.1993.tb01327.x (blocks); W. G. Cochran, Sampling
        Techniques (Wiley, 1977), section 2.15 (n > c γ²).
    """
    own, mean = _analysed(series), float(series.mean())
    centred = series - mean
    squares, scale = centred**2, mean**2 if relative else 1.0
    value = float(squares.mean()) / scale
    if not (own.variance > 0 and value > 0):
        return Fluctuation(value, 0.0 * value, is_known=bool(np.isfinite(value)))
    added = squares / scale - (2 * value / mean * centred if relative else 0.0)
    found = _analysed(added)
    if not found.variance > 0:
        return Fluctuation(value, 0.0, is_known=True)
    n_independent = series.size / found.time
    error = float(np.sqrt(found.variance / n_independent)) / value
    length = _block_length(series, found)
    width = _symmetric(_draws(centred, mean if relative else None, length), error)
    whole = 1 - min(own.time / series.size, 0.5)
    lost = _LOST * _skewness_of_squares(own.skewness) ** 2 / n_independent
    is_known = lost <= _MOST_LOST and series.size >= _LEAST_TIMES * own.time
    return Fluctuation(value / whole, value / whole * max(width / 2, error), is_known=bool(is_known))


def _symmetric(draws: Float[np.ndarray, " n_draws"], error: float) -> float:
    """The w for which 1 ± w holds 95.45 % of what the exact value may be, in units of the measured one."""
    off = np.clip(draws * error, -np.log1p(2 * _WIDEST), None)
    return float(np.quantile(np.where(off < 0, np.expm1(-off), -np.expm1(-off)), 2 * _TWO_SIGMA - 1))


def _draws(
    centred: Float[np.ndarray, "n n_replicas"], mean: float | None, length: int
) -> Float[np.ndarray, " n_draws"]:
    """ln(variance of a draw / variance) in errors of the draw, for draws of blocks; with a mean, of the relative."""
    first, second = _block_means(centred, length), _block_means(centred**2, length)
    n = _round(len(first))
    first, second = first[:n], second[:n]
    weights = _weights(n)
    columns = np.column_stack([first, second, first**2, second**2, first * second])
    m, s, mm, ss, ms = (weights @ columns).T
    m0, s0 = first.mean(), second.mean()
    variance, variance0 = s - m**2, s0 - m0**2
    slope, offset = 2 * m, np.zeros(1)
    if mean is not None:  # ln(variance / mean²) has the derivative −2 / mean more
        slope, offset = 2 * m + 2 * variance / (mean + m), np.log((mean + m0) ** 2 / (mean + m) ** 2)
    spread = (ss - s**2) - 2 * slope * (ms - m * s) + slope**2 * (mm - m**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = (np.log(variance / variance0) + offset) * variance * np.sqrt(n / spread)
    return np.nan_to_num(off, nan=0.0, posinf=1e3, neginf=-1e3)  # a draw of one block only tells nothing


def _round(n: int) -> int:
    """A number of blocks with few other numbers near it, so that draws can be shared."""
    step = 1 << max(n.bit_length() - 4, 0)
    return n - n % step


@lru_cache(maxsize=32)
def _weights(n: int) -> Float[np.ndarray, "n_draws n"]:
    """How often each of n blocks is in each draw, over n."""
    return np.random.default_rng(n).multinomial(n, np.full(n, 1 / n), size=_N_DRAWS) / n


def _block_length(series: Float[np.ndarray, "n n_replicas"], found: _Analysed) -> int:
    """Samples of a block: as many as one independent sample of the variance takes."""
    n, n_replicas = series.shape
    length = max(int(2 * found.window + 1 - 2 / found.time), -(-series.size // _MOST_BLOCKS))
    return min(length, max(n * min(n_replicas, 4) // 4, 1))  # four blocks at least


def _block_means(series: Float[np.ndarray, "n n_replicas"], length: int) -> Float[np.ndarray, " n_blocks"]:
    n = len(series) // length
    return series[: n * length].reshape(n, length, -1).mean(axis=1).ravel()


def _skewness(values: Float[np.ndarray, " n"]) -> float:
    centred = values - values.mean()
    variance = float((centred**2).mean())
    return float((centred**3).mean() / variance**1.5) if variance > 0 else 0.0


def _skewed(skewness: float, n: float) -> float:
    """Skewness² / n of a distribution that n values come from, without what chance alone makes of it, 6 / n."""
    n = max(n, 3.0)
    without_bias = n * (n - 1) / (n - 2) ** 2 * skewness**2
    return max(without_bias - 6 / n, 0.0) / n


def _skewness_of_squares(skewness: float) -> float:
    """Skewness of the squared deviations of a distribution of Pearson's type III (a gamma distribution)."""
    square = skewness**2
    return (7.5 * square**2 + 28 * square + 8) / (2 + 1.5 * square) ** 1.5


def _analysed(series: Float[np.ndarray, "n n_replicas"]) -> _Analysed:
    n, total = len(series), series.size
    centred = series - series.mean()
    largest = max(float(np.abs(series).max()), 1e-300)
    if not np.isfinite(centred).all():
        return _Analysed(variance=np.nan)
    if n < 2 or not np.any(np.abs(centred) > 1e-12 * largest):
        return _Analysed()
    scale = np.abs(centred).max()
    centred = centred / scale
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
    return _Analysed(variance * scale**2, time, window, float((centred**3).mean() / plain**1.5))


def _window(halves: Float[np.ndarray, " n_lags"], lags: np.ndarray, total: int) -> int:
    """The lag where what is left out and the noise of what is summed are equal, for an exponential decay."""
    inside = halves[1:] > 0.5
    safe = np.where(inside, halves[1:], 1.0)
    decay = np.where(inside, _DECAY / np.log((2 * safe + 1) / (2 * safe - 1)), 1e-9)
    growing = np.exp(-lags[1:] / decay) - decay / np.sqrt(lags[1:] * total) > 0
    return len(lags) - 1 if growing.all() else int(np.argmin(growing)) + 1
