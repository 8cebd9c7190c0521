"""The choice of candidates: what is known or copied is never chosen, what is far and uncertain is chosen first."""

import json

import numpy as np
import pytest
from ase.build import bulk
from cli_tools import mmace_sim, write_tiny_model
from embedded import IRON_MODEL

from mmace_sim.data.candidates import ID, candidate, load_candidates, named
from mmace_sim.data.propose import propose
from mmace_sim.data.select import Scores, random_choice, score, select
from mmace_sim.data.settings import ProposeSettings
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.io.writing import write_extxyz
from mmace_sim.model.checkpoint import load_model


@pytest.fixture(scope="module")
def model():
    return load_model(IRON_MODEL)


@pytest.fixture(scope="module")
def pool():
    iron = bulk("Fe", a=2.84, cubic=True)
    set_magmoms(iron, [2.2, 2.2])
    settings = ProposeSettings(recipe=["volumes:4", "rattles:4", "vacancies:3", "mixed:6"])
    return propose({"bcc": iron}, settings).candidates


def names(candidates, choices):
    return [candidates[choice.index].info[ID] for choice in choices]


def test_what_the_model_has_no_data_of_comes_before_bulk(model, pool):
    chosen = select(pool, 3, score(pool, model))
    assert any("vacancies" in name for name in names(pool, chosen))
    assert not any("volumes" in name for name in names(pool, chosen))
    assert "of the data" in chosen[0].reason
    assert "times the median" in chosen[0].reason


@pytest.mark.parametrize("known", [False, True])
def test_copies_are_chosen_once(model, pool, known):
    turned = []
    for atoms in pool[:5]:
        other = atoms.copy()
        other.rotate(50, (1, 0, 2), rotate_cell=True)
        set_magmoms(other, -get_magmoms(atoms)[:, [1, 2, 0]])
        turned.append(other)
    both = [*pool[:5], *turned]
    chosen = [choice.index for choice in select(both, 10, score(both, model if known else None))]
    assert len({index % 5 for index in chosen}) == len(chosen)


def test_without_a_model_variety_decides(pool):
    scores = score(pool, None)
    chosen = select(pool, 6, scores)
    assert len({choice.index for choice in chosen}) == 6
    assert chosen[1].domain == ""

    def spread(indices):
        parts = [scores.coordinates[scores.system == k] for k in indices]
        apart = [np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1).max()
                 for i, a in enumerate(map(np.asarray, parts)) for b in map(np.asarray, parts[:i])]  # fmt: skip
        return min(apart)

    best = spread([choice.index for choice in chosen])
    assert best >= max(spread(random_choice(pool, 6, seed)) for seed in range(10))


def test_known_data_are_the_first_distance(model):
    iron = bulk("Fe", a=2.84, cubic=True)
    near = candidate(iron, np.array([[0, 0, 2.2]] * 2), hold=True)
    far = near.copy()
    far.set_cell(far.cell * 1.08, scale_atoms=True)
    first = select([near, far], 1, score([near, far], model))
    assert first[0].index == 1


def test_uncertainty_weighs(pool):
    plain = score(pool, None)
    plain.distance = plain.distance * 0 + 1.0
    sizes = np.full(len(pool), 0.01)
    sizes[5] = 0.5
    told = Scores(plain.coordinates, plain.numbers, plain.system, plain.distance, {"forces": sizes})
    assert select(pool, 1, told)[0].index == 5
    assert select(pool, 1, told, diverse_only=True)[0].index != 5


def test_each_label_has_its_turn(pool):
    plain = score(pool, None)
    plain.distance = plain.distance * 0 + 1.0
    sizes = {name: np.full(len(pool), 0.01) for name in ("energy", "forces", "magforces_length")}
    for place, name in enumerate(sizes):
        sizes[name][2 * place] = 0.5
    sizes["energy"][7] = 0.4  # more than any other, but it is not the turn of energies
    told = Scores(plain.coordinates, plain.numbers, plain.system, plain.distance, sizes)
    chosen = select(pool, 4, told)
    assert [choice.index for choice in chosen] == [0, 2, 4, 7]
    assert [
        word
        for choice, word in zip(chosen, ("energy", "forces", "magnetic"), strict=False)
        if word in choice.reason
    ]


def test_unphysical_cells_are_refused(model, pool, monkeypatch):
    crushed = pool[0].copy()
    crushed.positions[1] = crushed.positions[0] + (1.0, 0, 0)
    strange = pool[0].copy()
    strange.symbols[0] = "Al"
    rattled = next(atoms for atoms in pool if "rattles" in atoms.info[ID])
    some = [crushed, strange, rattled, pool[1]]
    assert set(score(some, model).refused) == {0, 1}
    monkeypatch.setattr("mmace_sim.data.select.LARGEST_FORCE", 1e-3)
    scores = score(some, model)
    assert "closer than" in scores.refused[0]
    assert "does not know" in scores.refused[1]
    assert "eV/Å by the model" in scores.refused[2]
    assert [choice.index for choice in select(some, 4, scores)] == [3]


def test_the_command_tells_why_and_leaves_out_what_is_known(pool, tmp_path):
    file, known, out = (tmp_path / name for name in ("pool.extxyz", "known.extxyz", "chosen.extxyz"))
    write_extxyz(file, pool)
    first = mmace_sim("data", "select", IRON_MODEL, file, "-n", 3, "-o", out, "--json")
    assert first.exit_code == 0, first.output
    chosen = [row["candidate"] for row in json.loads(first.stdout)["chosen"]]
    assert [a.info[ID] for a in load_candidates([out])[0]] == chosen
    write_extxyz(known, load_candidates([out])[0])
    again = mmace_sim(
        "data",
        "select",
        IRON_MODEL,
        file,
        "-n",
        3,
        "-o",
        tmp_path / "next.extxyz",
        "--known",
        known,
        "--json",
    )
    assert not set(chosen) & {row["candidate"] for row in json.loads(again.stdout)["chosen"]}


def test_a_model_without_uncertainties_says_what_to_do(pool, tmp_path):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    write_extxyz(tmp_path / "pool.extxyz", pool)
    done = mmace_sim(
        "data", "select", tmp_path / "tiny.safetensors", tmp_path / "pool.extxyz", "-o", tmp_path / "c.extxyz"
    )
    assert done.exit_code == 2
    assert "mmace-sim calibrate" in done.output
    assert model is None or not (tmp_path / "c.extxyz").exists()


def test_random_choice_is_reproducible(pool):
    assert random_choice(pool, 5, 3) == random_choice(pool, 5, 3) != random_choice(pool, 5, 4)


def test_a_name_is_kept(pool):
    assert named(pool[0].copy(), "bcc", "volumes").info[ID] == pool[0].info[ID]


def test_what_is_taken_counts(pool):
    near = pool[0].copy()
    near.positions += 1e-4
    some = [pool[0], near, pool[1]]
    assert [choice.index for choice in select(some, 1, score(some, None), taken=[0])] == [2]
