"""Every identity of DESIGN §3 on the real model: random weights of several shapes, and the embedded trained models."""

import pytest
import torch

from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.model.registry import MODEL_FOLDER
from mmace_sim.testing import MagneticModelConformance


def random_model(seed=0, **kwargs):
    torch.manual_seed(seed)
    config = ModelConfig(
        **{
            "atomic_numbers": ["Fe", "Al"],
            "r_max": 4.0,
            "hidden_irreps": "8x0e",
            "num_interactions": 1,
            "radial_mlp": [16, 16],
            "MLP_irreps": "8x0e",
            "spin_channels": 4,
            "spin_orbit_channels": 4,
            "avg_num_neighbors": 20.0,
            "max_moment": {"Fe": 3.0, "Al": 0.5},
        }
        | kwargs
    )
    model = MagneticMACE(config).double()
    with (
        torch.no_grad()
    ):  # isolated atoms with energies, of iron all-electron ones, to see what rounding does
        model.reference.atomic_energies[:] = torch.tensor([-6.6e3, -3386.0])
        model.reference.one_body.normal_(std=0.1)
    return model.eval()


SHAPES = [
    pytest.param({"num_interactions": 1, "hidden_irreps": "8x0e", "spin_orbit": False}, id="1-layer"),
    pytest.param(
        {"num_interactions": 2, "hidden_irreps": "4x0e+4x1o", "spin_orbit": False},
        id="2-layers-vectors",
    ),
    pytest.param(
        {"num_interactions": 1, "hidden_irreps": "4x0e+4x1o", "spin_orbit": True},
        id="1-layer-vectors-spin-orbit",
    ),
    pytest.param(
        {"num_interactions": 2, "hidden_irreps": "4x0e", "spin_orbit": True}, id="2-layers-spin-orbit"
    ),
]


@pytest.mark.parametrize("shape", SHAPES, scope="class")
class TestRandomWeights(MagneticModelConformance):
    max_atoms = 3

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, shape):
        return random_model(**shape)


EMBEDDED = sorted(MODEL_FOLDER.glob("*.safetensors"))


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: path.stem, scope="class")
class TestEmbeddedModels(MagneticModelConformance):
    max_atoms = 3

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, path):
        return load_model(path, dtype=torch.float64)
