"""Small MACE models of mace-torch with random weights, and their own energies, forces and stress."""

import warnings

import numpy as np
import torch
from ase import Atoms

from mmace_sim.graph.atoms import set_magmoms

ELEMENTS = (8, 13, 26)


def make_mace(
    first="RealAgnosticResidualInteractionBlock",
    later="RealAgnosticResidualInteractionBlock",
    *,
    scale_shift=True,
    seed=0,
    scripted=False,
    **changes,
):
    """A mace-torch model in float64 whose every weight is random; `scripted` as trained ones are, but slow to make."""
    import e3nn
    from mace import modules

    previous, optimization = torch.get_default_dtype(), e3nn.get_optimization_defaults()
    torch.set_default_dtype(torch.float64)
    e3nn.set_optimization_defaults(jit_script_fx=scripted)
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _build(modules, first, later, scale_shift, changes)
    finally:
        torch.set_default_dtype(previous)
        e3nn.set_optimization_defaults(**optimization)


def _build(modules, first, later, scale_shift, changes):
    from e3nn import o3

    heads = changes.get("heads") or ["Default"]
    settings = {
        "r_max": 4.0,
        "num_bessel": 4,
        "num_polynomial_cutoff": 6,
        "max_ell": 2,
        "num_interactions": 2,
        "num_elements": len(ELEMENTS),
        "hidden_irreps": "4x0e+4x1o",
        "MLP_irreps": "4x0e",
        "atomic_energies": np.random.default_rng(0).normal(size=(len(heads), len(ELEMENTS))).squeeze(),
        "avg_num_neighbors": 7.0,
        "atomic_numbers": list(ELEMENTS),
        "correlation": 2,
        "gate": torch.nn.functional.silu,
        "radial_MLP": [8, 8],
    } | changes
    for key in ("hidden_irreps", "MLP_irreps"):
        settings[key] = o3.Irreps(settings[key])
    settings["interaction_cls_first"] = modules.interaction_classes[first]
    settings["interaction_cls"] = modules.interaction_classes[later]
    if scale_shift:
        several = len(heads) > 1
        settings["atomic_inter_scale"] = np.array([0.8, 1.3]) if several else 0.8
        settings["atomic_inter_shift"] = np.array([0.1, -0.2]) if several else 0.1
    model = (modules.ScaleShiftMACE if scale_shift else modules.MACE)(**settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim == 3 else 1.0))
    return model


def write_mace(path, **kwargs):
    """Pickle such a model as mace-torch does; returns both."""
    model = make_mace(**kwargs)
    save_mace(model, path)
    return path, model


def save_mace(model, path):
    """Pickle a model; e3nn scripts its parts for that, which torch warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(model, path)


def structures():
    """Crystals and a molecule of the elements, with moments up to 3 μB."""
    rng = np.random.default_rng(1)
    cell = np.array([[3.2, 0.1, 0.0], [0.0, 3.5, 0.2], [0.3, 0.0, 3.9]])
    made = [
        Atoms("FeAlOFe", scaled_positions=rng.permutation(GRID)[:4], cell=1.25 * cell, pbc=True),
        Atoms("Fe2", positions=[[0, 0, 0], [1.5, 1.4, 1.6]], cell=cell, pbc=True),
        Atoms("AlO", positions=[[0, 0, 0], [0.2, 1.1, 0.4]], pbc=False),
    ]
    for atoms in made:
        atoms.positions += 0.1 * rng.normal(size=(len(atoms), 3))
        moments = rng.normal(size=(len(atoms), 3))
        set_magmoms(
            atoms,
            moments / np.linalg.norm(moments, axis=1, keepdims=True) * 3.0 * rng.random((len(atoms), 1)),
        )
    return made


GRID = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def mace_results(model, atoms, *, head=None):
    """Energy, forces and stress as mace-torch computes them, in float64."""
    from mace import data
    from mace.tools import torch_geometric, utils

    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        table = utils.AtomicNumberTable([int(z) for z in model.atomic_numbers])
        heads = list(getattr(model, "heads", ["Default"]))
        config = data.config_from_atoms(atoms, head_name=head or heads[0])
        sample = data.AtomicData.from_config(config, z_table=table, cutoff=float(model.r_max), heads=heads)
        batch = next(iter(torch_geometric.dataloader.DataLoader([sample], batch_size=1)))
        out = model(batch.to_dict(), compute_stress=bool(atoms.pbc.all()))
    finally:
        torch.set_default_dtype(previous)
    names = ("energy", "forces", "stress") if atoms.pbc.all() else ("energy", "forces")
    return {name: out[name].detach().numpy() for name in names}
