"""One evaluation of a magnetic model around a MACE of the size of MACE-MP-0 (medium), against that MACE in mace-torch.

$ OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/test_foundation_speed.py --override-ini addopts=
"""

import time
from statistics import median

import model_sizes as ms
import numpy as np
import pytest
import torch
from mace import data, modules, tools
from mace.tools import torch_geometric
from record import write

from mmace_sim.interop.foundation import from_foundation
from mmace_sim.model.derivatives import evaluate

R_MAX, ROUNDS = 6.0, 5


@pytest.mark.filterwarnings("ignore")
def test_evaluation(tmp_path):
    torch.set_num_threads(1)
    mace = modules.ScaleShiftMACE(
        r_max=R_MAX,
        num_bessel=10,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=2,
        num_elements=1,
        hidden_irreps=ms.o3.Irreps("128x0e+128x1o"),
        MLP_irreps=ms.o3.Irreps("16x0e"),
        atomic_energies=np.zeros(1),
        avg_num_neighbors=62.0,
        atomic_numbers=[26],
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        atomic_inter_scale=0.8,
        atomic_inter_shift=0.0,
    )
    torch.save(mace, tmp_path / "m.model")
    magnetic = from_foundation(tmp_path / "m.model", elements=["Fe"], max_moment={"Fe": 3.0}).float()
    for model in (mace, magnetic):
        model.requires_grad_(requires_grad=False)
    sizes = {n: rows(mace, magnetic, n) for n in (16, 54)}
    write("foundation_speed", {"dtype": "float32", "sizes": sizes})


def rows(mace, magnetic, n_atoms):
    """CPU time of one evaluation and the ratio to that of mace-torch, in the same order again and again."""
    atoms = ms.iron(n_atoms)
    sample = data.AtomicData.from_config(
        data.config_from_atoms(atoms), z_table=tools.AtomicNumberTable([26]), cutoff=R_MAX
    )
    batch = next(iter(torch_geometric.dataloader.DataLoader([sample], 1))).to_dict()
    graph = ms.graph([atoms], R_MAX, torch.float32)
    steps = {
        "mace-torch": lambda: mace(batch, compute_stress=True),
        "magnetic": lambda: evaluate(magnetic, graph),
        "magnetic, without magforces": lambda: evaluate(magnetic, graph, compute_magforces=False),
    }
    times = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(ROUNDS):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append(time.process_time() - start)
    ratios = {
        name: [ours / theirs for ours, theirs in zip(values, times["mace-torch"], strict=True)]
        for name, values in times.items()
    }
    return {"n_edges": graph.edge_index.shape[1]} | {
        name: {"cpu_ms": round(1e3 * median(values), 1), "ratio": round(median(ratios[name]), 3)}
        for name, values in times.items()
    }
