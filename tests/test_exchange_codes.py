"""Exchange against other codes: Spirit runs what we export (if it is installed), TB2J's magnons are ours."""

import re

import numpy as np
import pytest
from test_exchange import SHELLS, crystal_without_symmetry, iron
from test_exchange_exports import BIAXIAL, exchange_of, model_difference, random_moments
from test_exchange_files import field, model_energy

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.properties.exchange import Exchange
from mmace_sim.properties.exchange.files import spirit_files
from mmace_sim.properties.exchange.magnons import spin_waves
from mmace_sim.testing import HeisenbergModel, SpinModel, TensorExchangeModel


def up(_):
    return np.array([0.0, 0.0, 1.0])


def run_spirit(files, folder, direction, n_cells):
    """Energy per spin in eV that Spirit gives for a configuration in a box of n × n × n cells."""
    pytest.importorskip("spirit", reason="Spirit (pip install spirit) is not installed")
    from spirit import geometry, state, system

    control = files["spirit/input.cfg"].replace(
        "n_basis_cells 12 12 12", f"n_basis_cells {n_cells} {n_cells} {n_cells}"
    )
    (folder / "input.cfg").write_text(control)
    for name in set(files) - {"spirit/input.cfg"}:
        (folder / name.removeprefix("spirit/")).write_text(files[name])
    with state.State("input.cfg", quiet=True) as running:
        positions = np.array(geometry.get_positions(running))
        spins = system.get_spin_directions(running)
        spins[:] = [direction(position) for position in positions]
        system.update_data(running)
        return 1e-3 * system.get_energy(running) / len(positions)


def test_spirit_gives_the_energy_of_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Spirit looks for files where it runs
    model = HeisenbergModel(exchange_shells=SHELLS, unit_vectors=True, morse=(0.0, 1.0, 2.5))
    settings = {"cutoff": 4.2, "routes": ["derivatives"], "magmoms": "fixed"}
    files = spirit_files(Exchange(model, **settings).run([iron()])[0])
    energies = [run_spirit(files, tmp_path, direction, 8) for direction in (field, up)]
    assert energies[1] == pytest.approx(-0.5 * (8 * 0.030 + 6 * 0.012 - 12 * 0.004), abs=1e-7)
    expected = model_energy(model, iron(), (4, 4, 4), field) / 2
    assert energies[0] - energies[1] == pytest.approx(expected, abs=1e-7)  # Spirit is in single precision


def test_spirit_gives_the_energy_of_a_chiral_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = TensorExchangeModel(exchange=0.03, dmi=(0.004, 0.002), r_max=3.6, elements=(26, 27))
    settings = {"cutoff": 3.65, "routes": ["derivatives"], "magmoms": "fixed"}
    result = Exchange(model, **settings).run([crystal_without_symmetry()])[0]
    wave = np.linalg.inv(result.lattice.cell) @ (np.array([1, 2, -1]) / 4)

    def spiral(position):
        phase = 2 * np.pi * position @ wave
        vector = np.array([np.sin(phase) + 0.2, np.cos(phase), 0.4 + np.sin(phase + 1)])
        return vector / np.linalg.norm(vector)

    energies = [run_spirit(spirit_files(result), tmp_path, direction, 4) for direction in (spiral, up)]
    box = result.lattice.atoms.repeat((4, 4, 4))
    known = []
    for direction in (spiral, up):
        set_magmoms(box, np.array([direction(position) for position in box.positions]))
        known.append(float(model(graph_from_atoms(box, model.r_max))["energy"][0]) / len(box))
    assert energies[0] - energies[1] == pytest.approx(known[0] - known[1], abs=1e-7)


def test_spirit_gives_the_energy_with_single_ion_anisotropy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, result = exchange_of(BIAXIAL, dmi=(0.004, 0.002))
    directions = [random_moments(seed, 3 * result.lattice.cell) for seed in (0, 1)]
    energies = [run_spirit(spirit_files(result), tmp_path, direction, 3) for direction in directions]
    expected = model_difference(model, result, directions) / (27 * 2)
    assert energies[0] - energies[1] == pytest.approx(expected, abs=1e-7)


TB2J = {
    "": [[0.020004498252393, 0.053075407325795], [0.007776078207867, 0.063227729088432]],
    "dmi": [[0.020366574194134, 0.052731521875712], [0.007961295702018, 0.063023172663572]],
    "dmi at -q": [[0.019503291791873, 0.053558423294656], [0.00756961220705, 0.063453534019958]],
    "all": [[0.020199759291815, 0.052518810851964], [0.007890708203401, 0.062719014998634]],
    "all at -q": [[0.019350280140835, 0.053331909019626], [0.007494935391369, 0.063153465672084]],
}
"""Magnons in eV by TB2J 0.9.22 (`TB2J.magnon.magnon3.Magnon`) from J'/2, two sites of 1 and 2 μB along z. TB2J's
Fourier transform has e^{−iq·R}, so that its q is our −q."""


@pytest.mark.parametrize("case", TB2J)
def test_magnons_are_those_of_tb2j(case):
    couplings = {"": {}, "dmi": {"dmi": (0.004, 0.002)}}
    couplings["all"] = couplings["dmi"] | {"anisotropic": 0.006}
    model = TensorExchangeModel(
        exchange=0.03, r_max=3.6, elements=(26, 27), **couplings[re.sub(" .*", "", case)]
    )
    atoms = crystal_without_symmetry()
    set_magmoms(atoms, [[0, 0, 1.0], [0, 0, 2.0]])
    settings = {"cutoff": 3.65, "routes": ["derivatives"], "magmoms": "fixed"}
    (result,) = Exchange(model, **settings).run([atoms])
    waves = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 3))[[0, 2]]
    waves = waves if case.endswith("-q") else -waves
    energies = spin_waves(result.lattice, result.pairs, result.tensors["derivatives"], waves)[0]
    np.testing.assert_allclose(energies, TB2J[case], atol=1e-9)
    if result.spin_orbit:
        assert np.abs(result.single_ion).max() < 1e-9


def test_magnons_of_a_chiral_ferromagnet():
    """ħω = (2/m) Σ [J' (1 − cos q·R) + D·n sin q·R]."""
    model = SpinModel(exchange_shells=SHELLS, dmi_shells=[(SHELLS[0][0], 0.005)], unit_vectors=True)
    settings = {"cutoff": 4.2, "routes": ["derivatives"], "magmoms": "fixed", "symmetrize": False}
    (result,) = Exchange(model, **settings).run([iron()])
    lattice, pairs = result.lattice, result.pairs
    q = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 3))
    phases = 2 * np.pi * q @ np.linalg.inv(lattice.cell).T @ pairs.vectors.T
    chiral = 0.005 * pairs.vectors @ lattice.axis / pairs.distances * (pairs.distances < 2.6)
    known = 2 / 2.0 * (result.isotropic() * (1 - np.cos(phases)) + chiral * np.sin(phases)).sum(axis=1)
    assert np.abs(chiral @ np.sin(phases.T)).max() > 0.002
    energies = spin_waves(lattice, pairs, result.tensors["derivatives"], q, result.single_ion)[0][:, 0]
    np.testing.assert_allclose(energies, known, rtol=1e-8)


@pytest.mark.parametrize("magmoms", [(2.0, 2.0), (2.0, -2.0)], ids=["fm", "afm"])
def test_an_easy_axis_opens_a_gap(magmoms):
    """FM: ħω + 4K/m; AFM: (2/m) √[(z|J'| + 2K)² − (z J' γ_q)²]."""
    constant, sign = 0.002, np.sign(magmoms[1])
    model = SpinModel(exchange_shells=[(SHELLS[0][0], 0.03 * sign)], uniaxial=constant, unit_vectors=True)
    settings = {"cutoff": 2.9, "routes": ["derivatives"], "magmoms": "fixed"}
    (result,) = Exchange(model, **settings).run([iron(magmoms)])
    np.testing.assert_allclose(
        result.single_ion, np.broadcast_to(2 * constant * np.eye(2), result.single_ion.shape), atol=1e-9
    )
    q = np.array([[0.0, 0.0, 0.0], [0.3, 0.3, 0.3]])
    energies = spin_waves(result.lattice, result.pairs, result.tensors["derivatives"], q, result.single_ion)[
        0
    ]
    phases = 2 * np.pi * q @ np.linalg.inv(result.lattice.cell).T @ result.pairs.vectors.T
    near = (result.pairs.first == 0) & (result.pairs.distances < 2.6)
    gamma = np.cos(phases[:, near]).mean(axis=1)
    own = 8 * 0.03 + 2 * constant
    known = own - 8 * 0.03 * gamma if sign > 0 else np.sqrt(own**2 - (8 * 0.03 * gamma) ** 2)
    np.testing.assert_allclose(
        energies, np.repeat(known[:, None], len(result.lattice.sites), axis=1), rtol=1e-8
    )
    assert result.magnons.stable
