"""Trains and tests three architectures on every data set, with equal epochs, and writes ``docs/accuracy.md``.

::

    python docs/accuracy/accuracy.py train DATA [--sets ...] [--kinds ...] [--seeds ...]    # adds what is missing
    python docs/accuracy/accuracy.py train DATA --longer 4 [...]                            # four times the epochs
    python docs/accuracy/accuracy.py curve DATA [--sizes ...]                               # learning curves
    python docs/accuracy/accuracy.py page                                                   # tables and figures

DATA is the folder with one folder for each set. A run that is in ``results.json`` is not repeated: remove its entry
(or the whole file) to train again. Several of these commands may run beside each other.
"""

import argparse
import fcntl
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch

from mmace_sim.model.checkpoint import load_model, save_model
from mmace_sim.training.config import TrainConfig
from mmace_sim.training.evaluation.metrics import table_as_dict
from mmace_sim.training.trainer import train

HERE = Path(__file__).parent
MODELS = HERE / "models"
RESULTS = HERE / "results.json"
KINDS = ("ours", "paper", "nomag")


@dataclass(frozen=True)
class DataSet:
    """A data set and what is trained on it.

    Attributes:
        name: Name of its folder.
        paper: The paper's hyper-parameters for this kind of material.
        spin_orbit: Whether the labels were computed with spin–orbit coupling.
        r_max: Cutoff radius of all architectures, in Å (the paper's for this kind of material).
        epochs: Passes over the training structures.
        batch_size: Structures per step.
        split: Whether it comes split into files; otherwise it is split by a hash.
        magforce_elements: Elements whose magnetic forces are labels (None: all).
        loss: Changes to the standard loss.
    """

    name: str
    paper: dict[str, Any]
    r_max: float
    epochs: int
    batch_size: int
    spin_orbit: bool = False
    split: bool = True
    magforce_elements: list[str] | None = None
    loss: dict[str, Any] = field(default_factory=dict)


_IRON = {"num_interactions": 1, "hidden_irreps": "64x0e", "max_m_ell": 3}  # the paper's models of iron
_COMPOUND = {"num_interactions": 1, "hidden_irreps": "64x0e", "max_m_ell": 1}  # of FeAl and CrN
_RIGID = {
    "energy": {"weight": 1.0, "scale": 0.001},
    "magforces": {"weight": 1.0, "scale": 0.01},
}  # small spreads
SETS = {
    s.name: s
    for s in (
        DataSet("fe_fcc_deltaspin", _IRON, 4.5, 4, 2),
        DataSet("fe_bcc_nc_fixedlattice", _IRON, 4.5, 12, 2, loss=_RIGID),
        DataSet(
            "fege_b20_nc_fixedlattice",
            _COMPOUND,
            5.0,
            16,
            2,
            spin_orbit=True,
            magforce_elements=["Fe"],
            loss=_RIGID,
        ),
        DataSet(
            "nio_deltaspin",
            _COMPOUND,
            5.0,
            8,
            2,
            spin_orbit=True,
            magforce_elements=["Ni"],
            loss=_RIGID | {"forces": {"weight": 1.0, "scale": 0.02}},
        ),
        DataSet("fe_snap_npj2021", _IRON, 4.5, 2, 8),
        DataSet("fe-dft", _IRON, 4.5, 40, 4, split=False),
    )
}


def configuration(data: DataSet, kind: str, seed: int, epochs: int, files: dict[str, Path]) -> TrainConfig:
    """The training of one architecture on one set; everything but the architecture is the same for all."""
    if kind == "paper":
        model = {"architecture": "PaperMMACE", **data.paper}
    else:
        model = {"num_interactions": 1, "hidden_irreps": "32x0e", "spin_channels": 16, "radial_mlp": [16]}
        model["spin_orbit"] = data.spin_orbit and kind == "ours"
    fractions = {"valid_fraction": 0.1, "test_fraction": 0.0 if data.split else 0.15}
    loss = dict(data.loss) | {"magforce_elements": data.magforce_elements}
    if kind == "nomag":
        loss["magforces"] = {"weight": 0.0, "scale": 1.0}
    content = {
        "name": f"{data.name}-{kind}-{seed}",
        "data": {f"{part}_file": [str(path)] for part, path in files.items()} | fractions,
        "model": model | {"r_max": data.r_max},
        "loss": loss,
        "optimizer": {"lr": 0.01, "ema_decay": 0.99, "lr_final": 0.01},
        "trainer": {
            "max_epochs": epochs,
            "batch_size": data.batch_size,
            "valid_every": max(1, epochs // 4),
            "seed": seed,
            "device": "cpu",
            "num_threads": 1,
        },
    }
    return TrainConfig.model_validate(content)


def data_files(
    folder: Path, data: DataSet, scratch: Path, *, moments: bool, n_train: int | None
) -> dict[str, Path]:
    """Files of a set; copies of them for a model without moments and for a part of the training set."""
    source = folder / data.name
    parts = ("train", "valid", "test") if data.split else ("train",)
    files = {part: source / (f"{part}.extxyz" if data.split else "train_raw.extxyz") for part in parts}
    if moments and n_train is None:
        return files
    copies = {}
    for part, path in files.items():
        images = ase.io.read(path, index=":")
        if part == "train" and n_train is not None:
            order = np.random.default_rng(0).permutation(
                len(images)
            )  # nested: smaller parts are in larger ones
            images = [images[k] for k in order[:n_train]]
        for image in images:
            if not moments:
                image.set_array("REF_magmom", np.zeros((len(image), 3)))
        copies[part] = scratch / f"{part}.extxyz"
        ase.io.write(copies[part], images, format="extxyz")
    return copies


@contextmanager
def results() -> Iterator[dict[str, Any]]:
    """What was measured so far, locked, and written back."""
    with (HERE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        yield content
        RESULTS.write_text(json.dumps(dict(sorted(content.items())), indent=1) + "\n")


def _n_training(folder: Path, data: DataSet) -> int:
    """Structures of the training file of a set that comes split."""
    return len(ase.io.read(folder / data.name / "train.extxyz", index=":"))


def run(
    folder: Path, data: DataSet, kind: str, seed: int, *, n_train: int | None = None, longer: int = 1
) -> None:
    """Train, test and keep one model, unless it is there.

    A part of the training set gets as many steps as the whole; `longer` multiplies the epochs. Both are not kept.
    """
    group, case = ("curve", n_train) if n_train else ("long", longer) if longer > 1 else ("model", "all")
    key = f"{group}/{data.name}/{kind}/{case}/{seed}"
    with results() as known:
        if key in known:
            return
        known[key] = None  # being made
    with tempfile.TemporaryDirectory() as scratch:
        files = data_files(folder, data, Path(scratch), moments=kind != "nomag", n_train=n_train)
        n_epochs = data.epochs * longer
        if n_train is not None:
            n_epochs = round(n_epochs * _n_training(folder, data) / n_train)
        config = configuration(data, kind, seed, n_epochs, files)
        output = Path(scratch) / "run"
        output.mkdir()
        started = time.process_time()
        trained = train(config, output)
        entry = {part: table_as_dict(trained.errors[part].overall) for part in ("train", "test")}
        entry |= {
            "n_train": trained.errors["train"].n_structures,
            "n_weights": sum(p.numel() for p in trained.model.parameters()),
            "epochs": n_epochs,
            "cpu_seconds": round(time.process_time() - started),
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
        if group == "model":
            MODELS.mkdir(exist_ok=True)
            save_model(
                load_model(output / "model.safetensors").float(),
                MODELS / f"{data.name}-{kind}-{seed}.safetensors",
            )
        shutil.rmtree(output)
    with results() as known:
        known[key] = entry
    print(key, json.dumps(entry["test"]), flush=True)  # noqa: T201 progress of a script


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["train", "curve", "page"])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--sizes", nargs="+", type=int, default=[38, 75])
    parser.add_argument("--longer", type=int, default=1)
    given = parser.parse_args()
    if given.command == "page":
        from page import write_page

        write_page(json.loads(RESULTS.read_text()))
        return
    if given.data is None:
        parser.error("DATA, the folder with the data sets, is missing")
    torch.set_num_threads(1)
    for seed in given.seeds:
        for name in given.sets:
            for kind in given.kinds:
                for size in given.sizes if given.command == "curve" else [None]:
                    run(given.data, SETS[name], kind, seed, n_train=size, longer=given.longer)


if __name__ == "__main__":
    main()
