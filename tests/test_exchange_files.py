"""Exported exchange constants reproduce the energy of a configuration in the convention of each code."""

import numpy as np
import pytest
from ase.build import bulk
from test_exchange import SHELLS, A, crystal_without_symmetry, iron

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.properties.exchange import Exchange
from mmace_sim.properties.exchange.files import (
    orthogonal_cell,
    spirit_files,
    tb2j_text,
    uppasd_files,
    vampire_files,
    write_exchange_files,
)
from mmace_sim.testing import HeisenbergModel, TensorExchangeModel

EV = 1.602176634e-19
MRY = 13.605693e-3


def field(position):
    """A smooth direction for every place, periodic in boxes of four cubic cells of bcc iron."""
    x = 2 * np.pi * position / (4 * A)
    vector = np.array([np.sin(x[0]) + 0.3, np.cos(x[1] + 0.2), np.sin(x[2] - 0.4) + 0.5 * np.cos(x[0])])
    return vector / np.linalg.norm(vector)


def energy_of(links, cell, positions, n_cells, direction):
    """Σ e_i·J·e_j over listed links (i, j, shift, 3×3) of all cells of a periodic box, per cell."""
    total = 0.0
    cells = np.array(np.meshgrid(*map(range, n_cells), indexing="ij")).reshape(3, -1).T
    for i, j, shift, tensor in links:
        for home in cells:
            one = direction(positions[i] + home @ cell)
            two = direction(positions[j] + (home + shift) @ cell)
            total += one @ tensor @ two
    return total / len(cells)


def model_energy(model, atoms, n_cells, direction):
    """Energy per cell from the model itself, relative to nothing: pair energy alone."""
    box = atoms.repeat(n_cells)
    from mmace_sim.graph.batch import graph_from_atoms

    lengths = np.linalg.norm(box.arrays["initial_magmoms"], axis=1)
    energies = []
    for flip in (1.0, 0.0):  # a field that is the same everywhere gives the zero
        vectors = np.array([direction(p) if flip else [0, 0, 1.0] for p in box.positions])
        set_magmoms(box, lengths[:, None] * vectors)
        energies.append(float(model(graph_from_atoms(box, model.r_max))["energy"][0]))
    return (energies[0] - energies[1]) / np.prod(n_cells)


def numbers(line):
    return [float(x) for x in line.replace("(", " ").replace(")", " ").replace(",", " ").split()]


def tensor_of(values):
    return np.reshape(values, (3, 3)) if len(values) == 9 else values[0] * np.eye(3)


def read_uppasd(files):
    lines = files["uppasd/inpsd.dat"].splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("cell"))
    cell = np.array([numbers(line.replace("cell", "")) for line in lines[start : start + 3]])
    positions = np.array([numbers(line)[2:] for line in files["uppasd/posfile"].splitlines()]) @ cell
    links = []
    for line in files["uppasd/jfile"].splitlines():
        i, j, a, b, c, *values = numbers(line)
        links.append((int(i) - 1, int(j) - 1, np.array([a, b, c]), -MRY * tensor_of(values)))
    return cell, positions, links


def read_spirit(files):
    lines = files["spirit/input.cfg"].splitlines()
    at = {line.split()[0]: k for k, line in enumerate(lines) if line}
    cell = np.array([numbers(line) for line in lines[at["bravais_vectors"] + 1 :][:3]])
    n = int(lines[at["basis"] + 1])
    positions = np.array([numbers(line) for line in lines[at["basis"] + 2 :][:n]]) @ cell
    rows = [numbers(line) for line in files["spirit/pairs.txt"].splitlines()[2:]]
    assert files["spirit/pairs.txt"].startswith(f"n_interaction_pairs {len(rows)}\n")
    assert "n_interaction_pairs" not in files["spirit/input.cfg"]
    links = []
    for i, j, a, b, c, exchange, x, y, z in rows:
        chiral = np.array([[0, z, -y], [-z, 0, x], [y, -x, 0]])
        links.append((int(i), int(j), np.array([a, b, c]), -1e-3 * (exchange * np.eye(3) + chiral)))
    return cell, positions, links


def read_tb2j(text, *, spin_orbit):
    lines = text.splitlines()
    start = lines.index("Cell (Angstrom):")
    cell = np.array([numbers(line) for line in lines[start + 1 : start + 4]])
    first = next(k for k, line in enumerate(lines) if line.startswith("Atom_number"))
    last = next(k for k in range(first, len(lines)) if lines[k].startswith("==="))
    names = [line.split()[0] for line in lines[first + 1 : last]]
    positions = np.array([numbers(line.split(maxsplit=1)[1])[:3] for line in lines[first + 1 : last]])
    links = []
    for k, line in enumerate(lines):
        if not line.startswith("J_iso:"):
            continue
        one, two, rest = lines[k - 1].split(maxsplit=2)
        tensor = float(line.split()[1]) * np.eye(3)
        if spin_orbit:
            x, y, z = numbers(lines[k + 1].removeprefix("DMI:"))
            tensor += np.array([[0, z, -y], [-z, 0, x], [y, -x, 0]])
            tensor += [numbers(row.strip("[]")) for row in lines[k + 3 : k + 6]]
        links.append((names.index(one), names.index(two), np.array(numbers(rest)[:3]), -1e-3 * tensor))
    return cell, positions, links


def read_vampire(files):
    lines = [line for line in files["vampire/exchange.ucf"].splitlines() if not line.startswith("#")]
    cell = np.diag(numbers(lines[0]))
    n = int(lines[4].split()[0])
    positions = np.array([numbers(line)[1:4] for line in lines[5 : 5 + n]]) @ cell
    count, kind = lines[5 + n].split()
    rows = [numbers(line)[1:] for line in lines[6 + n :]]
    assert len(rows) == int(count)
    assert kind == ("tensorial" if len(rows[0]) == 14 else "isotropic")
    ends = {(int(r[0]), int(r[1]), *r[2:5]) for r in rows}
    assert all((j, i, -a, -b, -c) in ends for i, j, a, b, c in ends)  # each pair from both ends
    links = [(int(r[0]), int(r[1]), np.array(r[2:5]), -0.5 * tensor_of(r[5:]) / EV) for r in rows]
    return cell, positions, links


@pytest.fixture(scope="module")
def iron_result():
    model = HeisenbergModel(exchange_shells=SHELLS, unit_vectors=True, morse=(0.0, 1.0, 2.5))
    settings = {"cutoff": 4.2, "routes": ["derivatives"], "magmoms": "fixed"}
    return model, Exchange(model, **settings).run([iron()])[0]


@pytest.mark.parametrize("code", ["uppasd", "spirit", "tb2j", "vampire"])
def test_each_file_gives_the_energy_of_the_model(code, iron_result):
    model, result = iron_result
    read = {
        "uppasd": lambda: read_uppasd(uppasd_files(result)),
        "spirit": lambda: read_spirit(spirit_files(result)),
        "tb2j": lambda: read_tb2j(tb2j_text(result), spin_orbit=False),
        "vampire": lambda: read_vampire(vampire_files(result)),
    }[code]
    cell, positions, links = read()
    size = len(positions)
    n_cells = (4, 4, 4) if size == 2 else (8, 8, 8)
    primitive_box = size == 1  # eight primitive vectors span the box of four cubic cells in every direction
    energies = [
        energy_of(links, cell, positions, n_cells, direction) / size
        for direction in (field, lambda _: np.array([0, 0, 1.0]))
    ]
    assert primitive_box or size == 2
    expected = model_energy(model, iron(), (4, 4, 4), field) / 2
    assert energies[0] - energies[1] == pytest.approx(expected, abs=1e-8)
    assert "J' > 0 ferromagnetic" in tb2j_text(result)


def test_tensors_survive_in_the_files(tmp_path):
    model = TensorExchangeModel(
        exchange=0.03, dmi=(0.004, 0.002), anisotropic=0.006, r_max=3.6, elements=(26, 27)
    )
    settings = {"cutoff": 3.65, "routes": ["derivatives"], "magmoms": "fixed"}
    result = Exchange(model, **settings).run([crystal_without_symmetry()])[0]
    one = np.random.default_rng(1).normal(size=(2, 3))
    one /= np.linalg.norm(one, axis=1)[:, None]
    pairs = result.pairs

    def energy(links):  # both sites uniform but different
        return sum(one[i] @ tensor @ one[j] for i, j, _, tensor in links)

    expected = -0.5 * sum(
        one[i] @ t @ one[j]
        for i, j, t in zip(pairs.first, pairs.second, result.tensors["derivatives"], strict=True)
    )
    assert energy(read_uppasd(uppasd_files(result))[2]) == pytest.approx(expected, abs=1e-8)
    assert energy(read_tb2j(tb2j_text(result), spin_orbit=True)[2]) == pytest.approx(expected, abs=1e-8)
    without = 0.5 * sum(
        one[i] @ g @ one[j] for i, j, g in zip(pairs.first, pairs.second, result.anisotropic(), strict=True)
    )
    assert energy(read_spirit(spirit_files(result))[2]) == pytest.approx(expected + without, abs=1e-8)
    files, notes = write_exchange_files(result, tmp_path)
    assert not any(name.startswith("vampire") for name in files)
    assert any("right-angled" in note for note in notes)
    assert all((tmp_path / name).is_file() for name in files)


def test_right_angled_cells():
    bcc = bulk("Fe", "bcc", a=2.87).cell.array
    for lattice, size in (
        (bcc, 2),
        (bulk("Ni", "fcc", a=3.5).cell.array, 2),
        (bulk("Co", "hcp").cell.array, 2),
    ):
        matrix = orthogonal_cell(lattice)
        cell = matrix @ lattice
        np.testing.assert_allclose(cell @ cell.T, np.diag(np.diag(cell @ cell.T)), atol=1e-9)
        assert round(np.linalg.det(matrix @ lattice) / abs(np.linalg.det(lattice))) == size
    assert orthogonal_cell(crystal_without_symmetry().cell.array) is None
