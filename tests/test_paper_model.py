"""The published architecture with random weights: which identities it obeys, which it violates, what the repairs do."""

import numpy as np
import pytest
import torch
from ase import Atoms
from paper_tools import random_paper_model

from mmace_sim.architectures.paper_mmace import PaperConfig
from mmace_sim.architectures.paper_moments import SATURATION_ONSET, saturate_outside
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.testing import random_structure
from mmace_sim.testing.identities import IDENTITIES, measure_identities

VIOLATED = ("inversion", "time_reversal", "no_field_without_moments", "no_jump_at_cutoff")
BOUNDED = "growth_above_max_moment"
OBEYED = tuple(
    name for name, identity in IDENTITIES.items() if name not in (*VIOLATED, BOUNDED) and identity.spin_orbit
)
MODELS = {
    "1-layer-lm1": {"max_m_ell": 1},
    "1-layer-lm3-l3": {"max_m_ell": 3, "max_ell": 3},
    "2-layers-vectors": {"num_interactions": 2, "hidden_irreps": "4x0e+4x1o"},
    "3-layers-tensors": {
        "num_interactions": 3,
        "hidden_irreps": "2x0e+2x1o+2x2e",
        "max_m_ell": 2,
        "correlation": 1,
        "r_max": 3.0,
    },
}


@pytest.fixture(scope="module", params=list(MODELS))
def shape(request):
    return MODELS[request.param]


@pytest.fixture(scope="module", params=["1-layer-lm1", "2-layers-vectors"])
def small_shape(request):
    return MODELS[request.param]


def test_obeys(shape):
    violations = measure_identities(random_paper_model(**shape), names=OBEYED, n_structures=2)
    assert {name: v for name, v in violations.items() if v > IDENTITIES[name].tolerance} == {}


def test_violates_what_the_published_function_violates(shape):
    violations = measure_identities(random_paper_model(**shape), names=VIOLATED, n_structures=2)
    assert {name: v for name, v in violations.items() if v < 1e-6} == {}


def test_the_repairs_repair_what_they_say(small_shape):
    names = (*VIOLATED, "joint_rotation", "batch_equals_single", "forces")
    model = random_paper_model(**small_shape, time_reversal=True, smooth_cutoff=True)
    violations = measure_identities(model, names=names, n_structures=2)
    assert {name: v for name, v in violations.items() if v > IDENTITIES[name].tolerance} == {}


def test_time_reversal_alone_repairs_inversion():
    violations = measure_identities(random_paper_model(time_reversal=True), names=VIOLATED, n_structures=2)
    assert {name for name, v in violations.items() if v > IDENTITIES[name].tolerance} == {"no_jump_at_cutoff"}


def test_a_smooth_cutoff_acts_in_its_shell_only():
    published, smooth = random_paper_model(), random_paper_model(smooth_cutoff=True)

    def difference(distance):
        dimer = Atoms("FeAl", positions=[[0, 0, 0], [0, 0.6 * distance, 0.8 * distance]])
        set_magmoms(dimer, np.array([[1.0, 0.5, 0.0], [0.0, 0.3, 2.0]]))
        graph = graph_from_atoms(dimer, published.r_max)
        return float((published(graph)["energy"] - smooth(graph)["energy"]).detach())

    assert difference(3.49) == 0.0
    assert difference(3.8) != 0.0


def test_saturation_bounds_large_moments(small_shape):
    wild = measure_identities(random_paper_model(**small_shape), names=[BOUNDED], n_structures=1)
    tame = measure_identities(
        random_paper_model(**small_shape, saturate=True), names=[BOUNDED, "magforces"], n_structures=2
    )
    assert wild[BOUNDED] > IDENTITIES[BOUNDED].tolerance
    assert {name: v for name, v in tame.items() if v > IDENTITIES[name].tolerance} == {}


def test_saturation_is_the_identity_inside_and_bounded_outside():
    lengths = torch.linspace(0.0, 20.0, 401, dtype=torch.float64)
    moments = lengths[:, None] * torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)
    out = torch.linalg.norm(saturate_outside(moments, torch.full_like(lengths, 2.0)), dim=1)
    inside = lengths <= 2.0 * SATURATION_ONSET
    torch.testing.assert_close(out[inside], lengths[inside], rtol=0, atol=1e-15)
    assert bool((out <= 2.0 + 1e-14).all())
    assert bool((torch.diff(out) > -1e-14).all())


def test_clamped_functions_are_the_same_inside_only():
    free, clamped = random_paper_model(), random_paper_model(clamp=True)
    atoms = random_structure(np.random.default_rng(0), n_atoms=3, max_moment=2.9)

    def difference():
        graph = graph_from_atoms(atoms, free.r_max)
        return float((free(graph)["energy"] - clamped(graph)["energy"]).detach())

    assert difference() == 0.0
    set_magmoms(atoms, 2.0 * get_magmoms(atoms))
    assert difference() != 0.0


def test_an_exactly_given_largest_moment_is_kept():
    config = PaperConfig(atomic_numbers=["Fe", "Ne", "O"], max_moment={"Fe": 3.0, "Ne": 0.02})
    assert [config.moment_scale(z) for z in config.atomic_numbers] == [1.0, 0.02, 3.0]
