"""Learning curve of a magnetic model that starts from a non-magnetic MACE, against models that start from nothing.

A small MACE of mace-torch is trained on iron without its moments; then constrained-moment data of another lattice and
another DFT setting are learned with more and more structures, by models of the same size and with the same number of
steps. Every finished run is kept, so that an interrupted script goes on where it was:

    python tests/benchmarks/foundation_curve.py DATA_FOLDER WORK_FOLDER

DATA_FOLDER holds fe_snap_npj2021 and fe_fcc_deltaspin; the results go to docs/benchmarks/foundation_curve.json.
"""

import functools
import itertools
import json
import time
import warnings
from pathlib import Path

import curves
import mace  # noqa: F401  (before e3nn)
import numpy as np
import record
import torch
from ase.io import read
from e3nn import o3

from mmace_sim.training.config import load_train_config
from mmace_sim.training.trainer import train

NAME = "foundation_curve"
TOLD = "pretraining.json"
FOUNDATION = "snap.model"
SIZES = (3, 6, 12, 25, 100, 405)
SIZE = {"num_interactions": 2, "max_ell": 2, "correlation": 3, "radial_mlp": [64, 64, 64], "num_bessel": 8}
R_MAX = 4.0
MAGNETIC = {"spin_channels": 8, "spin_max_ell": 1}
PRETRAINING = {"two_atoms": 240, "more_atoms": 120, "cpu_seconds": 100.0, "batch_size": 4, "lr": 0.01}
METHODS = {
    "from the foundation": {"lr": 0.005},
    "same model from scratch": {"lr": 0.01},
    "MagneticMACE from scratch": {"lr": 0.01},
}
STEPS, BATCH, WARMUP = 300, 1, 20


def pretrain(data: Path, path: Path) -> dict:
    """Train the non-magnetic MACE with mace-torch on the self-consistent energies, forces and stresses of iron."""
    frames = {
        name: select(data / "fe_snap_npj2021" / f"{name}.extxyz", share) for name, share in SHARES.items()
    }
    model = untrained(frames["train"])
    samples = {name: graphs(images) for name, images in frames.items()}
    averaged = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=PRETRAINING["lr"], amsgrad=True, weight_decay=1e-6)
    start, step, used = time.process_time(), 0, 0.0
    while used < PRETRAINING["cpu_seconds"]:
        for batch in loader(samples["train"], shuffle=True):
            used = time.process_time() - start
            part = min(used / PRETRAINING["cpu_seconds"], 1.0)
            for group in optimizer.param_groups:
                group["lr"] = PRETRAINING["lr"] * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * part)))
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            step += 1
            for key, value in model.state_dict().items():
                if value.is_floating_point():
                    averaged[key].lerp_(value, 1.0 - min(0.99, (1 + step) / (10 + step)))
    model.load_state_dict(averaged)
    torch.save(model, path)
    return {"steps": step, "n_structures": len(samples["train"]), **errors(model, samples["valid"])}


SHARES = {"train": 1.0, "valid": 0.15}


def select(path: Path, share: float) -> list:
    """Structures that are not extreme, small and large ones."""
    usable = [
        atoms
        for atoms in read(path, ":")
        if atoms.info["REF_energy"] / len(atoms) < -7.0 and np.abs(atoms.arrays["REF_forces"]).max() < 10.0
    ]
    rng, chosen = np.random.default_rng(0), []
    for kind, wanted in (("two_atoms", lambda n: n < 10), ("more_atoms", lambda n: 10 <= n <= 54)):
        group = [atoms for atoms in usable if wanted(len(atoms))]
        chosen += [group[k] for k in rng.permutation(len(group))[: int(share * PRETRAINING[kind])]]
    return chosen


def untrained(frames: list) -> torch.nn.Module:
    """A MACE with the blocks of the newer foundation models."""
    from mace import modules

    torch.manual_seed(0)
    forces = np.concatenate([atoms.arrays["REF_forces"].ravel() for atoms in frames])
    neighbors = [sample.edge_index.shape[1] / sample.num_nodes for sample in graphs(frames)]
    return modules.ScaleShiftMACE(
        r_max=R_MAX,
        num_bessel=SIZE["num_bessel"],
        num_polynomial_cutoff=5,
        max_ell=SIZE["max_ell"],
        interaction_cls=modules.interaction_classes["RealAgnosticDensityResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticDensityInteractionBlock"],
        num_interactions=SIZE["num_interactions"],
        num_elements=1,
        hidden_irreps=o3.Irreps("16x0e+16x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.array([np.mean([atoms.info["REF_energy"] / len(atoms) for atoms in frames])]),
        avg_num_neighbors=float(np.mean(neighbors)),
        atomic_numbers=[26],
        correlation=SIZE["correlation"],
        gate=torch.nn.functional.silu,
        radial_MLP=SIZE["radial_mlp"],
        distance_transform="Agnesi",
        atomic_inter_scale=float(np.sqrt(np.mean(forces**2))),
        atomic_inter_shift=0.0,
    )


def graphs(frames: list) -> list:
    """Samples of mace-torch, without moments."""
    from mace import data
    from mace.tools import utils

    table, samples = utils.AtomicNumberTable([26]), []
    for atoms in frames:
        labels = {
            "energy": atoms.info["REF_energy"],
            "forces": atoms.arrays["REF_forces"],
            "stress": np.reshape(atoms.info["REF_stress"], (3, 3)),
        }
        config = data.Configuration(
            atomic_numbers=atoms.numbers,
            positions=atoms.positions,
            properties=labels,
            property_weights=dict.fromkeys(labels, 1.0),
            cell=atoms.cell.array,
            pbc=(True,) * 3,
        )
        samples.append(data.AtomicData.from_config(config, z_table=table, cutoff=R_MAX))
    return samples


def loader(samples: list, *, shuffle: bool = False) -> object:
    from mace.tools import torch_geometric

    return torch_geometric.dataloader.DataLoader(samples, PRETRAINING["batch_size"], shuffle=shuffle)


def loss_of(model: torch.nn.Module, batch: object) -> torch.Tensor:
    out = model(batch.to_dict(), training=True, compute_stress=True)
    per_atom = (out["energy"] - batch.energy) / (batch.ptr[1:] - batch.ptr[:-1])
    terms = (
        (1.0, per_atom / 0.01),
        (1.0, (out["forces"] - batch.forces) / 0.1),
        (0.3, (out["stress"] - batch.stress) / 0.005),
    )
    return sum(weight * torch.nn.functional.huber_loss(x, torch.zeros_like(x)) for weight, x in terms)


def errors(model: torch.nn.Module, samples: list) -> dict:
    """Mean absolute errors on structures that training did not see."""
    energies, forces = [], []
    for batch in loader(samples):
        out = model(batch.to_dict())
        energies.append((out["energy"] - batch.energy).abs().detach() / (batch.ptr[1:] - batch.ptr[:-1]))
        forces.append((out["forces"] - batch.forces).abs().detach().flatten())
    return {"energy_mae": float(torch.cat(energies).mean()), "forces_mae": float(torch.cat(forces).mean())}


def model_section(method: str, work: Path) -> dict:
    """What to train."""
    if method.startswith("MagneticMACE"):
        return {**SIZE, **MAGNETIC, "r_max": R_MAX, "hidden_irreps": "16x0e+16x1o", "MLP_irreps": "16x0e"}
    name = FOUNDATION if method.startswith("from") else f"untrained_{FOUNDATION}"
    return {"foundation": str(work / name), **MAGNETIC}


def run(data: Path, work: Path, method: str, n: int, seed: int) -> dict:
    """Train on n structures and test on others."""
    source = data / "fe_fcc_deltaspin"
    folder = work / f"{method.replace(' ', '_')}_{n}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    epochs, warmup = curves.schedule(n, BATCH, STEPS, WARMUP)
    part = curves.write_part(source / "train.extxyz", n, seed, folder / "train.extxyz")
    config = load_train_config(
        None,
        {
            "data": {"train_file": str(part), "valid_fraction": 0.0},
            "model": model_section(method, work),
            "optimizer": {"lr": METHODS[method]["lr"], "warmup_epochs": warmup},
            "trainer": {
                "max_epochs": epochs,
                "batch_size": BATCH,
                "keep": "last",
                "seed": seed,
                "device": "cpu",
                "num_threads": 1,
                "figures": False,
            },
        },
    )
    model = train(config, folder).model
    return {
        "lr": METHODS[method]["lr"],
        "test": curves.errors(model, [source / "test.extxyz"]),
        "train": curves.errors(model, [part]),
    }


def main() -> None:
    """Do what is not done yet."""
    options = curves.options(__doc__, SIZES, list(METHODS))
    warnings.simplefilter("ignore")
    prepare(options.data, options.work)
    pretraining = json.loads((options.work / TOLD).read_text())
    settings = {"steps": STEPS, "batch_size": BATCH, "magnetic": MAGNETIC, "r_max": R_MAX}
    results = curves.Results(NAME, settings | {"pretraining": pretraining})
    wanted = itertools.product(options.methods, options.sizes, options.seeds)
    results.add_missing(wanted, functools.partial(run, options.data, options.work))
    curves.draw(results.runs, list(METHODS), record.FOLDER / NAME)


def prepare(data: Path, work: Path) -> None:
    """Pre-train the foundation if that is not done, and write the same network with random weights."""
    work.mkdir(parents=True, exist_ok=True)
    if not (work / TOLD).is_file():
        (work / TOLD).write_text(json.dumps(PRETRAINING | pretrain(data, work / FOUNDATION)))
    if not (work / f"untrained_{FOUNDATION}").is_file():
        frames = select(data / "fe_snap_npj2021" / "train.extxyz", SHARES["train"])
        torch.save(untrained(frames), work / f"untrained_{FOUNDATION}")


if __name__ == "__main__":
    main()
