"""Exported files against the model itself: random moments, single-ion anisotropy, cells turned in space, several sites."""

import numpy as np
import pytest
from ase import Atoms
from scipy.spatial.transform import Rotation
from test_exchange_files import EV, MRY, numbers, read_spirit, read_tb2j, read_uppasd, read_vampire

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.properties.exchange import Exchange
from mmace_sim.properties.exchange.files import (
    spirit_files,
    tb2j_text,
    uppasd_files,
    vampire_files,
    write_exchange_files,
)
from mmace_sim.testing import HeisenbergModel, TensorExchangeModel

TURN = Rotation.from_euler("xyz", (20, 35, -50), degrees=True).as_matrix()
SIDES = np.diag([2.6, 2.9, 3.3])
EASY = np.array([0.3, -0.2, 0.9]) / np.linalg.norm([0.3, -0.2, 0.9])


class SingleIons(TensorExchangeModel):
    """`TensorExchangeModel` and Σ e·A·e with one A for each element."""

    def __init__(self, tensors, **options):
        super().__init__(r_max=3.6, elements=(26, 27), **options)
        self.tensors = tensors

    def forward(self, graph, edge_vectors=None):
        out = super().forward(graph, edge_vectors)
        e = graph.magmoms / (graph.magmoms * graph.magmoms).sum(dim=1, keepdim=True).sqrt()
        energy = out["energy"]
        for number, tensor in self.tensors.items():
            own = (e @ e.new_tensor(tensor) * e).sum(dim=1) * (graph.atomic_numbers == number)
            energy = energy.index_add(0, graph.system_idx, own.double())
        return out | {"energy": energy}


def uniaxial(constant, axis=EASY):
    return constant * np.outer(axis, axis)


BIAXIAL = {26: TURN @ np.diag([-0.002, 0.0005, 0.003]) @ TURN.T, 27: uniaxial(0.004)}
UNIAXIAL = {26: uniaxial(-0.003), 27: uniaxial(0.001, np.array([0.6, 0.8, 0.0]))}


def crystal():
    cell = SIDES @ TURN.T
    atoms = Atoms("FeCo", scaled_positions=[[0.1, 0.2, 0.3], [0.55, 0.68, 0.81]], cell=cell, pbc=True)
    set_magmoms(atoms, [[0.0, 0.6, 0.8], [0.0, -0.6, -0.8]])
    return atoms


def exchange_of(tensors, **couplings):
    model = SingleIons(tensors, exchange=0.03, **couplings)
    settings = {"cutoff": 3.65, "routes": ["derivatives"], "magmoms": "fixed", "symmetrize": False}
    (result,) = Exchange(model, **settings).run([crystal()])
    return model, result


def random_moments(seed, box):
    """A direction for every place in a periodic box, whatever the order of the atoms."""
    known, rng = {}, np.random.default_rng(seed)
    sites = (crystal().repeat(3).get_scaled_positions() + 1e-6) % 1
    for place in np.round(sites, 3):
        known[tuple(place)] = rng.normal(size=3)

    def direction(position):
        place = np.round((position @ np.linalg.inv(box) + 1e-6) % 1, 3)
        return known[tuple(place)] / np.linalg.norm(known[tuple(place)])

    return direction


def model_difference(model, result, directions):
    box = result.lattice.atoms.repeat(3)
    energies = []
    for direction in directions:
        set_magmoms(box, np.array([direction(position) for position in box.positions]))
        energies.append(float(model(graph_from_atoms(box, model.r_max))["energy"][0]))
    return energies[0] - energies[1]


def file_difference(read, directions):
    """Of a file: its cell, positions, links (i, j, shift, tensor) and own terms (i, tensor) in eV."""
    cell, positions, links, own = read
    cells = np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1).T
    energies = []
    for direction in directions:
        total = 0.0
        for home in cells @ cell:
            e = [direction(position + home) for position in positions]
            total += sum(e[i] @ tensor @ e[i] for i, tensor in own)
            for i, j, shift, tensor in links:
                total += e[i] @ tensor @ direction(positions[j] + home + shift @ cell)
        energies.append(total)
    return energies[0] - energies[1]


def uppasd_own(files):
    rows = [numbers(line) for line in files["uppasd/kfile"].splitlines()]
    n_sites = len(files["uppasd/posfile"].splitlines())
    control = files["uppasd/inpsd.dat"]
    assert "anisotropy ./kfile" in control
    assert len(rows) == n_sites * (2 if "mult_axis Y" in control else 1)  # UppASD reads a line for each site
    assert [int(row[0]) for row in rows[:n_sites]] == list(range(1, n_sites + 1))
    assert all(row[1] == 1 and row[3] == row[7] == 0 for row in rows)  # uniaxial, K1 alone
    return [(int(row[0]) - 1, MRY * row[2] * np.outer(row[4:7], row[4:7])) for row in rows]


def spirit_own(files):
    assert "anisotropy_file anisotropy.txt" in files["spirit/input.cfg"]
    head, _, *lines = files["spirit/anisotropy.txt"].splitlines()
    rows = [numbers(line) for line in lines]
    assert head == f"n_anisotropy {len(rows)}"
    return [(int(row[0]), -1e-3 * row[1] * np.outer(row[2:], row[2:])) for row in rows]


def tb2j_own(text):
    lines = text.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("Single-ion"))
    rows = [numbers(line.strip("[]")) for line in lines[start + 1 :] if line.startswith("[")]
    return [(k, 1e-3 * np.array(rows[3 * k : 3 * k + 3])) for k in range(len(rows) // 3)]


def vampire_own(files):
    lines = [line for line in files["vampire/exchange.ucf"].splitlines() if not line.startswith("#")]
    materials = [int(line.split()[4]) for line in lines[5 : 5 + int(lines[4].split()[0])]]
    lines = files["vampire/exchange.mat"].splitlines()
    values = dict(line.split(" = ") for line in lines if line.startswith("material["))
    out = []
    for k, material in enumerate(materials):
        name = f"material[{material + 1}]:uniaxial-anisotropy-"
        axis = np.array(numbers(values[name + "direction"]))
        out.append((k, -float(values[name + "constant"].split()[0]) / EV * np.outer(axis, axis)))
    return out


def vampire_axes(files):
    """Rows x, y, z of the file in those of the structure, from its header."""
    (line,) = [x for x in files["vampire/exchange.ucf"].splitlines() if x.startswith("# Axes")]
    values = numbers(line.split(" here are ")[1].split(" of ")[0].replace("[", " ").replace("]", " "))
    assert line in files["vampire/exchange.mat"]
    return np.reshape(values, (3, 3))


@pytest.mark.parametrize("code", ["uppasd", "tb2j", "spirit", "vampire"])
def test_each_file_gives_the_energy_of_random_moments_with_anisotropy(code):
    couplings = {"dmi": (0.004, 0.002)} | ({} if code == "spirit" else {"anisotropic": 0.006})
    model, result = exchange_of(UNIAXIAL if code == "vampire" else BIAXIAL, **couplings)
    assert result.anisotropy_error < 1e-9
    box = 3 * crystal().cell.array
    directions = [random_moments(seed, box) for seed in (0, 1)]
    expected = model_difference(model, result, directions)
    if code == "uppasd":
        files = uppasd_files(result)
        read = (*read_uppasd(files), uppasd_own(files))
        assert "not rotated" in files["uppasd/inpsd.dat"]
    elif code == "spirit":
        files = spirit_files(result)
        read = (*read_spirit(files), spirit_own(files))
        assert "not rotated" in files["spirit/input.cfg"]
    elif code == "tb2j":
        text = tb2j_text(result)
        read = (*read_tb2j(text, spin_orbit=True), tb2j_own(text))
        assert "not rotated" in text
    else:
        files = vampire_files(result)
        read, axes = (*read_vampire(files), vampire_own(files)), vampire_axes(files)
        assert np.abs(axes - np.eye(3)).max() > 0.3
        turned = [lambda p, d=d: axes @ d(axes.T @ p) for d in directions]
        assert file_difference(read, turned) == pytest.approx(expected, abs=2e-8)
        return
    assert file_difference(read, directions) == pytest.approx(expected, abs=2e-8)


def test_tensors_of_single_ions_are_found_and_limits_are_named(tmp_path):
    _, result = exchange_of(BIAXIAL, dmi=(0.004, 0.002), anisotropic=0.006)
    for k, tensor in enumerate(BIAXIAL.values()):
        np.testing.assert_allclose(result.anisotropy[k], tensor - np.trace(tensor) / 3 * np.eye(3), atol=1e-9)
    files, notes = write_exchange_files(result, tmp_path)
    assert {"uppasd/kfile", "spirit/anisotropy.txt"} <= set(files)
    assert any("VAMPIRE's files hold one axis" in note and "1.25 meV" in note for note in notes)
    assert any("symmetric anisotropic exchange, up to" in note for note in notes)
    model = HeisenbergModel(exchange_shells=[(2.6, 0.02)], unit_vectors=True, r_max=3.6)
    (plain,) = Exchange(model, cutoff=3.0, routes=["derivatives"], magmoms="fixed").run([layered()])
    files, notes = write_exchange_files(plain, tmp_path / "plain")
    assert not notes
    assert not {"uppasd/kfile", "spirit/anisotropy.txt"} & set(files)


def layered():
    """Three planes of iron as in a strained bcc crystal, two of which are equivalent: the case fe3.extxyz."""
    positions = [[0, 0, 0], [1.415, 1.415, 1.31595], [0, 0, 2.6319]]
    atoms = Atoms("Fe3", positions=positions, cell=[2.83, 2.83, 4.245], pbc=True)
    set_magmoms(atoms, [2.2, 2.2, 2.2])
    return atoms


def test_each_site_is_a_type_of_its_own_in_uppasd():
    """UppASD stores exchange by type: with one for all sites J(2,2,R) is overwritten by J(3,3,R)."""
    model = HeisenbergModel(exchange_shells=[(2.3, 0.02), (2.83, 0.01)], unit_vectors=True)
    (result,) = Exchange(model, cutoff=3.0, routes=["derivatives"], magmoms="fixed").run([layered()])
    files = uppasd_files(result)
    assert [line.split()[:2] for line in files["uppasd/posfile"].splitlines()] == [
        ["1", "1"],
        ["2", "2"],
        ["3", "3"],
    ]
    assert len(files["uppasd/momfile"].splitlines()) == 3
    sites = {tuple(line.split()[:2]) for line in files["uppasd/jfile"].splitlines()}
    assert {site for pair in sites for site in pair} == {"1", "2", "3"}
