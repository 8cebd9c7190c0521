"""`evaluate` refuses elements by name, and a call in inference mode leaves nothing behind that breaks a later one."""

import pytest
import torch
from cli_tools import bcc, write_tiny_model

from mmace_sim.calculator import MMACECalculator
from mmace_sim.errors import UnsupportedElementError
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import check_elements, evaluate
from mmace_sim.nn import angular
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.state import initialize_state


@pytest.fixture
def path(tmp_path):
    return write_tiny_model(tmp_path / "tiny.safetensors", spin_orbit=True)


@pytest.mark.parametrize("number", [0, 1, 27, 118, 119, 120, 300, -1, -26, 10**12])
def test_unknown_elements_are_refused(path, number):
    """Their index is -1, which is the last species."""
    for model in (load_model(path), HeisenbergModel()):
        graph = graph_from_atoms(bcc(), model.r_max)
        evaluate(model, graph)
        graph.atomic_numbers[1] = number
        with pytest.raises(
            UnsupportedElementError, match=rf"\[{number}\] are not among the model's elements"
        ):
            evaluate(model, graph)
    check_elements(lambda *_: {}, graph.atomic_numbers)


def clear_caches():
    for cached in (angular._raising, angular.clebsch_gordan, angular._symmetric_basis):
        cached.cache_clear()


def test_inference_mode_breaks_nothing_later(path):
    expected = evaluate(load_model(path), graph_from_atoms(bcc(displacement=0.1), 3.5))
    clear_caches()
    with torch.inference_mode():
        model = load_model(path)
        graph = graph_from_atoms(bcc(displacement=0.1), model.r_max)
        model(graph)
        inside = evaluate(model, graph)
        simulated, state = MagneticMaceModel(model), initialize_state([bcc(displacement=0.1)])
        simulated(state)
        atoms = bcc(displacement=0.1)
        atoms.calc = MMACECalculator(model)
        atoms.get_forces()
    for out in (inside, simulated(state), simulated(state.clone()), evaluate(model, graph)):
        for key, value in expected.items():
            torch.testing.assert_close(out[key], value, rtol=1e-12, atol=1e-12)
            assert not out[key].is_inference()
    atoms.positions[1] += 0.1
    atoms.get_forces()
    for parameter in model.parameters():
        parameter.requires_grad_()
    out = evaluate(model, graph, training=True)
    (out["energy"].sum() + (out["forces"] ** 2).sum() + (out["magforces"] ** 2).sum()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert any(p.grad is not None for p in model.parameters())
