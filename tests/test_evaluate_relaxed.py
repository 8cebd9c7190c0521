"""Errors at the moments that the model relaxes itself."""

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write
from cli_tools import mmace_sim, summary_of
from embedded import IRON_MODEL

from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.properties.singlepoint import SinglePoint
from mmace_sim.training.evaluation.relaxed import same_order


@pytest.fixture(scope="module")
def iron(tmp_path_factory):
    """Iron whose labels are a model's at relaxed moments, but for moments that are 0.1 μB too long in each."""
    starts = [bulk("Fe", "bcc", a=a, cubic=True) for a in (2.8, 2.86)]
    for atoms in starts:
        atoms.positions[1, 0] += 0.05
        set_magmoms(atoms, [2.2, 2.2])
    labelled = []
    for point in SinglePoint(IRON_MODEL, magmoms="relaxed").run(starts):
        atoms = point.atoms.copy()
        moments = get_magmoms(atoms)
        set_magmoms(atoms, moments * (1 + 0.1 / np.linalg.norm(moments, axis=1))[:, None])
        atoms.info |= {"REF_energy": point.energy + 0.02, "config_type": "bcc"}
        atoms.arrays |= {"REF_forces": point.forces, "REF_magmom": get_magmoms(atoms)}
        labelled.append(atoms)
    file = tmp_path_factory.mktemp("data") / "iron.extxyz"
    write(file, labelled, format="extxyz")
    return file


def test_errors_are_those_at_the_models_own_moments(iron, tmp_path):
    out = tmp_path / "eval"
    result = mmace_sim(
        "evaluate", IRON_MODEL, iron, "-o", out, "--relax-moments", "--no-figures", "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    relaxed = summary_of(out)["relaxed_moments"]
    errors = relaxed["overall"]
    assert errors["energy"]["mae"] == pytest.approx(10.0, abs=1e-3)  # 0.02 eV in two atoms
    assert errors["forces"]["mae"] == pytest.approx(0.0, abs=0.1)
    assert errors["moment_length"] == pytest.approx(
        {"mae": 100.0, "rmse": 100.0, "count": 4, "unit": "mμB"}, abs=0.1
    )
    assert relaxed["kept_order"] == 1.0
    assert relaxed["n_structures"] == 2
    assert set(relaxed["by_config_type"]) == {"bcc"}
    assert "100 % of 2 structures keep their magnetic order" in " ".join(result.output.split())


def test_without_the_option_nothing_is_relaxed(iron, tmp_path):
    out = tmp_path / "eval"
    assert mmace_sim("evaluate", IRON_MODEL, iron, "-o", out, "--no-figures", "--no-report").exit_code == 0
    assert summary_of(out)["relaxed_moments"] is None


@pytest.mark.parametrize(
    ("after", "same"),
    [
        ([[2.0, 0, 0], [-2.0, 0, 0]], True),  # turned together
        ([[0, 0, 0.5], [0, 0, -0.5]], True),  # shorter
        ([[0, 0, -2.0], [0, 0, 2.0]], True),  # reversed
        ([[0, 0, 2.0], [0, 0, 2.0]], False),
        ([[0, 0, 2.0], [0, 2.0, 0]], False),
        ([[0, 0, 0], [0, 0, 0]], False),
    ],
)
def test_orders_are_the_same_up_to_a_common_rotation(after, same):
    assert same_order(np.array([[0, 0, 2.0], [0, 0, -2.0]]), np.array(after, dtype=float)) is same


def test_another_antiferromagnet_is_another_order():
    rows, columns = np.zeros((4, 3)), np.zeros((4, 3))
    rows[:, 2], columns[:, 2] = (1, 1, -1, -1), (1, -1, 1, -1)
    assert not same_order(rows, columns)
    assert same_order(np.zeros((2, 3)), np.full((2, 3), 1e-4))
