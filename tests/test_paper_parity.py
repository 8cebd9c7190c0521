"""PaperMMACE with upstream's weights against upstream's numbers, to 1e-9."""

import numpy as np
import pytest
import torch
from paper_tools import (
    PARITY_NAMES,
    parity_arrays,
    parity_json,
    parity_results,
    parity_structures,
)

from mmace_sim.errors import ModelFileError
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.interop.from_mace import from_upstream
from mmace_sim.model.checkpoint import load_model, save_model
from mmace_sim.model.derivatives import evaluate

RELATIVE = 1e-9


def converted(name, **options):
    return from_upstream(parity_json(name)["config"] | options, parity_arrays(name))


def assert_same(output, expected):
    for key, reference in expected.items():
        got = np.asarray(output[key]).reshape(reference.shape)
        assert np.abs(got - reference).max() <= RELATIVE * np.abs(reference).max(), key


def as_arrays(output):
    return {key: value.detach().numpy() for key, value in output.items()}


@pytest.mark.parametrize("name", PARITY_NAMES)
class TestParity:
    def test_each_case(self, name):
        model = converted(name)
        for atoms, expected in zip(parity_structures(name), parity_results(name), strict=True):
            assert_same(as_arrays(evaluate(model, graph_from_atoms(atoms, model.r_max))), expected)

    def test_one_batch_after_a_round_trip_through_our_file(self, name, tmp_path):
        model = load_model(save_model(converted(name), tmp_path / "m.safetensors"))
        structures = parity_structures(name)
        output = as_arrays(evaluate(model, graph_from_atoms(structures, model.r_max)))
        ends = np.cumsum([len(atoms) for atoms in structures])
        for k, (atoms, expected) in enumerate(zip(structures, parity_results(name), strict=True)):
            rows = slice(ends[k] - len(atoms), ends[k])
            mine = {key: output[key][rows] for key in ("forces", "magforces", "node_energy")}
            mine |= {key: output[key][k] for key in ("energy", "stress")}
            assert_same(mine, expected)

    def test_longer_pairs_do_no_harm(self, name):
        model, atoms = converted(name), parity_structures(name)[0]
        output = as_arrays(evaluate(model, graph_from_atoms(atoms, model.r_max + 1.0)))
        assert_same(output, parity_results(name)[0])

    def test_repairs_change_nothing_that_is_right(self, name):
        repaired = converted(name, time_reversal=True, saturate=True)
        atoms, expected = parity_structures(name)[0], parity_results(name)[0]
        turned = atoms.copy()
        turned.arrays["initial_magmoms"] = -atoms.arrays["initial_magmoms"]
        plain = converted(name)
        energies = [
            evaluate(m, graph_from_atoms(a, m.r_max))["energy"].item()
            for m, a in ((plain, atoms), (plain, turned), (repaired, atoms), (repaired, turned))
        ]
        assert energies[0] == pytest.approx(expected["energy"].item(), rel=RELATIVE)
        assert energies[2] == pytest.approx(0.5 * (energies[0] + energies[1]), rel=RELATIVE)
        assert energies[3] == pytest.approx(energies[2], rel=1e-12)
        assert abs(energies[0] - energies[1]) > 1e-6


def test_heads_are_picked():
    name = "two_layer_lm1"
    arrays, config = parity_arrays(name), parity_json(name)["config"]
    rng = np.random.default_rng(0)
    two = dict(arrays)

    def with_other_head(key, axis):
        values = arrays[key] if arrays[key].ndim else arrays[key][None]
        two[key] = np.concatenate([rng.normal(size=values.shape), values], axis=axis)

    with_other_head("atomic_energies_fn.atomic_energies", 0)
    with_other_head("scale_shift.scale", 0)
    with_other_head("scale_shift.shift", 0)
    with_other_head("onebody_magmombasis_coeffs", 2)
    with_other_head("one_body_magmom_const_correction", 1)
    linear = arrays["readouts.0.linear.weight"]
    two["readouts.0.linear.weight"] = np.stack([rng.normal(size=linear.shape), linear], axis=1).ravel()
    first = arrays["readouts.1.linear_1.weight"].reshape(8, 16)
    two["readouts.1.linear_1.weight"] = np.concatenate([rng.normal(size=(8, 16)), first], axis=1).ravel()
    second = np.zeros((2, 16, 2))
    second[1, :, 1] = arrays["readouts.1.linear_2.weight"] * np.sqrt(2.0)  # upstream divides by both heads
    second[0] = rng.normal(size=(16, 2))
    two["readouts.1.linear_2.weight"] = second.ravel()
    model = from_upstream(config, two, head=1)
    atoms, expected = parity_structures(name)[0], parity_results(name)[0]
    assert_same(as_arrays(evaluate(model, graph_from_atoms(atoms, model.r_max))), expected)
    with pytest.raises(ModelFileError, match=r"2 head\(s\)"):
        from_upstream(config, two, head=2)


def test_a_float32_file_gives_nearly_the_same():
    name = "one_layer_lm1"
    arrays = {
        key: a.astype(np.float32) if a.dtype == np.float64 else a for key, a in parity_arrays(name).items()
    }
    model = from_upstream(parity_json(name)["config"], arrays)
    atoms, expected = parity_structures(name)[0], parity_results(name)[0]
    energy = evaluate(model, graph_from_atoms(atoms, model.r_max))["energy"].item()
    assert energy == pytest.approx(expected["energy"].item(), rel=1e-5)


class TestRefusals:
    name = "one_layer_lm1"

    def convert(self, config=None, **changes):
        arrays = parity_arrays(self.name)
        for key, value in changes.items():
            if value is None:
                del arrays[key]
            else:
                arrays[key] = value
        return from_upstream(parity_json(self.name)["config"] | (config or {}), arrays)

    def test_missing_weight(self):
        with pytest.raises(ModelFileError, match=r"no weight 'products.0.linear_ori.weight'"):
            self.convert(**{"products.0.linear_ori.weight": None})

    def test_unknown_weight(self):
        with pytest.raises(ModelFileError, match=r"does not have: pair_repulsion_fn.a_exp"):
            self.convert(**{"pair_repulsion_fn.a_exp": np.ones(1)})

    def test_wrong_size(self):
        with pytest.raises(ModelFileError, match=r"magmom_linear.weight' has shape \(7,\)"):
            self.convert(**{"interactions.0.magmom_linear.weight": np.ones(7)})

    def test_contradicting_configuration(self):
        with pytest.raises(ModelFileError, match="max_m_ell = 2, but the weights say 1"):
            self.convert({"max_m_ell": 2})

    def test_foreign_couplings(self):
        key = "products.0.symmetric_contractions.contractions.0.U_matrix_2"
        with pytest.raises(ModelFileError, match="not those of MACE"):
            self.convert(**{key: np.random.default_rng(0).normal(size=(16, 16, 4))})


def test_float32_evaluates():
    model = converted("one_layer_lm1").to(torch.float32)
    atoms, expected = parity_structures("one_layer_lm1")[0], parity_results("one_layer_lm1")[0]
    energy = evaluate(model, graph_from_atoms(atoms, model.r_max, dtype=torch.float32))["energy"]
    assert energy.dtype == torch.float64
    assert energy.item() == pytest.approx(expected["energy"].item(), rel=1e-5)
