"""Frozen parts and low-rank adapters: what moves, what stays, and that merging changes nothing."""

import copy

import pytest
import torch
from ase.build import bulk

from mmace_sim.architectures.paper_mmace import PaperConfig, PaperMMACE
from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.training.finetuning.lora import add_adapters, freeze_parts, merge_adapters, part_names

TINY = {"atomic_numbers": [26], "hidden_irreps": "4x0e+4x1o", "radial_mlp": [8], "r_max": 3.5, "max_ell": 2}


@pytest.fixture(params=[MagneticMACE, PaperMMACE])
def model(request):
    torch.manual_seed(0)
    if request.param is MagneticMACE:
        return MagneticMACE(ModelConfig(**TINY, spin_channels=4, max_moment={26: 3.0}))
    return PaperMMACE(PaperConfig(**TINY, saturate=True, max_moment={26: 3.0}))


@pytest.fixture
def graph():
    atoms = bulk("Fe", cubic=True)
    atoms.positions[1] += [0.1, 0.0, 0.05]
    set_magmoms(atoms, [[0.3, 0.1, 2.0], [0.0, 0.5, 1.9]])
    return graph_from_atoms(atoms, 3.5)


def step(model, graph):
    """One step of plain gradient descent, large enough to be seen."""
    energy = model(graph)["energy"].sum()
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(energy, trained, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(trained, gradients, strict=True):
            if gradient is not None:
                parameter -= 0.1 * gradient / gradient.norm().clamp(min=1e-12)


def test_adapters_start_at_the_model_and_merge_into_an_ordinary_one(model, graph):
    before, names = evaluate(model, graph), list(model.state_dict())
    n_all = sum(p.numel() for p in model.parameters())
    base = copy.deepcopy(model.state_dict())
    n_trained = add_adapters(model, 2)
    assert n_trained == sum(p.numel() for p in model.parameters() if p.requires_grad) < n_all
    start = evaluate(model, graph)
    assert all(torch.equal(before[key], start[key]) for key in before)  # exactly
    averaged = copy.deepcopy(model)
    for _ in range(3):
        step(model, graph)
    trained = evaluate(model, graph)
    assert abs(trained["energy"] - before["energy"]).item() > 1e-3
    assert torch.equal(averaged(graph)["energy"], before["energy"])  # a copy has its own adapters
    merge_adapters(model)
    merged = evaluate(model, graph)
    assert list(model.state_dict()) == names
    for key, value in merged.items():
        assert abs(value - trained[key]).max() < 1e-12 * abs(value).max(), key
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, base[key])}
    assert changed
    assert all("weight" in key for key in changed)
    assert type(model) in (MagneticMACE, PaperMMACE)


def test_a_change_has_the_rank_asked_for(model, graph):
    name = next(key for key, _ in model.named_parameters() if key.endswith("linears_up.0.weight"))
    before = model.get_parameter(name).detach().clone()
    add_adapters(model, 2)
    for _ in range(3):
        step(model, graph)
    merge_adapters(model)
    assert torch.linalg.matrix_rank(model.get_parameter(name) - before).item() in (1, 2)  # of 4


@pytest.mark.parametrize(
    ("part", "inside"),
    [
        ("embedding", lambda key: key == "embedding"),
        ("layers.1", lambda key: key.startswith("layers.1.")),
        ("radial", lambda key: ".radial." in key),
        ("layers.0.interaction", lambda key: key.startswith("layers.0.interaction.")),
    ],
)
def test_frozen_parts_stay(model, graph, part, inside):
    before = copy.deepcopy(model.state_dict())
    freeze_parts(model, [part])
    step(model, graph)
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert not any(inside(key) for key in moved)
    frozen = [key for key, p in model.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(inside(key) for key in frozen)


def test_adapters_leave_frozen_parts_alone(model, graph):
    before = copy.deepcopy(model.state_dict())
    freeze_parts(model, ["radial"])
    add_adapters(model, 2)
    for _ in range(2):
        step(model, graph)
    merge_adapters(model)
    assert all(
        torch.equal(value, before[key]) for key, value in model.state_dict().items() if ".radial." in key
    )


def test_wrong_parts_list_the_right_ones(model):
    assert {"embedding", "layers.0", "layers.1", "radial", "readouts", "readouts.1"} <= set(part_names(model))
    with pytest.raises(ConfigError, match=r"no part 'radials'.*embedding, .*layers\.0, .*readouts"):
        freeze_parts(model, ["radials"])
    with pytest.raises(ConfigError, match="leaves no weight to train"):
        freeze_parts(model, part_names(model))
    with pytest.raises(ConfigError, match="no linear map is left"):
        add_adapters(model, 2)
