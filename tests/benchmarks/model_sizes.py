"""The models, cells and steps that speed is measured on: ours, and an ordinary MACE of the same size."""

import mace  # noqa: F401  (lets e3nn 0.4.4 read its constants on torch ≥ 2.6)
import numpy as np
import torch
from ase.build import bulk
from e3nn import o3
from mace import data, modules, tools
from mace.tools import torch_geometric

from mmace_sim.architectures.paper_mmace import PaperConfig, PaperMMACE
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.magnetic_mace import MagneticMACE

SIZES = {
    "a": {"hidden_irreps": "64x0e", "num_interactions": 1, "r_max": 5.0},
    "b": {"hidden_irreps": "64x0e+64x1o", "num_interactions": 2, "r_max": 6.0},
    "c": {"hidden_irreps": "128x0e+128x1o", "num_interactions": 2, "r_max": 6.0},
}
"""Published sizes; max_ell 3, correlation 3 and a radial network of three layers of 64 throughout."""

SUPERCELLS = {16: (2, 2, 2), 54: (3, 3, 3), 128: (4, 4, 4), 250: (5, 5, 5)}
"""Repeats of the cubic cell of bcc iron for each number of atoms."""

N_NEIGHBORS = {5.0: 58.0, 6.0: 112.0}


def iron(n_atoms, seed=0):
    """Rattled bcc iron with random non-collinear moments; 2 atoms are the cubic cell."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True).repeat(SUPERCELLS.get(n_atoms, (1, 1, 1)))
    atoms.rattle(0.05, seed=seed)
    directions = rng.normal(size=(len(atoms), 3))
    lengths = rng.uniform(1.0, 2.8, size=(len(atoms), 1))
    set_magmoms(atoms, lengths * directions / np.linalg.norm(directions, axis=1, keepdims=True))
    return atoms


def yardstick(size, dtype, *, radial_mlp=(64, 64, 64)):
    """mace-torch's ScaleShiftMACE with density interaction blocks."""
    settings = SIZES[size]
    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    model = modules.ScaleShiftMACE(
        r_max=settings["r_max"],
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticDensityResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticDensityInteractionBlock"],
        num_interactions=settings["num_interactions"],
        num_elements=1,
        hidden_irreps=o3.Irreps(settings["hidden_irreps"]),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(1),
        avg_num_neighbors=N_NEIGHBORS[settings["r_max"]],
        atomic_numbers=[26],
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=list(radial_mlp),
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    torch.set_default_dtype(previous)
    return model.to(dtype)


def yardstick_batch(images, r_max, dtype):
    """The structures as the yardstick takes them."""
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    table = tools.AtomicNumberTable([26])
    config = [data.config_from_atoms(a) for a in images]
    sets = [data.AtomicData.from_config(c, z_table=table, cutoff=r_max) for c in config]
    batch = next(iter(torch_geometric.dataloader.DataLoader(sets, batch_size=len(sets), shuffle=False)))
    torch.set_default_dtype(previous)
    return batch.to_dict()


def ours(size, dtype, **changes):
    """Our model of a size."""
    settings = SIZES[size]
    torch.manual_seed(0)
    config = ModelConfig(
        atomic_numbers=[26],
        max_moment={26: 3.0},
        radial_mlp=[64, 64, 64],
        avg_num_neighbors=N_NEIGHBORS[settings["r_max"]],
        **{**settings, **changes},
    )
    return MagneticMACE(config).to(dtype)


def paper(size, dtype, **changes):
    """The published magnetic architecture of a size."""
    settings = SIZES[size]
    torch.manual_seed(0)
    config = PaperConfig(
        atomic_numbers=[26],
        max_moment={26: 3.0},
        **{**settings, **changes},
    )
    return PaperMMACE(config).to(dtype)


def graph(images, r_max, dtype):
    """The structures as our models take them."""
    return graph_from_atoms(images, r_max, dtype=dtype)


def _fresh(batch):
    """A copy that the yardstick may write to: it stores strained positions and shifts in its argument."""
    return {key: value.detach() if torch.is_tensor(value) else value for key, value in batch.items()}


def yardstick_inference(model, batch):
    """Energy, forces and stress."""
    return lambda: model(_fresh(batch), compute_force=True, compute_stress=True)


def inference(model, batch):
    """Energy, forces, stress and magforces."""
    return lambda: evaluate(model, batch)


def yardstick_training(model, batch):
    """Loss of energy, forces and stress, its gradient, and a step of Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-9)

    def step():
        optimizer.zero_grad(set_to_none=True)
        out = model(_fresh(batch), training=True, compute_force=True, compute_stress=True)
        loss = out["energy"].square().mean() + out["forces"].square().mean() + out["stress"].square().mean()
        loss.backward()
        optimizer.step()

    return step


def training(model, batch):
    """Loss of energy, forces, stress and magforces, its gradient, and a step of Adam."""
    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-9)

    def step():
        optimizer.zero_grad(set_to_none=True)
        out = evaluate(model, batch, training=True)
        loss = sum(out[key].square().mean() for key in ("energy", "forces", "stress", "magforces"))
        loss.backward()
        optimizer.step()

    return step
