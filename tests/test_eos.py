"""Equations of state against closed forms, magnetic states, jumps and crossings, failures, one batch."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from counting import Counting

from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.properties.eos import EquationOfState
from mmace_sim.properties.eos.analysis import branches, crossings, moment_jumps
from mmace_sim.properties.eos.birch_murnaghan import LARGEST_RESIDUAL, EosStatus, fit_birch_murnaghan
from mmace_sim.properties.eos.plots import FIGURES
from mmace_sim.properties.written import save_figures
from mmace_sim.testing import HeisenbergModel
from mmace_sim.units import EV_PER_A3_IN_GPA

MAGNETOVOLUME = {"exchange": 0.005, "exchange_decay": 2.5, "landau": (-0.02, 0.004)}


def toy(**parameters):
    return Counting(HeisenbergModel(**parameters))


def fcc(a=3.55, moment=2.2):
    atoms = bulk("Fe", "fcc", a=a, cubic=True)
    set_magmoms(atoms, np.full(4, moment))
    return atoms


def bulk_moduli(model, r):
    """B of an fcc ferromagnet at the distance r, in GPa: moments fixed, moments relaxed. By hand."""
    toy = model.model
    (a, b), depth, stiffness = toy.landau, toy.morse[0], toy.morse[1]
    exchange = toy.exchange * np.exp(-toy.exchange_decay * (r - toy.morse[2]))
    square = (6 * exchange - a) / (2 * b)
    x = np.exp(-stiffness * (r - toy.morse[2]))
    morse_rr = 2 * depth * stiffness**2 * (2 * x**2 - x)
    fixed = 6 * morse_rr - 6 * toy.exchange_decay**2 * exchange * square
    coupling = 12 * toy.exchange_decay * exchange * np.sqrt(square)
    relaxed = fixed - coupling**2 / (8 * b * square)
    volume, slope = r**3 / np.sqrt(2), 3 * r**2 / np.sqrt(2)
    return [volume * value / slope**2 * EV_PER_A3_IN_GPA for value in (fixed, relaxed)]


def test_without_magnetovolume_coupling_everything_is_known():
    model = toy()
    (result,) = EquationOfState(model, volume_min=0.9, volume_max=1.06, n_volumes=9).run([fcc()])
    (curve,) = result.curves
    assert result.status is EosStatus.CONVERGED
    (fit,) = curve.fits
    assert fit.volume == pytest.approx(2.5**3 / 2**0.5, rel=2e-4)
    assert fit.energy == pytest.approx(model.model.relaxed_energy(12), abs=2e-5)
    assert fit.bulk_modulus_gpa == pytest.approx(bulk_moduli(model, 2.5)[1], rel=0.01)
    assert fit.moment == pytest.approx(model.model.relaxed_moment(12), abs=1e-3)
    assert np.sign(curve.pressures_gpa[[0, -1]]).tolist() == [1, -1]


def test_moments_that_follow_soften_the_crystal_by_what_they_must():
    model = toy(**MAGNETOVOLUME)
    (relaxed,) = EquationOfState(
        model, volume_min=0.865, volume_max=1.0, n_volumes=11, magforce_tol=1e-6
    ).run([fcc()])
    fit = relaxed.curves[0].fits[0]
    r = (fit.volume * 2**0.5) ** (1 / 3)
    exchange = 0.005 * np.exp(-2.5 * (r - 2.5))
    assert fit.moment == pytest.approx(np.sqrt((6 * exchange + 0.02) / 0.008), abs=2e-3)
    (fixed,) = EquationOfState(model, magmoms="fixed", volume_min=0.865, volume_max=1.0, n_volumes=11).run(
        [fcc(moment=fit.moment)]
    )
    expected = bulk_moduli(model, r)
    assert fixed.curves[0].fits[0].volume == pytest.approx(fit.volume, rel=1e-3)
    assert fixed.curves[0].fits[0].bulk_modulus_gpa == pytest.approx(expected[0], rel=0.03)
    assert fit.bulk_modulus_gpa == pytest.approx(expected[1], rel=0.03)
    assert expected[0] - expected[1] > 0.05 * expected[0]


def test_all_structures_states_and_volumes_are_one_batch_in_order():
    model = toy()
    eos = EquationOfState(model, states=["fm", "afm", "nm"], magmoms="fixed", n_volumes=6)
    seen = []
    results = eos.run([fcc(), fcc(3.6)], on_point=seen.append)
    assert model.n_calls == 1
    assert len(seen) == 36
    for a, result in zip((3.55, 3.6), results, strict=True):
        assert [curve.state for curve in result.curves] == ["fm", "afm", "nm"]
        for curve, order in zip(result.curves, ("FM", "AFM", "non-magnetic"), strict=True):
            np.testing.assert_allclose(curve.volumes, np.linspace(0.88, 1.12, 6) * a**3 / 4)
            assert curve.orders == [order] * 6
    assert results[0].lowest.state == "fm"


def test_positions_can_relax_at_each_volume():
    start = fcc()
    start.rattle(0.05, seed=0)
    settings = {"volume_min": 0.9, "volume_max": 1.06, "n_volumes": 7, "fmax": 1e-3}
    free = EquationOfState(toy(), relax_positions=True, **settings).run([start])[0].curves[0]
    ideal = EquationOfState(toy(), **settings).run([fcc()])[0].curves[0]
    np.testing.assert_allclose(free.energies, ideal.energies, atol=1e-5)
    assert free.points[0].atoms.get_volume() == pytest.approx(0.9 * start.get_volume())


def test_failures_are_statuses():
    copper = fcc()
    copper.numbers[:] = 29
    dimer = Atoms("Fe2", [[0, 0, 0], [0, 0, 2.5]], magmoms=[2, 2])
    primitive = bulk("Fe", "fcc", a=3.55)
    results = EquationOfState(toy(), states=["fm", "afm"], n_volumes=7).run(
        [copper, dimer, fcc(3.9), primitive, fcc()]
    )
    assert [r.status for r in results] == [
        "failed",
        "failed",
        "minimum_outside_range",
        "converged",
        "converged",
    ]
    assert "Cu" in results[0].curves[0].message
    assert "needs a crystal" in results[1].curves[0].message
    assert "Widen the range" in results[2].curves[0].message
    assert results[2].curves[0].fits == []
    assert "doubled cell of 2 atoms" in results[3].curves[1].note
    assert results[3].curves[0].fits[0].energy == pytest.approx(results[4].curves[0].fits[0].energy, abs=1e-6)
    few = EquationOfState(toy(), n_volumes=3, volume_min=0.9, volume_max=1.08).run([fcc()])[0]
    assert few.status is EosStatus.TOO_FEW


def test_points_without_convergence_are_left_out():
    eos = EquationOfState(toy(), n_volumes=9, volume_min=0.9, volume_max=1.06, max_steps=11)
    result = eos.run([fcc(moment=2.2865), fcc(moment=1.0)])
    assert result[1].status is EosStatus.FAILED
    assert "no point converged (max_steps" in result[1].curves[0].message
    assert np.isnan(result[1].curves[0].energies).all()


def test_impossible_settings():
    with pytest.raises(ConfigError, match="unknown magnetic state 'fn'"):
        EquationOfState(toy(), states=["fn"])
    with pytest.raises(ConfigError, match=r"volume_min = 1.1 and volume_max = 0.9"):
        EquationOfState(toy(), volume_min=1.1, volume_max=0.9)
    with pytest.raises(ConfigError, match="magmoms: choose relaxed or fixed"):
        EquationOfState(toy(), magmoms="joint")


def test_a_collapse_splits_the_curve():
    volumes = np.linspace(10, 13, 13)
    moments = np.where(
        volumes > 11.4, 2.5 + 0.1 * (volumes - 11.4), 0.8 * np.sqrt(np.clip(volumes - 10, 0, None))
    )
    moments[3] = np.nan
    (jump,) = moment_jumps(volumes, moments)
    assert jump.volumes == (11.25, 11.5)
    assert jump.moments[1] - jump.moments[0] > 1
    low, high = branches(volumes, [jump])
    assert volumes[low][-1] == 11.25
    assert volumes[high][0] == 11.5
    assert branches(volumes, []) == [slice(0, 13)]
    smooth = 2 * np.sqrt(np.clip(volumes - 10.6, 0, None))
    assert moment_jumps(np.linspace(10, 13, 31), np.interp(np.linspace(10, 13, 31), volumes, smooth)) == []


def test_birch_murnaghan_returns_its_parameters():
    v, (e0, b0, b1, v0) = np.linspace(10, 13, 9), (-3.0, 1.1, 4.6, 11.4)
    eta = (v0 / v) ** (2 / 3)
    energies = e0 + 9 * v0 * b0 / 16 * ((eta - 1) ** 3 * b1 + (eta - 1) ** 2 * (6 - 4 * eta))
    status, fit = fit_birch_murnaghan(v, energies, np.full(9, 2.0))
    assert status is EosStatus.CONVERGED
    values = [
        fit.energy,
        fit.bulk_modulus_gpa / EV_PER_A3_IN_GPA,
        fit.bulk_modulus_derivative,
        fit.volume,
        fit.moment,
    ]
    np.testing.assert_allclose(values, [e0, b0, b1, v0, 2.0], rtol=1e-6)


HCP, OTHER = (7.3, 168, -56, -18800), (10, -200, -800, 15000)


def anharmonic(volumes, kink=0.0, terms=HCP):
    """A curve with terms up to the sixth order in the strain from 10 Å³, B₀ = 276 GPa, and its pressures in GPa.

    The terms of hcp iron are those of a trained model without moments.

    With a kink, energies beyond 10.35 Å³ are lower by kink (V − 10.35)^(3/2), as where a moment sets in.
    """
    v0, bulk = 10.0, 276.0 / EV_PER_A3_IN_GPA
    c = np.polynomial.Polynomial([-8.0, 0.0, 1.0, *terms])
    c.coef[2:] *= 4.5 * v0 * bulk
    f = 0.5 * ((v0 / volumes) ** (2 / 3) - 1)
    beyond = np.clip(volumes - 10.35, 0, None)
    slope = -c.deriv()(f) * (1 + 2 * f) / (3 * volumes) - 1.5 * kink * beyond**0.5
    return c(f) - kink * beyond**1.5, -slope * EV_PER_A3_IN_GPA


@pytest.mark.parametrize("shift", [0.0, 0.07])
@pytest.mark.parametrize("step", [0.2, 0.1])
@pytest.mark.parametrize("terms", [HCP, OTHER], ids=["hcp iron", "other"])
@pytest.mark.parametrize("kink", [0.0, 0.03])
def test_the_bulk_modulus_is_the_curvature_at_the_minimum_of_an_anharmonic_curve(shift, step, kink, terms):
    volumes = np.arange(8.8 + shift, 11.2, step)
    energies, pressures = anharmonic(volumes, kink, terms)
    status, fit = fit_birch_murnaghan(volumes, energies, 0 * volumes, pressures)
    assert status is EosStatus.CONVERGED
    assert fit.bulk_modulus_gpa == pytest.approx(276.0, rel=0.02)
    assert fit.volume == pytest.approx(10.0, rel=3e-4)
    _, bare = fit_birch_murnaghan(volumes, energies, 0 * volumes)
    assert bare.bulk_modulus_gpa == pytest.approx(276.0, rel=0.03)
    # below the lowest point by no more than a parabola between two points
    assert -0.5 * 276 / EV_PER_A3_IN_GPA / 10 * (0.5 * step) ** 2 < fit.energy - energies.min() < 1e-4
    assert fit.residual <= LARGEST_RESIDUAL
    assert fit.n_points < len(volumes)
    np.testing.assert_allclose(fit.energies(np.array([fit.volume])), fit.energy)
    inside = (volumes >= fit.volume_range[0]) & (volumes <= fit.volume_range[1])
    left = fit.energies(volumes[inside]) - energies[inside]
    assert np.sqrt(np.mean(left**2)) == pytest.approx(fit.rms_error)


def test_what_no_smooth_equation_describes_is_not_converged():
    volumes = np.linspace(9.0, 11.0, 11)
    energies, pressures = anharmonic(volumes)
    rng = np.random.default_rng(0)
    status, fit = fit_birch_murnaghan(volumes, energies + 0.01 * rng.normal(size=11), 0 * volumes, pressures)
    assert status is EosStatus.POOR_FIT
    assert "no smooth equation describes the points" in fit.remark()


def test_an_unusual_derivative_is_remarked_and_a_minimum_at_the_edge_told():
    anharmonic_toy = toy(morse=(0.4, 4.0, 2.5))
    (result,) = EquationOfState(anharmonic_toy, magmoms="fixed", volume_min=0.94, volume_max=1.06).run(
        [fcc(3.5355)]
    )
    (curve,) = result.curves
    assert curve.fits[0].bulk_modulus_derivative > 8
    assert f"B₀′ is {curve.fits[0].bulk_modulus_derivative:.2f}, while 2 to 8 is usual" in curve.message
    (edge,) = EquationOfState(toy(), volume_min=0.98, volume_max=1.1, n_volumes=7).run([fcc(3.5355)])
    assert "next to the edge of the range" in edge.curves[0].message


def test_crossings():
    v = np.linspace(10, 12, 11)
    found = crossings(("a", "b"), v, v - 11.1, np.zeros(11))
    assert [(c.below, c.above) for c in found] == [("a", "b")]
    assert found[0].volume == pytest.approx(11.1)
    assert found[0].energy == pytest.approx(0.0)
    assert crossings(("a", "b"), v, 1e-5 * np.sin(9 * v), np.zeros(11)) == []


def test_figures(tmp_path):
    (result,) = EquationOfState(toy(), states=["fm", "nm"], n_volumes=7).run([fcc()])
    names = {path.name for path in save_figures(result, tmp_path / "x", FIGURES)}
    assert names == {"x_energy.png", "x_energy.svg", "x_moment.png", "x_moment.svg"}
    (failed,) = EquationOfState(toy()).run([Atoms("Fe", magmoms=[1])])
    assert save_figures(failed, tmp_path / "y", FIGURES) == []


def test_the_structure_is_not_changed():
    start = fcc()
    copy = start.copy()
    EquationOfState(toy(), states=["file", "afmd"], n_volumes=2).run([start])
    assert start == copy
    np.testing.assert_array_equal(get_magmoms(start), get_magmoms(copy))
