"""Errors of correlated samples, and ordering temperatures from points, against known answers."""

import numpy as np
import pytest
from scipy.signal import lfilter
from test_curie import UNIT, J, lattice, network

from mmace_sim.properties.curie.estimators import crossing, estimate, peak, power_law
from mmace_sim.properties.curie.output import point_row
from mmace_sim.properties.curie.temperatures import too_short
from mmace_sim.sampling.chains import Series, replicas, run_blocks
from mmace_sim.sampling.correlation import autocorrelation_time, fluctuation, standard_error
from mmace_sim.sampling.hamiltonian import SpinHamiltonian
from mmace_sim.sampling.heatbath import HeatBath
from mmace_sim.sampling.statistics import CurieStatus, Point, Value, points


def test_autocorrelation_of_a_known_process():
    """x' = a x + noise: τ = (1 + a)/(1 − a)."""
    rng = np.random.default_rng(0)
    for a in (0.0, 0.8, 0.95):
        noise, x = rng.normal(size=60_000), np.zeros(60_000)
        for k in range(1, len(x)):
            x[k] = a * x[k - 1] + noise[k]
        assert autocorrelation_time(x) == pytest.approx((1 + a) / (1 - a), rel=0.15)
    assert autocorrelation_time(np.ones(100)) == 1.0


def test_short_and_drifting_chains_are_told():
    model = SpinHamiltonian.from_shells(lattice(), [(2.5, J)])
    chains = replicas([1.44 * UNIT], 0, 1, "x")
    sampler = HeatBath([model.network(8)], chains, n_over=0)
    series = run_blocks(sampler, 0, 60)
    short = Series({key: values[:20] for key, values in series.values.items()}, 0)
    ((point,),) = points(short, chains, sampler.sizes)
    assert point.autocorrelation > 1
    assert point.status is CurieStatus.NOT_EQUILIBRATED
    series.values["order"][:] = np.random.default_rng(0).normal(size=(60, 1, 1)) * 0.01 + 0.5
    series.values["energy"][:] = series.values["order"]
    assert points(series, chains, [512])[0][0].status is CurieStatus.CONVERGED
    series.values["order"][30:] += 0.1
    assert points(series, chains, [512])[0][0].status is CurieStatus.NOT_EQUILIBRATED


GRID = (500, 600, 700, 800, 850, 900, 940, 970, 1000, 1030, 1060, 1100, 1200)


def fake_points(size, critical=1000.0, exponent=0.37, nu=0.71, temperatures=GRID):
    """Points that scale as theory says, with small errors."""
    t = np.array(temperatures, dtype=float)
    x = (t / critical - 1) * size ** (1 / nu)
    order = np.maximum(power_law(t, 1.0, critical, exponent), 0.02)
    binder = 0.5556 - 0.1111 * np.tanh(0.3 * x - 0.5)
    susceptibility = size**2 / (1 + (0.5 * x) ** 2)
    rows = []
    for k, temperature in enumerate(t):
        values = {"order": order[k], "binder": binder[k], "susceptibility": susceptibility[k]}
        values = {key: Value(float(v), 1e-3 * float(v)) for key, v in values.items()}
        rows.append(Point(float(temperature), size**3, 1000, values, 1.0, 0.0, CurieStatus.CONVERGED))
    return rows


def test_estimators_find_a_known_temperature():
    found = estimate([fake_points(6), fake_points(8), fake_points(12)])
    for value in (*found.crossings, found.peaks[-1], found.power_law):
        assert value.mean == pytest.approx(1000, abs=max(4 * value.error, 5))
        assert 0 < value.error < 20
    assert found.exponent.mean == pytest.approx(0.37, abs=0.02)
    assert found.best[0] == "binder_crossing"
    assert found.notes == []
    alone = estimate([fake_points(8)])
    assert alone.best[0] == "susceptibility_peak"
    assert "several --sizes" in alone.notes[0]
    assert estimate([fake_points(6)[:3], fake_points(8)[:3]]).best is None
    assert np.isnan(peak(np.arange(4.0), np.arange(1, 5.0)))
    assert np.isnan(crossing(np.arange(1.0, 6), np.ones(5), 3.0))


@pytest.mark.parametrize(
    "temperatures",
    [range(200, 1601, 200), range(100, 1501, 100), range(150, 1550, 100), range(330, 1800, 130),
     range(700, 1301, 50), range(960, 1050, 10)],
)  # fmt: skip
def test_crossings_on_any_grid_are_right_within_their_errors(temperatures):
    """Points must be taken where they are: nearest in temperature, not in the order of a sort."""
    rows = [fake_points(size, temperatures=list(temperatures)) for size in (6, 8, 12)]
    found = estimate(rows)
    step = temperatures.step
    for value in found.crossings:
        assert abs(value.mean - 1000) < 2 * value.error
        assert value.error < 0.3 * step + 2
    if step >= 50:  # wider than the transition: better ones are proposed
        low, high, better = map(float, found.notes[-1].split("--temperatures ")[1].rstrip(".").split(":"))
        assert low < 1000 < high
        assert better < step
    else:
        assert not any("--temperatures" in note for note in found.notes)


def test_what_the_points_do_not_determine_is_not_reported():
    rows = [fake_points(6), fake_points(8)]
    for row, sign in zip(rows, (1, -1), strict=True):  # a crossing at 600 K, far below the susceptibility
        for point in row:
            point.values["binder"] = Value(0.6 + sign * 1e-5 * (point.temperature - 610), 1e-6)
    found = estimate(rows)
    assert found.crossings == [None]
    assert "cross at 610 K, far from" in found.notes[0]
    for point in rows[1]:  # M₀ above the highest that is possible
        point.values["order"] = Value(20 * point.values["order"].mean, 1e-3)
    found = estimate(rows)
    assert found.power_law is found.exponent is None
    assert any("at a bound" in note for note in found.notes)
    low = estimate([fake_points(8, temperatures=range(1100, 1400, 50))])
    assert low.best is None
    assert any("add lower --temperatures" in note for note in low.notes)


def test_errors_cover_the_truth_as_often_as_they_say():
    """Twice the error covers a normal mean in 95.4 % of all cases, for chains of 10 to 300 τ."""
    rng = np.random.default_rng(0)
    factor, n_trials = 0.8, 1000
    for length in (10, 20, 60, 300):
        n = 9 * length
        noise = rng.normal(size=(n, n_trials)) * np.sqrt(1 - factor**2)
        series = noise / np.sqrt(1 - factor**2)
        for k in range(1, n):
            series[k] = factor * series[k - 1] + noise[k]
        errors = np.array([standard_error(series[:, k : k + 1]) for k in range(n_trials)])
        covered = (np.abs(series.mean(axis=0)) < 2 * errors).mean()
        assert 0.93 < covered < 0.975, length
        assert np.median(errors) > 0.97 * (9 / n) ** 0.5


DISTRIBUTIONS = {  # of variance 1, and what a series of 100 shows of its variance
    "normal": (lambda rng, shape: rng.normal(size=shape), 1.0, True),
    "uniform": (lambda rng, shape: rng.random(shape) * np.sqrt(12), 1.0, True),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1.0, False),
}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("n", [100, 1000])
def test_errors_of_variances_cover_the_truth_or_are_not_given(kind, n):
    draw, exact, at_once = DISTRIBUTIONS[kind]
    series = draw(np.random.default_rng(n), (n, 400))
    found = [fluctuation(column[:, None]) for column in series.T]
    known = [f for f in found if f.is_known]
    assert len(known) > 0.95 * len(found) if at_once or n == 1000 else len(known) < 0.05 * len(found)
    if len(known) > 0.5 * len(found):
        covered = np.mean([abs(f.value - exact) < 2 * f.error for f in known])
        assert 0.93 - 0.025 < covered < 0.97 + 0.025
        assert np.median([f.error for f in known]) < 1.4 * series.var(axis=0).std()  # not by being wide
    for f, column in zip(found, series.T, strict=True):
        assert f.error >= 0.9 * ((column - column.mean()) ** 2).std() / np.sqrt(n)


def test_errors_of_variances_of_correlated_normal_series():
    rng = np.random.default_rng(3)
    factor, n, n_trials = 0.9, 950, 300  # 50 τ
    noise = rng.normal(size=(n, n_trials)) * np.sqrt(1 - factor**2)
    noise[0] /= np.sqrt(1 - factor**2)
    series = lfilter([1.0], [1.0, -factor], noise, axis=0)
    found = [fluctuation(column[:, None]) for column in series.T]
    values, errors = np.array([(f.value, f.error) for f in found]).T
    known = np.array([f.is_known for f in found])
    assert known.mean() > 0.85  # some look shorter than they are
    assert values.mean() == pytest.approx(1.0, abs=4 * values.std() / n_trials**0.5)
    assert 0.93 - 0.03 < np.mean((np.abs(values - 1) < 2 * errors)[known]) < 0.99
    assert 1.0 < np.median(errors) / values.std() < 1.5


def test_the_relative_variance_is_the_variance_over_the_square_of_the_mean():
    series = 5 + np.random.default_rng(0).normal(size=(400, 2))
    plain, relative = fluctuation(series), fluctuation(series, relative=True)
    assert relative.value == pytest.approx(plain.value / series.mean() ** 2)
    assert relative.error / relative.value == pytest.approx(plain.error / plain.value, rel=0.1)
    scaled = fluctuation(3 * series, relative=True)
    assert (scaled.value, scaled.error) == pytest.approx((relative.value, relative.error))


def test_errors_of_skewed_means_see_excursions_that_last():
    """A rare state that lasts makes means of blocks skewed: the bar is wider than that of independent samples."""
    rng = np.random.default_rng(0)
    calm = rng.normal(size=(2000, 1))
    assert standard_error(calm) == pytest.approx(calm.std() / 2000**0.5, rel=0.15)
    visits = calm.copy()
    visits[700:760] += 30
    found = standard_error(visits)
    plain = (autocorrelation_time(visits) * visits.var() / 2000) ** 0.5
    assert found > 1.15 * plain


def test_errors_of_variances_at_their_limits():
    constant = fluctuation(np.full((50, 2), 3.0))
    assert (constant.value, constant.error) == (0, 0)
    once = np.zeros((20, 1))
    once[7] = 1.0  # all that is known of the variance is one sample
    found = fluctuation(once)
    assert not found.is_known
    assert 0.9 < found.error / found.value <= 10
    assert np.isnan(fluctuation(np.array([[1.0], [np.nan], [2.0]])).value)
    for shape in ((1, 1), (2, 1), (3, 5)):
        assert np.isfinite(fluctuation(np.random.default_rng(1).normal(size=shape)).error)


def test_points_without_an_error_are_told_and_left_empty():
    rng = np.random.default_rng(0)
    chains = replicas([100.0], 0, 1, "x")
    series = {"order": 1 - 0.01 * rng.exponential(size=(60, 1, 1)), "energy": rng.normal(size=(60, 1, 1))}
    ((point,),) = points(Series(series, 0), chains, [2])
    assert point.status is CurieStatus.CONVERGED
    assert [point.values[key].is_known for key in ("susceptibility", "heat_capacity")] == [False, True]
    row = point_row(point)
    assert row["susceptibility"] > 0
    assert row["susceptibility_error"] is None
    assert row["heat_capacity_error"] > 0
    (note,) = too_short([[point]])
    assert "no error of binder, susceptibility at 1 point (100 K)" in note
    assert too_short([[]]) == []


def test_fluctuations_of_a_pair_are_exact_within_their_errors():
    """Pairs of spins, each a chain of its own: C, χ and U per spin by quadrature, u = e₁·e₂ of density exp(x u)."""
    x, n_chains, n_sweeps = 1.0, 200, 100
    u = np.linspace(-1, 1, 20001)
    weight = np.exp(x * u)
    o = np.sqrt((1 + u) / 2)

    def mean(values):
        return np.trapezoid(values * weight, u) / np.trapezoid(weight, u)

    exact = {
        "heat_capacity": 0.5 * (1 - x**2 / np.sinh(x) ** 2),
        "susceptibility": 2 * (mean(o**2) - mean(o) ** 2) * x / J,
        "binder": 1 - mean(o**4) / (3 * mean(o**2) ** 2),
    }
    chains = replicas([UNIT / x], 0, n_chains, "pair")
    values = run_blocks(HeatBath([network([[1], [0]], 1)], chains), 5, n_sweeps).counted
    found = [
        points(Series({key: v[:, :, k : k + 1] for key, v in values.items()}, 0), chains[:1], [2])[0][
            0
        ].values
        for k in range(n_chains)
    ]
    for key, value in exact.items():
        means, errors = (np.array([getattr(f[key], what) for f in found]) for what in ("mean", "error"))
        assert means.mean() == pytest.approx(value, abs=4 * means.std() / n_chains**0.5)
        assert errors.mean() > 0.95 * means.std()
        assert (np.abs(means - value) < 2 * errors).mean() > 0.92
