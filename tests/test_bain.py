"""Energy maps over c/a and volume: geometry, minima in closed form, states, failures; the command."""

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from cli_tools import RUN_FILES, bcc, csv_rows, mmace_sim, names_in, summary_of, write_tiny_model

from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.model.checkpoint import load_model
from mmace_sim.properties.bain import BainMinimum, BainPath, find_minima, lowest_along_path
from mmace_sim.properties.bain.plots import FIGURES
from mmace_sim.properties.eos.birch_murnaghan import EosStatus
from mmace_sim.properties.written import save_figures
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel

FILES = RUN_FILES | {"curves.csv", "figures"}
FCC_VOLUME = 2.5**3 / 2**0.5


@pytest.fixture
def toy():
    return MagneticMaceModel(HeisenbergModel())


def fcc_as_bct(moments=(2.2, 2.2)):
    """fcc with the relaxed distance of the toy, as a body-centred tetragonal cell."""
    atoms = bulk("Fe", "bcc", a=2.5, cubic=True)
    atoms.set_cell([2.5, 2.5, 2.5 * 2**0.5], scale_atoms=True)
    set_magmoms(atoms, moments)
    return atoms


def test_fcc_is_found_on_the_path(toy):
    path = BainPath(
        toy,
        states=["fm", "nm"],
        ratio_min=1.36,
        ratio_max=1.47,
        n_ratios=8,
        volume_min=0.95,
        volume_max=1.06,
        n_volumes=7,
    )
    (result,) = path.run([fcc_as_bct()])
    assert result.status is EosStatus.CONVERGED
    fm, nm = result.maps
    (minimum,) = fm.minima
    assert minimum.c_over_a == pytest.approx(2**0.5, abs=2e-3)
    assert minimum.volume == pytest.approx(FCC_VOLUME, rel=5e-3)
    assert minimum.energy == pytest.approx(toy.model.relaxed_energy(12), abs=2e-3)
    assert minimum.moment == pytest.approx(toy.model.relaxed_moment(12), abs=1e-2)
    assert nm.minima[0].energy - minimum.energy > 1
    assert result.lowest_energy == minimum.energy
    along = lowest_along_path(fm)
    assert np.nanmin(along) == pytest.approx(minimum.energy, abs=5e-3)


@pytest.mark.parametrize("ratios", [(1.36, 1.5), (1.37, 1.47)])
def test_minima_are_where_symmetry_puts_them_on_coarse_grids(toy, ratios):
    """fcc is at c/a = √2 whatever the grid, and no energy is lower than what a calculation gives."""
    low, high = ratios
    path = BainPath(
        toy,
        states=["fm"],
        ratio_min=low,
        ratio_max=high,
        n_ratios=5,
        volume_min=0.9,
        volume_max=1.1,
        n_volumes=6,
    )
    (result,) = path.run([fcc_as_bct()])
    ((minimum,),) = (one.minima for one in result.maps)
    assert minimum.refined
    assert minimum.c_over_a == pytest.approx(2**0.5, abs=1e-4)
    assert minimum.volume == pytest.approx(FCC_VOLUME, rel=3e-4)
    assert minimum.energy == pytest.approx(toy.model.relaxed_energy(12), abs=1e-5)
    assert minimum.energy > toy.model.relaxed_energy(12) - 1e-9
    assert minimum.grid_ratio in result.c_over_a
    assert result.maps[0].message == ""


def test_a_minimum_whose_cell_relaxes_away_is_the_point_of_the_grid(toy):
    """Springs between nearest neighbours do not hold bcc; a minimum there, made by hand."""
    path = BainPath(
        toy,
        states=["fm"],
        ratio_min=0.96,
        ratio_max=1.04,
        n_ratios=5,
        volume_min=0.97,
        volume_max=1.03,
        n_volumes=5,
    )
    (result,) = path.run([fcc_as_bct()])
    (one,) = result.maps
    point = one.points[12]
    one.minima = [BainMinimum(0.99, 11.0, point.energy / 2 - 1.0, 2.0, False, 1.0, float(result.volumes[2]))]
    path._refine(result)
    assert not one.minima[0].refined
    assert (one.minima[0].c_over_a, one.minima[0].energy) == (1.0, point.energy / 2)
    assert "The minimum at c/a = 1.000 is a point of the grid: the cell relaxes away" in one.message


def test_cells_have_the_ratio_and_the_volume_that_were_asked_for(toy):
    start = fcc_as_bct()
    (result,) = BainPath(toy, states=["fm", "afmd"], magmoms="fixed", n_ratios=3, n_volumes=3).run([start])
    for one, height in zip(result.maps, (1, 2), strict=True):
        assert one.energies.shape == (3, 3)
        for point, (ratio, volume) in zip(
            one.points, [(r, v) for r in (0.85, 1.25, 1.65) for v in result.volumes], strict=True
        ):
            a, b, c = point.atoms.cell.lengths()
            assert a == pytest.approx(b)
            assert c / height / a == pytest.approx(ratio)
            assert point.atoms.get_volume() / len(point.atoms) == pytest.approx(volume)
    np.testing.assert_allclose(result.volumes, np.array([0.84, 0.98, 1.12]) * FCC_VOLUME)


def test_a_turned_cell_gives_the_same_map(toy):
    turned = fcc_as_bct()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    settings = {"states": ["fm"], "magmoms": "fixed", "n_ratios": 3, "n_volumes": 3}
    a, b = BainPath(toy, **settings).run([fcc_as_bct(), turned])
    np.testing.assert_allclose(a.maps[0].energies, b.maps[0].energies, atol=1e-9)


def test_a_structure_is_told_as_soon_as_its_map_is_complete(toy):
    points, told = [], []
    path = BainPath(toy, states=["fm"], magmoms="fixed", n_ratios=3, n_volumes=3, max_batch_atoms=18)
    results = path.run(
        [fcc_as_bct(), fcc_as_bct()],
        on_finished=lambda index, result: told.append((index, len(points), result)),
        on_point=points.append,
    )
    assert [(index, count) for index, count, _ in told] == [(0, 9), (1, 18)]
    assert [result for *_, result in told] == results


def test_failures_are_statuses(toy):
    primitive = bulk("Fe", "fcc", a=3.5)
    molecule = Atoms("Fe2", [[0, 0, 0], [0, 0, 2.5]])
    for atoms in (primitive, molecule):
        set_magmoms(atoms, np.full(len(atoms), 2.0))
    results = BainPath(toy, states=["fm"], n_ratios=3, n_volumes=3).run([primitive, molecule, fcc_as_bct()])
    assert [result.status for result in results] == ["failed", "failed", "minimum_outside_range"]
    assert "needs a tetragonal cell" in results[0].maps[0].message
    assert "Give the conventional cell" in results[0].maps[0].message
    assert "needs a crystal" in results[1].maps[0].message
    assert "at the edge of the map" in results[2].maps[0].message
    assert np.isnan(results[0].lowest_energy)
    with pytest.raises(ConfigError, match=r"ratio_min = 1\.2 and ratio_max = 1\.0"):
        BainPath(toy, ratio_min=1.2, ratio_max=1.0)
    with pytest.raises(ConfigError, match="n_volumes: Input should be greater than or equal to 3"):
        BainPath(toy, n_volumes=2)
    with pytest.raises(ConfigError, match="unknown magnetic state"):
        BainPath(toy, states=["x"])


def test_supercells_keep_their_number_of_atoms(toy):
    cell = make_supercell(fcc_as_bct(), np.diag([2, 2, 1]))
    (result,) = BainPath(toy, states=["file"], magmoms="fixed", n_ratios=3, n_volumes=3).run([cell])
    assert len(result.maps[0].points[0].atoms) == 8


def test_minima_of_a_known_surface():
    x, y = np.linspace(0.8, 1.6, 17), np.linspace(10, 12, 11)
    surface = (
        (x[:, None] - 1.02) ** 2
        + 0.3 * (y[None] - 11.13) ** 2
        + 0.1 * (x[:, None] - 1.02) * (y[None] - 11.13)
    )
    (minimum,) = find_minima(x, y, surface - 4.0, np.full((17, 11), 2.0))
    assert (minimum.c_over_a, minimum.volume, minimum.energy) == pytest.approx((1.02, 11.13, -4.0))
    surface[4, 6] = np.nan
    assert find_minima(x, y, surface, surface) == []


def test_figures(toy, tmp_path):
    (result,) = BainPath(toy, states=["fm", "nm"], n_ratios=4, n_volumes=4).run([fcc_as_bct()])
    names = {path.name for path in save_figures(result, tmp_path / "x", FIGURES)}
    assert names == {f"x_{what}.{end}" for what in ("map", "path") for end in ("png", "svg")}


def test_the_command_builds_the_cell_of_an_element(tmp_path):
    out = tmp_path / "run"
    result = mmace_sim("bain", "-o", out, "--states", "fm,afm", "--n-ratios", "5", "--n-volumes", "3")
    assert result.exit_code in (0, 3), result.output
    assert names_in(out) == FILES
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"Fe_{what}.{end}" for what in ("map", "path") for end in ("png", "svg")
    }
    (entry,) = summary_of(out)["structures"]
    assert entry["file"] == "element Fe"  # of the nine that the model knows
    assert len(load_model("default").elements) > 1
    assert entry["c_over_a"] == pytest.approx([0.85, 1.05, 1.25, 1.45, 1.65])
    assert np.array(entry["maps"][0]["energies"]).shape == (5, 3)
    assert entry["maps"][0]["minima"][0]["energy_above_lowest"] == 0
    assert len(csv_rows(out / "curves.csv")) == 30
    assert mmace_sim("bain", "-c", out / "config.yaml", "--force", "-q", "--no-figures").output == ""


def test_the_command_takes_files_and_refuses_what_is_wrong(tmp_path):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    ase.io.write(tmp_path / "a.extxyz", [bcc(), bulk("Fe", "fcc", a=3.5)])
    arguments = ("-m", model, "-o", tmp_path / "o", "--n-ratios", "3", "--n-volumes", "3", "--states", "nm")
    result = mmace_sim("bain", tmp_path / "a.extxyz", *arguments, "--no-figures")
    assert result.exit_code == 3, result.output
    first, second = summary_of(tmp_path / "o")["structures"]
    assert first["name"] == "a.extxyz#0"
    assert first["status"] != "failed"
    assert "tetragonal" in second["message"]
    write_tiny_model(tmp_path / "no-iron.safetensors", elements=[13, 28])
    for extra, message in (
        (("-m", tmp_path / "no-iron.safetensors"), "--element Al|Ni"),
        (("--element", "Au"), "element 'Au'"),
        ((tmp_path / "a.extxyz", "--element", "Fe"), "use one of them"),
        (("--states", "x"), "unknown magnetic state"),
    ):
        result = mmace_sim("bain", "-m", model, *extra, "-o", tmp_path / "p")
        assert result.exit_code == 2, result.output
        assert message in result.output
    assert "c/a = √2 is fcc" in mmace_sim("bain", "--help").output
