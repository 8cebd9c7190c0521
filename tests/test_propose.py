"""Candidates: what each recipe does to a structure, names that are content, copies, and what is no state of matter."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.io import write
from cli_tools import mmace_sim
from embedded import IRON_MODEL

from mmace_sim.data.candidates import (
    HOLD,
    ID,
    Distinct,
    candidate,
    content_hash,
    held,
    load_candidates,
    refusal,
)
from mmace_sim.data.propose import propose
from mmace_sim.data.recipes import RECIPES
from mmace_sim.data.settings import ProposeSettings
from mmace_sim.errors import ConfigError, DataError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.graph.magnetic_order import MagneticOrder, classify_order
from mmace_sim.io.writing import write_extxyz


@pytest.fixture
def feco() -> Atoms:
    atoms = bulk("Fe", "bcc", a=2.85, cubic=True)
    atoms.symbols[1] = "Co"
    set_magmoms(atoms, [2.6, 1.7])
    return atoms


def made(atoms, *recipes, **settings):
    chosen = ProposeSettings(recipe=list(recipes), **settings)
    return propose({"feco": atoms}, chosen)


def lengths(atoms):
    return np.linalg.norm(get_magmoms(atoms), axis=1)


def test_volumes_keep_shape_and_leave_moments_free(feco):
    found = made(feco, "volumes:5", volume_range=[0.9, 1.1]).candidates
    np.testing.assert_allclose([a.get_volume() / feco.get_volume() for a in found], np.linspace(0.9, 1.1, 5))
    assert not any(held(a).any() for a in found)
    np.testing.assert_allclose(found[0].cell.angles(), 90)


def test_strains_are_symmetric_and_bounded(feco):
    for atoms in made(feco, "strains:8", max_strain=0.04).candidates:
        strain = np.linalg.solve(feco.cell.array, atoms.cell.array) - np.eye(3)
        np.testing.assert_allclose(strain, strain.T, atol=1e-12)
        assert 0 < np.abs(strain).max() <= 0.04
        np.testing.assert_allclose(atoms.get_scaled_positions(), feco.get_scaled_positions(), atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("pbc", [True, False])
def test_strains_leave_a_vacuum_alone(feco, axis, pbc):
    slab = feco.repeat((2, 2, 2))
    slab.rotate(37, (1, 2, 3), rotate_cell=True)
    slab.cell[axis] *= 4
    slab.pbc[axis] = pbc
    others = [k for k in range(3) if k != axis]
    normal = np.cross(*slab.cell[others])
    for atoms in made(slab, "strains:3").candidates:
        np.testing.assert_allclose(atoms.cell[axis] @ normal, slab.cell[axis] @ normal)
        np.testing.assert_allclose(atoms.positions @ normal, slab.positions @ normal, atol=1e-9)
        assert np.linalg.norm(atoms.cell[others] - slab.cell[others]) > 0.01
    assert not made(slab, "volumes:3").candidates


def test_rattles_displace_and_need_more_than_one_atom(feco):
    iron = bulk("Fe")
    set_magmoms(iron, [2.2])
    for start, n_atoms in ((feco, 2), (iron, 2)):
        for atoms in made(start, "rattles:4").candidates:
            assert len(atoms) == n_atoms
            assert atoms.get_volume() / len(atoms) == pytest.approx(start.get_volume() / len(start))
    assert len(made(feco, "rattles:4").candidates) == 4


def test_vacancies_lack_each_atom_in_turn(feco):
    found = made(feco, "vacancies:8", max_atoms=8).candidates
    assert {len(a) for a in found} == {7}
    assert {a.get_chemical_formula() for a in found} == {"Co4Fe3", "Co3Fe4"}


def test_orders_are_all_collinear_orders_and_free(feco):
    found = made(feco, "orders:20", max_atoms=4).candidates
    kinds = {str(classify_order(get_magmoms(a))) for a in found}
    assert {"FM", "ferri", "non-magnetic"} <= kinds
    assert max(map(len, found)) == 4
    assert not any(held(a).any() for a in found)


def test_lengths_scale_by_at_most_the_largest_factor(feco):
    found = made(feco, "lengths:12", max_scale=1.5).candidates
    factors = np.array([lengths(a) / lengths(feco) for a in found])
    assert factors.min() >= 0
    assert factors.max() <= 1.5
    together = np.ptp(factors, axis=1) < 1e-12
    assert together[::2].all()
    assert not together[1::2].any()
    assert all(held(a).all() for a in found)


def test_rotations_turn_one_moment_and_keep_its_length(feco):
    for atoms in made(feco, "rotations:10").candidates:
        np.testing.assert_allclose(lengths(atoms), lengths(feco))
        turned = np.abs(get_magmoms(atoms) - get_magmoms(feco)).max(axis=1) > 1e-6
        assert turned.sum() == 1


def test_angles_between_nought_and_pi_are_all_as_likely(feco):
    found = made(feco, "paper-mn3pt:400").candidates
    cosines = [(get_magmoms(a) / lengths(a)[:, None])[:, 2] for a in found]
    angles = np.arccos(np.clip(np.concatenate(cosines), -1, 1))
    counts, _ = np.histogram(angles, bins=4, range=(0, np.pi))
    assert np.abs(counts / len(angles) - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / len(angles))


def test_frames_turn_all_moments_together(feco):
    base = get_magmoms(feco) @ get_magmoms(feco).T
    found = made(feco, "frames:5").candidates
    assert len(found) == 5  # they differ with spin–orbit coupling alone
    for atoms in found:
        np.testing.assert_allclose(get_magmoms(atoms) @ get_magmoms(atoms).T, base, atol=1e-10)
        assert abs(get_magmoms(atoms)[0, 2]) < 2.6


def test_spirals_have_one_length_and_no_axis():
    iron = bulk("Fe")
    set_magmoms(iron, [2.2])
    found = made(iron, "spirals:4", max_atoms=4).candidates
    assert found
    for atoms in found:
        np.testing.assert_allclose(lengths(atoms), 2.2)
        assert classify_order(get_magmoms(atoms)) == MagneticOrder.NON_COLLINEAR


def test_collinear_gives_no_other_states(feco):
    names = [
        n for n, r in RECIPES.items() if not r.needs_model and not r.parts and n not in ("frames", "random")
    ]
    found = made(feco, *[f"{n}:6" for n in names], collinear=True).candidates
    assert len(found) > 30
    assert all(classify_order(get_magmoms(a)) != MagneticOrder.NON_COLLINEAR for a in found)


def test_random_cells_are_dense_and_no_atoms_touch(feco):
    found = made(feco, "random:6", elements=["Fe", "Co", "Al"], max_atoms=4).candidates
    assert len(found) == 6
    assert all(refusal(a) == "" and 2 <= len(a) <= 4 for a in found)
    assert all(6 < a.get_volume() / len(a) < 40 for a in found)


def test_only_magnetic_atoms_are_held():
    atoms = bulk("Fe", "bcc", a=2.9, cubic=True)
    atoms.symbols[1] = "Al"
    set_magmoms(atoms, [2.2, 0.0])
    for found in made(atoms, "lengths:3", "mixed:3", max_atoms=4).candidates:
        assert held(found)[found.symbols == "Al"].sum() == 0
        assert held(found)[found.symbols == "Fe"].all()


def test_the_same_settings_give_the_same_names_whatever_else_is_asked_for(feco):
    alone = [a.info[ID] for a in made(feco, "mixed:5").candidates]
    beside = [a.info[ID] for a in made(feco, "strains:3", "mixed:5").candidates]
    assert beside[3:] == alone
    assert len(set(beside)) == 8
    assert not set(alone) & {a.info[ID] for a in made(feco, "mixed:5", seed=1).candidates}


def test_a_name_is_content(feco, tmp_path):
    first = made(feco, "mixed:1").candidates[0]
    write_extxyz(tmp_path / "c.extxyz", [first])
    again = load_candidates([tmp_path / "c.extxyz"])[0][0]
    assert content_hash(again) == content_hash(first)
    assert again.info[ID].endswith(content_hash(first)[:12])
    other = first.copy()
    other.arrays[HOLD][0] ^= True
    assert content_hash(other) != content_hash(first)


def test_two_contents_under_one_name_are_refused(feco, tmp_path):
    first, second = (candidate(feco, get_magmoms(feco) * k, hold=True) for k in (1, 2))
    first.info[ID] = second.info[ID] = "a"
    write_extxyz(tmp_path / "c.extxyz", [first, second])
    with pytest.raises(DataError, match="two candidates are called 'a'"):
        load_candidates([tmp_path / "c.extxyz"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda atoms: atoms.positions.__setitem__((0, 0), np.nan), "is not finite"),
        (lambda atoms: atoms.set_cell([[2.8, 0, 0], [0, 2.8, 0], [2.8, 2.8, 0]]), "zero volume"),
    ],
)
def test_what_cannot_be_a_structure_is_told_when_it_is_read(feco, tmp_path, change, told):
    good, bad = (candidate(feco, get_magmoms(feco), hold=True) for _ in range(2))
    good.info[ID], bad.info[ID] = "good", "bad"
    change(bad)
    write(tmp_path / "c.extxyz", [bad, good])
    found, problems = load_candidates([tmp_path / "c.extxyz"])
    assert [atoms.info[ID] for atoms in found] == ["good"]
    assert len(problems) == 1
    assert told in problems[0]
    chosen = mmace_sim("data", "select", "none", tmp_path / "c.extxyz", "-n", 2, "-o", tmp_path / "s.extxyz")
    assert chosen.exit_code in (0, 3), chosen.output
    assert [atoms.info[ID] for atoms in load_candidates([tmp_path / "s.extxyz"])[0]] == ["good"]


def test_a_cell_that_is_far_too_small_is_refused_at_once():
    point = candidate(Atoms("Fe", cell=[0.05] * 3, pbc=True), np.zeros((1, 3)), hold=False)
    assert "0.050 Å apart" in refusal(point)


def test_copies_in_other_clothes_are_recognised(feco):
    distinct = Distinct()
    state = candidate(feco, get_magmoms(feco), hold=True)
    assert distinct.is_new(state)
    swapped = state[[1, 0]]
    doubled = make_supercell(state, [[1, 1, 0], [0, 1, 0], [0, 0, 2]])
    turned = state.copy()
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    set_magmoms(turned, -get_magmoms(state)[:, [2, 0, 1]])
    for copy in (swapped, doubled, turned):
        assert not distinct.is_new(copy)
    assert distinct.is_new(candidate(feco, get_magmoms(feco), hold=False))  # another calculation
    assert distinct.is_new(candidate(feco, np.array([[0, 0, 2.6], [0, 0, -1.7]]), hold=True))


def test_atoms_on_top_of_each_other_are_no_candidate(feco):
    squeezed = feco.copy()
    squeezed.positions[1] = (0.9, 0.9, 0.9)
    assert "closer than" in refusal(candidate(squeezed, get_magmoms(feco), hold=True))
    found = made(squeezed, "lengths:4")
    assert found.candidates == []
    assert found.refused["lengths"] == 4
    single = Atoms("Fe", cell=[1.2, 4, 4], pbc=True)
    assert "Fe–Fe at 1.20 Å" in refusal(candidate(single, np.zeros((1, 3)), hold=False))


def test_recipes_that_ask_a_model_need_one(feco):
    with pytest.raises(ConfigError, match="--model"):
        made(feco, "md")


def test_snapshots_are_where_the_model_goes():
    iron = bulk("Fe", cubic=True)
    set_magmoms(iron, [2.2, 2.2])
    found = made(iron, "md:2", "relax:3", model=IRON_MODEL, max_atoms=2, temperature=300)
    kinds = [a.info["config_type"] for a in found.candidates]
    assert kinds.count("feco-md") == 2
    assert kinds.count("feco-relax") >= 1
    moved = found.candidates[0].get_distance(0, 1, mic=True)
    assert 0.001 < abs(moved - iron.get_distance(0, 1, mic=True)) < 0.5
    assert all(held(a).all() for a in found.candidates)


@pytest.mark.parametrize(
    ("option", "told"),
    [(["--recipe", "volume"], "unknown recipe"), (["--recipe", "volumes:0"], "must lie between"),
     (["--volume-range", "1.1,0.9"], "smaller one first"), (["--elements", "Xx"], "no element")],
)  # fmt: skip
def test_wrong_settings_are_refused(tmp_path, option, told):
    done = mmace_sim("data", "propose", "x.cif", *option, "-o", str(tmp_path / "c.extxyz"))
    assert done.exit_code == 2
    assert told in done.output


def test_the_command_writes_candidates_and_tells_recipes(feco, tmp_path):
    feco.write(tmp_path / "FeCo.cif")
    (tmp_path / "broken.cif").write_text("nothing")
    out = tmp_path / "c.extxyz"
    done = mmace_sim(
        "data", "propose", str(tmp_path), "--recipe", "volumes:3", "--collinear", "-o", str(out), "--json"
    )
    assert done.exit_code == 3  # one file is broken, the other goes on
    told = json.loads(done.stdout)
    assert told["candidates"] == 3
    assert told["recipes"][0]["recipe"] == "volumes"
    assert len(told["problems"]) == 1
    found, _ = load_candidates([out])
    assert len(found) == 3
    assert {a.info["config_type"] for a in found} == {"FeCo-volumes"}
    assert (
        mmace_sim("data", "propose", str(tmp_path / "FeCo.cif"), "-o", str(out)).exit_code == 2
    )  # not overwritten
