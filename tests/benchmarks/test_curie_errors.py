"""How often the exact value lies within two error bars: AR(1) series, and pairs of spins, of 20 to 1000 τ."""

import os
from itertools import product

import numpy as np
import torch
from record import write
from scipy.signal import lfilter

from mmace_sim.sampling.chains import Series, replicas, run_blocks
from mmace_sim.sampling.correlation import fluctuation, standard_error
from mmace_sim.sampling.hamiltonian import SpinNetwork
from mmace_sim.sampling.heatbath import HeatBath
from mmace_sim.sampling.statistics import points
from mmace_sim.units import BOLTZMANN_EV_PER_K

TRIALS = int(os.environ.get("MMACE_BENCHMARK_TRIALS", "1000"))
LENGTHS = (20, 50, 100, 300, 1000)
MEANS = ("energy", "order")
LEAST_GIVEN = 0.5
"""Where fewer series than this get a bar, those that do are chosen by chance."""
J = 0.02
SAMPLERS = ("heat bath", "small moves", "walk")
KINDS = (*product(SAMPLERS[:2], (0.5, 2.0, 6.0)), ("walk", 6.0))


def ar1(factor, n_sweeps, n_trials, rng):
    """Stationary x' = a x + noise of variance 1, one series a column."""
    noise = rng.normal(size=(n_sweeps, n_trials)) * np.sqrt(1 - factor**2)
    noise[0] /= np.sqrt(1 - factor**2)
    return lfilter([1.0], [1.0, -factor], noise, axis=0)


def test_coverage_of_ar1_series():
    rng = np.random.default_rng(0)
    rows = []
    for factor in (0.5, 0.9, 0.97):
        time = (1 + factor) / (1 - factor)
        for length in LENGTHS:
            for n_replicas in (1, 4):
                n = round(length * time / n_replicas)
                n_trials = min(TRIALS, max(TRIALS // 5, int(TRIALS * 4000 / (n * n_replicas))))
                series = ar1(factor, n, n_trials * n_replicas, rng).reshape(n, n_trials, n_replicas)
                means = series.mean(axis=(0, 2))
                errors = np.array([standard_error(series[:, k]) for k in range(n_trials)])
                squares = [fluctuation(series[:, k]) for k in range(n_trials)]
                known = [f for f in squares if f.is_known]
                rows.append({
                    "factor": factor, "time": time, "length_in_times": length, "replicas": n_replicas, "trials": n_trials,
                    "covered": float(np.mean(np.abs(means) < 2 * errors)),
                    "variance_covered": float(np.mean([abs(f.value - 1) < 2 * f.error for f in known])) if known else None,
                    "variance_given": len(known) / n_trials,
                    "median_error_over_exact": float(np.median(errors) / np.sqrt(time / (n * n_replicas))),
                })  # fmt: skip
    write("curie_errors_ar1", {"rows": rows, "exact_mean": 0.0})
    for row in rows:
        check(row["covered"], 1.0, row)
        check(row["variance_covered"], row["variance_given"], row)


def check(covered, given, row):
    """Of rows where at least half of the series get a bar: 93 to 97 %, but for the chance of that many series."""
    slack = 2.5 * np.sqrt(0.045 * 0.955 / (row["trials"] * max(given, 1e-9)))
    assert given < LEAST_GIVEN or 0.93 - slack < covered < 0.97 + slack, row


def exact_pair(x):
    """Averages of a pair with E = −J' u, u = e₁·e₂ and density ∝ exp(x u), per spin as `points` gives them."""
    u = np.linspace(-1, 1, 40001)
    weight = np.exp(x * (u - 1))

    def mean(values):
        return np.trapezoid(weight * values, u) / np.trapezoid(weight, u)

    order = np.sqrt((1 + u) / 2)
    kt = J / x
    return {
        "energy": -J * mean(u) / 2, "order": mean(order),
        "susceptibility": 2 * (mean(order**2) - mean(order) ** 2) / kt,
        "heat_capacity": 2 * (J / 2 / kt) ** 2 * (mean(u**2) - mean(u) ** 2),
        "binder": 1 - mean(order**4) / (3 * mean(order**2) ** 2),
    }  # fmt: skip


def heat_bath_pairs(x, n_sweeps, n_chains):
    """u of pairs by the sampler of the package: energies and orders."""
    network = SpinNetwork.build(np.array([[1], [0]]), np.full((2, 1), J), np.ones(2), np.ones(2))
    chains = replicas([J / (BOLTZMANN_EV_PER_K * x)], 0, n_chains, "pair")
    values = run_blocks(HeatBath([network], chains), 20, n_sweeps).counted
    return {key: values[key][:, 0].astype(float) for key in ("energy", "order")}


def metropolis_pairs(x, n_sweeps, n_chains, rng, *, step=0.2):
    """The same by small moves as those of `LocalMoves`: a Gaussian step added to a unit vector, normalised."""
    e = rng.normal(size=(2, n_chains, 3))
    e /= np.linalg.norm(e, axis=2, keepdims=True)
    u, kept = (e[0] * e[1]).sum(axis=1), np.empty((n_sweeps, n_chains))
    for k in range(-300, n_sweeps):
        for i in (0, 1):
            new = e[i] + step * rng.normal(size=(n_chains, 3))
            new /= np.linalg.norm(new, axis=1, keepdims=True)
            changed = (new * e[1 - i]).sum(axis=1)
            accepted = rng.random(n_chains) < np.exp(np.clip(x * (changed - u), None, 0))
            e[i], u = np.where(accepted[:, None], new, e[i]), np.where(accepted, changed, u)
        if k >= 0:
            kept[k] = u
    return {"energy": -J * kept / 2, "order": np.sqrt((1 + np.clip(kept, -1, 1)) / 2)}


def walking_pairs(x, n_sweeps, n_chains, rng, *, step=0.25):
    """A walk in u itself, with steps that do not shrink near u = 1: the larger an excursion, the longer it takes."""
    u, kept = rng.uniform(-1, 1, n_chains), np.empty((n_sweeps, n_chains))
    for k in range(-2000, n_sweeps):
        new = u + step * rng.uniform(-1, 1, n_chains)
        accepted = (np.abs(new) <= 1) & (rng.random(n_chains) < np.exp(np.clip(x * (new - u), None, 0)))
        u = np.where(accepted, new, u)
        if k >= 0:
            kept[k] = u
    return {"energy": -J * kept / 2, "order": np.sqrt((1 + kept) / 2)}


def long_time(values):
    """τ of all chains together, from their known common mean."""
    centred = values - values.mean()
    spectrum = np.abs(np.fft.rfft(centred, 2 * len(values), axis=0)) ** 2
    correlation = np.fft.irfft(spectrum, axis=0)[: len(values) // 4].mean(axis=1)
    correlation /= len(values) - np.arange(len(correlation))
    return float(2 * np.cumsum(correlation / correlation[0])[-1] - 1)


def drawn_pairs(sampler, x, n, n_trials, rng):
    """Energies and orders of pairs, one series a column."""
    if sampler == "heat bath":
        return heat_bath_pairs(x, n, n_trials)
    return {"small moves": metropolis_pairs, "walk": walking_pairs}[sampler](x, n, n_trials, rng)


def coverage(series, temperature, exact):
    """By quantity: the part of the series whose bars hold the exact value, of those with a bar, and how many have one."""
    chains, n_trials = replicas([temperature], 0, 1, "pair"), series["order"].shape[1]
    found = [
        points(Series({key: v[:, None, k : k + 1] for key, v in series.items()}, 0), chains, [2])[0][0].values
        for k in range(n_trials)
    ]
    covered, given = {}, {}
    for key, value in exact.items():
        known = [values[key] for values in found if values[key].is_known]
        given[key] = len(known) / n_trials
        covered[key] = float(np.mean([abs(v.mean - value) < 2 * v.error for v in known])) if known else None
    return covered, given


def pair_rows(sampler, x):
    """Rows of one kind of pair, each with random numbers of its own."""
    exact, temperature = exact_pair(x), J / (BOLTZMANN_EV_PER_K * x)
    seed = [SAMPLERS.index(sampler), round(10 * x)]
    known = (
        drawn_pairs(sampler, x, 8000, 400, np.random.default_rng(seed))["order"]
        if sampler != "heat bath"
        else None
    )
    time = 1.0 if known is None else long_time(known)
    for length in LENGTHS:
        n = round(length * time)
        if 10 <= n <= 25_000:
            series = drawn_pairs(sampler, x, n, TRIALS, np.random.default_rng([*seed, length]))
            covered, given = coverage(series, temperature, exact)
            yield {"sampler": sampler, "J_over_kT": x, "time": time, "length_in_times": length,
                   "trials": TRIALS, "covered": covered, "given": given}  # fmt: skip


def test_coverage_of_pairs():
    torch.set_num_threads(1)
    rows = [row for sampler, x in KINDS for row in pair_rows(sampler, x)]
    write("curie_errors_pair", {"rows": rows, "exact": {str(x): exact_pair(x) for x in (0.5, 2.0, 6.0)}})
    for row in rows:
        for key, part in row["given"].items():
            assert part == 1 or key not in MEANS, row
            if row["sampler"] != "walk":
                check(row["covered"][key], part, row)
