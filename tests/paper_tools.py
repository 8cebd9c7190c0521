"""The upstream reference data and small models of the published architecture."""

import functools
import json
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from mmace_sim.architectures.paper_mmace import PaperConfig, PaperMMACE
from mmace_sim.graph.atoms import set_magmoms

PARITY_DATA = Path(__file__).parent / "data" / "upstream_parity"
PARITY_NAMES = ("one_layer_lm1", "one_layer_lm3", "two_layer_lm1")


@functools.cache
def parity_json(name):
    return json.loads((PARITY_DATA / f"{name}.json").read_text())


@functools.cache
def _parity_arrays(name):
    with np.load(PARITY_DATA / f"{name}.npz") as file:
        return dict(file)


def parity_arrays(name):
    """A copy of the state dictionary that a test may change."""
    return dict(_parity_arrays(name))


def parity_structures(name):
    structures = []
    for case in parity_json(name)["cases"]:
        atoms = Atoms(
            numbers=case["numbers"], positions=case["positions"], cell=case["cell"], pbc=case["pbc"]
        )
        set_magmoms(atoms, np.array(case["magmoms"]))
        structures.append(atoms)
    return structures


def parity_results(name):
    return [
        {key: np.array(value) for key, value in case["results"].items()}
        for case in parity_json(name)["cases"]
    ]


def random_paper_model(seed=0, **kwargs):
    """A small model with random weights and one-body energies, in float64."""
    torch.manual_seed(seed)
    config = PaperConfig(
        **{
            "atomic_numbers": ["Fe", "Al"],
            "r_max": 4.0,
            "max_ell": 2,
            "hidden_irreps": "4x0e",
            "num_interactions": 1,
            "correlation": 2,
            "radial_mlp": [8, 8],
            "MLP_irreps": "4x0e",
            "max_moment": {"Fe": 4.0, "Al": 3.0},
        }
        | kwargs
    )
    model = PaperMMACE(config)
    with torch.no_grad():
        model.reference.atomic_energies[:] = torch.linspace(-5.0, -8.0, len(model.elements))
        model.reference.one_body.normal_(std=0.1)
    return model.eval()
