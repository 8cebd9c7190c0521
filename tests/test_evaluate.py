"""Errors of an evaluation, against labels that are wrong by known amounts."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation

from mmace_sim.errors import DataError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.frames import Frame
from mmace_sim.model.derivatives import evaluate
from mmace_sim.testing import HeisenbergModel
from mmace_sim.training.data.dataset import GraphDataset
from mmace_sim.training.evaluation import errors as evaluate_errors
from mmace_sim.training.evaluation.errors import ErrorSums, Samples, magforce_errors
from mmace_sim.training.evaluation.evaluate import evaluate_frames, require_result
from mmace_sim.training.evaluation.ranking import rank_orders


class ToyModel(HeisenbergModel):
    """With a parameter, from which precision and device are taken."""

    def __init__(self, **options):
        super().__init__(**options)
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))


MODEL = ToyModel(elements=(24, 26))


def crystal(magmoms, symbol="Fe", a=2.9, displacement=0.0):
    atoms = bulk(symbol, "bcc", a=a, cubic=True)
    atoms.positions[1] += displacement
    set_magmoms(atoms, magmoms)
    return atoms


def labelled(atoms, index, config_type="toy", **errors):
    """A frame whose labels are what the model says plus an error."""
    magmoms = atoms.arrays["initial_magmoms"]
    frame = Frame(atoms, f"toys@{index}", magmoms, config_type, {})
    graph = GraphDataset([frame], MODEL.r_max).samples[0].graph
    out = evaluate(MODEL, graph)
    labels = {key: out[key].detach().numpy() for key in ("energy", "forces", "stress", "magforces")}
    labels = {
        "energy": labels["energy"][0],
        "stress": labels["stress"][0],
        **{k: labels[k] for k in ("forces", "magforces")},
    }
    frame.labels.update({key: value - errors.get(key, 0.0) for key, value in labels.items()})
    return frame


def random_frames(n, **errors):
    rng = np.random.default_rng(1)
    return [
        labelled(crystal(rng.normal(size=(2, 3)) + 1, displacement=0.1 * rng.normal(size=3)), k, **errors)
        for k in range(n)
    ]


def test_a_perfect_model_has_no_errors():
    result = evaluate_frames(MODEL, random_frames(5), batch_size=2)
    assert result.n_structures == 5
    for error in (result.overall | result.derived).values():
        assert error.mae < 1e-4  # degrees: the cosine of a small angle has few digits
        assert error.count > 0
    assert set(result.by_order) == {"non-collinear"}


def test_constant_errors_of_every_label_come_back():
    errors = {"energy": 0.02, "forces": -0.3, "stress": 0.005, "magforces": 0.04}
    result = evaluate_frames(MODEL, random_frames(4, **errors), batch_size=3)
    expected = {
        "energy": 10.0,
        "forces": 300.0,
        "stress": 5.0,
        "magforces": 40.0,
    }  # two atoms share the energy
    for label, value in expected.items():
        error = result.overall[label]
        assert error.mae == pytest.approx(value)
        assert error.rmse == pytest.approx(value)
    assert result.overall["forces"].count == 4 * 6
    assert result.derived["energy_shifted"].rmse == pytest.approx(0.0, abs=1e-9)
    assert result.energy_shifts == {"Fe": pytest.approx(0.01)}
    assert result.structures[0].row(0.01)["magforces_rmse"] == pytest.approx(40.0)


def test_groups_hold_their_own_errors():
    moments = [[0, 0, 2.0], [0, 0, 2.0]], [[0, 0, 2.0], [0, 0, -2.0]], [[0, 0, 2.0], [0, 2.0, 0.0]]
    shifts = (0.002, 0.004, 0.008)
    types = ("a", "a", "b")
    frames = [
        labelled(crystal(m), k, kind, energy=2 * shift)
        for k, (m, kind, shift) in enumerate(zip(moments, types, shifts, strict=True))
    ]
    result = evaluate_frames(MODEL, frames)
    assert {k: v["energy"].mae for k, v in result.by_order.items()} == pytest.approx(
        {"FM": 2.0, "AFM": 4.0, "non-collinear": 8.0}
    )
    assert {k: v["energy"].mae for k, v in result.by_config_type.items()} == pytest.approx(
        {"a": 3.0, "b": 8.0}
    )
    left = np.array(shifts) - np.mean(shifts)
    assert result.derived["energy_shifted"].mae == pytest.approx(1000 * np.abs(left).mean())


def test_a_composition_with_one_structure_has_no_shift():
    frames = [labelled(crystal([[0, 0, m]] * 2), k, energy=0.1) for k, m in enumerate((1.0, 2.0))]
    frames.append(labelled(crystal([[0, 0, 1.0]] * 2, "Cr"), 2, energy=0.4))
    result = evaluate_frames(MODEL, frames)
    assert result.energy_shifts == {"Fe": pytest.approx(0.05)}
    assert result.derived["energy_shifted"].count == 2
    assert result.overall["energy"].count == 3


def test_errors_belong_to_the_element_of_the_atom():
    atoms = crystal([[0, 0, 2.0], [0, 0, 1.0]])
    atoms.symbols[1] = "Cr"
    wrong = np.array([[0.1, 0.0, 0.0], [0.0, 0.3, 0.0]])
    result = evaluate_frames(MODEL, [labelled(atoms, 0, forces=wrong, magforces=wrong[::-1])])
    assert result.by_element["Fe"]["forces"].mae == pytest.approx(100.0 / 3)
    assert result.by_element["Cr"]["forces"].mae == pytest.approx(100.0)
    assert result.by_element["Fe"]["torque"].mae == pytest.approx(600.0 / 3)  # 2 μB × 0.3 eV/μB
    chosen = evaluate_frames(MODEL, [labelled(atoms, 0, magforces=wrong)], magforce_elements=["Cr"])
    assert chosen.overall["magforces"].count == 3
    assert "magforces" not in chosen.by_element["Fe"]


def test_parts_of_a_magnetic_force():
    """A force turned by 30° in the plane of the moment and 20 % too long."""
    right = np.array([[0.0, 0.1, 0.1]])
    predicted = 1.2 * Rotation.from_euler("x", 30, degrees=True).apply(right)
    errors = magforce_errors(right, predicted, np.array([[0.0, 0.0, 2.0]]), 0.01)
    length = 0.1 * 2**0.5
    turned = 1.2 * length * np.array([np.cos(np.radians(75)), np.sin(np.radians(75))])  # from 45° to 75°
    assert errors["magforce_angle"][0] == pytest.approx(30.0)
    assert errors["magforce_length"][0] == pytest.approx(0.2 * length)
    assert errors["magforce_longitudinal"][0] == pytest.approx(turned[1] - 0.1)
    assert errors["magforce_transverse"][0] == pytest.approx(abs(turned[0] - 0.1))
    assert errors["torque"][0] == pytest.approx([-2.0 * (turned[0] - 0.1), 0.0, 0.0])
    assert errors["torque"][1] == pytest.approx([-0.2, 0.0, 0.0])


def test_parts_add_up_and_atoms_without_direction_are_left_out():
    rng = np.random.default_rng(0)
    right, predicted, moments = rng.normal(size=(3, 20, 3))
    moments[3] = 0.0
    right[5] = np.nan
    right[7] *= 1e-4
    errors = magforce_errors(right, predicted, moments, 0.01)
    assert len(errors["magforce_length"][0]) == 19
    assert len(errors["magforce_longitudinal"][0]) == 18
    assert len(errors["magforce_angle"][0]) == 18
    kept = [k for k in range(20) if k not in (3, 5)]
    total = ((predicted - right)[kept] ** 2).sum()
    parts = (errors[name][0] ** 2 for name in ("magforce_longitudinal", "magforce_transverse"))
    assert sum(part.sum() for part in parts) == pytest.approx(total)


def test_angles_do_not_depend_on_the_precision_of_the_cosine():
    right = np.array([[0.3, -0.2, 0.5]])
    assert magforce_errors(right, 1.7 * right, right, 0.0)["magforce_angle"][0] == pytest.approx(
        0.0, abs=1e-5
    )
    assert magforce_errors(right, -right, right, 0.0)["magforce_angle"][0] == pytest.approx(180.0)


def test_weighted_sums():
    sums = ErrorSums()
    sums.add("all", "magforce_angle_weighted", np.array([10.0, 40.0]), np.array([3.0, 1.0]))
    sums.add("all", "magforce_angle_weighted", np.zeros(0), np.zeros(0))
    error = sums.table("all")["magforce_angle_weighted"]
    assert error.mae == pytest.approx(17.5)
    assert error.count == 2


def test_samples_of_a_large_set_are_thinned_without_bias(monkeypatch):
    monkeypatch.setattr(evaluate_errors, "MAX_POINTS", 500)
    samples = Samples()
    for k in range(40):
        samples.add(np.full(100, float(k)), np.zeros(100), k)
    samples.close()
    assert samples.count == 4000
    assert 300 < len(samples.x) <= 1100
    assert abs(samples.x.mean() - 19.5) < 2.0


def _states(a=2.9):
    """FM, AFM and two canted states of one crystal; J' > 0: the energy goes with minus the cosine."""
    second = ([0, 0, 2.0], [0, 0, -2.0], [2.0, 0, 0], [0, np.sqrt(2.0), np.sqrt(2.0)])
    return [crystal([[0, 0, 2.0], m], a=a) for m in second]


def test_ranking_of_a_perfect_and_of_a_reversed_model():
    frames = [labelled(atoms, k) for k, atoms in enumerate(_states())]
    result = evaluate_frames(MODEL, frames)
    order = rank_orders(frames, result.structures).as_dict()
    assert order["spearman_within_geometries"] == pytest.approx(1.0)
    assert (order["n_geometries"], order["n_pairs"], order["pairs_in_order"], order["lowest_right"]) == (
        1,
        6,
        1.0,
        1.0,
    )
    energies = np.array([frame.labels["energy"] for frame in frames])
    for frame, energy in zip(frames, energies, strict=True):
        frame.labels["energy"] = -energy
    result = evaluate_frames(MODEL, frames)
    order = rank_orders(frames, result.structures).as_dict()
    assert order["spearman_within_geometries"] == pytest.approx(-1.0)
    assert (order["pairs_in_order"], order["lowest_right"]) == (0.0, 0.0)


def test_ranking_with_one_pair_exchanged():
    """The two states in the middle change places: one of six pairs, ρ = 1 − 6·2/(4·15)."""
    frames = [labelled(atoms, k) for k, atoms in enumerate(_states())]
    order = np.argsort([float(frame.labels["energy"]) for frame in frames])
    first, second = frames[order[1]], frames[order[2]]
    first.labels["energy"], second.labels["energy"] = second.labels["energy"], first.labels["energy"]
    ranking = rank_orders(frames, evaluate_frames(MODEL, frames).structures)
    assert (ranking.groups[0].n_right, ranking.groups[0].n_pairs) == (5, 6)
    assert ranking.spearman_within == pytest.approx(0.8)
    assert ranking.by_composition == {"Fe": (pytest.approx(0.8), 4)}


def test_groups_of_one_geometry():
    """Volumes stay apart; a lattice vector, a doubled cell or reversed moments make no other geometry or state."""
    states = _states()
    states[1].positions[1] += states[1].cell[0]
    states += [crystal([[0, 0, -2.0], [0, 0, -2.0]]), *_states(a=3.0)[:2]]
    states.append(crystal([[0, 0, 2.0]] * 2, displacement=0.2))
    primitive = bulk("Fe", "bcc", a=2.9)
    set_magmoms(primitive, [[0, 0, 1.2]])
    doubled = crystal([[0, 0, 1.0]] * 2) * (1, 1, 2)
    frames = [labelled(atoms, k) for k, atoms in enumerate([*states, primitive, doubled])]
    ranking = rank_orders(frames, evaluate_frames(MODEL, frames).structures)
    assert [len(group.members) for group in ranking.groups] == [6, 2]
    assert ranking.groups[0].members == [f"toys@{k}" for k in (0, 1, 2, 3, 8, 9)]
    assert ranking.groups[1].members == ["toys@5", "toys@6"]


def test_structures_that_cannot_be_evaluated_are_reported():
    frames = random_frames(2)
    foreign = crystal([[0, 0, 1.0]] * 2)
    foreign.symbols[:] = "Ni"
    frames.insert(1, Frame(foreign, "toys@x", foreign.arrays["initial_magmoms"], "toy", {}))
    result = evaluate_frames(MODEL, frames, batch_size=1)
    assert result.problems == ["toys@x: element(s) Ni unknown to the model"]
    assert result.n_structures == 2
    assert result.timing.n_atoms == 4
    assert result.timing.model_seconds > 0
    with pytest.raises(DataError, match="no structure could be evaluated"):
        require_result(evaluate_frames(MODEL, frames[1:2]))


def test_non_finite_predictions_are_reported():
    class Broken(ToyModel):
        def forward(self, graph, edge_vectors=None):
            out = super().forward(graph, edge_vectors)
            large = (graph.magmoms.abs().amax(dim=1) > 5.0).double()
            large = torch.zeros_like(out["energy"]).index_add(0, graph.system_idx, large)
            return out | {"energy": torch.where(large > 0, float("nan"), out["energy"])}

    frames = [labelled(crystal([[0, 0, m]] * 2), k) for k, m in enumerate((1.9, 6.0))]
    result = evaluate_frames(Broken(elements=(26,)), frames)
    assert result.problems == ["toys@1: energy or a derivative of it is not finite"]
    assert result.n_structures == 1


def test_clusters_are_ranked_too():
    frames = []
    for k, z in enumerate((1.0, -1.0)):
        atoms = Atoms("Fe2", [[0, 0, 0], [0, 0, 2.4]])
        set_magmoms(atoms, [[0, 0, 1.0], [0, 0, z]])
        frames.append(labelled(atoms, k))
    ranking = rank_orders(frames, evaluate_frames(MODEL, frames).structures)
    assert [group.name for group in ranking.groups] == ["Fe2, cluster"]
    assert ranking.spearman_within is None
