"""Learning curve of fine-tuning: iron of one lattice learned by a model of another, and what that model forgets.

The base is our model of fcc iron (DeltaSpin, docs/accuracy); the new data are bcc iron with disordered and with nearly
ferromagnetic moments (VASP, energies and magnetic forces). All runs have the same number of steps and structures of
the new data per step. Every finished run is kept, so that an interrupted script goes on where it was:

    python tests/benchmarks/finetune_curve.py DATA_FOLDER WORK_FOLDER [--methods ... --sizes ... --seeds ...]

DATA_FOLDER holds fe_fcc_deltaspin and fe_bcc_nc_fixedlattice; the results go to docs/benchmarks/finetune_curve.json.
"""

import functools
import itertools
import warnings
from pathlib import Path

import curves
import numpy as np
import record
from ase.io import read

from mmace_sim import plots
from mmace_sim.base.settings import merge
from mmace_sim.model.architectures import AnyModel
from mmace_sim.model.checkpoint import load_model
from mmace_sim.training.config import load_train_config
from mmace_sim.training.finetuning.finetune import finetune, load_finetune_config
from mmace_sim.training.trainer import train

NAME = "finetune_curve"
BASE = record.FOLDER.parent / "accuracy" / "models" / "fe_fcc_deltaspin-ours-0.safetensors"
OLD, NEW = "fe_fcc_deltaspin", "fe_bcc_nc_fixedlattice"
SIZES = (5, 10, 20, 40, 84)
STEPS, BATCH, WARMUP = 200, 2, 20
SCRATCH = "from scratch"
MODEL = {
    "num_interactions": 1,
    "hidden_irreps": "32x0e",
    "spin_channels": 16,
    "radial_mlp": [16],
    "r_max": 4.5,
}
FASTER = {"lr": 0.002}
METHODS = {
    SCRATCH: {"optimizer": {"lr": 0.01}},
    "fine-tuned, lr 0.0005": {},
    "fine-tuned, lr 0.002": {"optimizer": FASTER},
    "fine-tuned, lr 0.005": {"optimizer": {"lr": 0.005}},
    "lr 0.002, one-body": {"optimizer": FASTER, "e0": "one-body"},
    "LoRA 4, lr 0.005": {"optimizer": {"lora": 4, "lr": 0.005}},
    "embedding and radial frozen": {"optimizer": FASTER | {"freeze": ["embedding", "radial"]}},
    "replay of old data": {"optimizer": FASTER, "replay": {"source": "file"}},
    "replay, labels of the base": {"optimizer": FASTER, "replay": {"source": "structures"}},
    "replay, distorted copies": {"optimizer": FASTER, "replay": {"source": "n_variants"}},
}
CURVES = [SCRATCH, "fine-tuned, lr 0.0005", "fine-tuned, lr 0.002", "fine-tuned, lr 0.005"]


def run(data: Path, work: Path, method: str, n: int, seed: int) -> dict:
    """Train on n structures; errors on others of the new and of the old data."""
    folder = work / f"{method.replace(' ', '_').replace(',', '')}_{n}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    part = curves.write_part(data / NEW / "train.extxyz", n, seed, folder / "train.extxyz")
    choices = dict(METHODS[method])
    source = choices.pop("replay", {}).get("source")
    batch = BATCH if source is None else 2 * BATCH  # as many old structures as new ones
    epochs, warmup = curves.schedule(n, BATCH, STEPS, WARMUP)
    content = {
        "data": {"train_file": str(part), "valid_fraction": 0.0},
        "optimizer": {"warmup_epochs": warmup},
        "trainer": {
            "max_epochs": epochs,
            "batch_size": batch,
            "keep": "last",
            "valid_every": epochs,
            "seed": seed,
            "device": "cpu",
            "num_threads": 1,
            "figures": False,
        },
    }
    content = merge(content, choices)
    new_test = [data / NEW / "valid.extxyz", data / NEW / "test.extxyz"]
    if method == SCRATCH:
        model = train(load_train_config(None, content | {"model": MODEL}), folder).model
        return {"test": curves.errors(model, new_test), "train": curves.errors(model, [part])}
    if source is not None:
        content["replay"] = replay(data, source, n)
    finetune(load_finetune_config(None, content | {"model": str(BASE)}), folder)
    model = load_model(folder / "model.safetensors")
    return {
        "test": curves.errors(model, new_test),
        "train": curves.errors(model, [part]),
        "old": curves.errors(old_model(folder, source), [data / OLD / "test.extxyz"]),
    }


def replay(data: Path, source: str, n: int) -> dict:
    """About n structures to train on beside the new ones, and two or more to validate on."""
    if source == "n_variants":
        return {"n_variants": n}
    return {source: [str(data / OLD / "train.extxyz")], "n": n}


def old_model(folder: Path, source: str | None) -> AnyModel:
    """The trained network with the reference energies of the old data."""
    if source is not None:
        return load_model(folder / "model.safetensors", head="replay")
    model = load_model(folder / "model.safetensors")
    model.reference.load_state_dict(load_model(BASE).reference.state_dict())
    return model


def before(data: Path) -> dict:
    """Errors of the base on the old data."""
    return curves.errors(load_model(BASE), [data / OLD / "test.extxyz"])


def draw_forgetting(runs: list[dict], base: dict, n: int = 10) -> None:
    """What each method learned of n new structures against what it forgot."""
    figure, axes = plots.new_figure("page", aspect=0.5)
    for k, method in enumerate(METHODS):
        own = [r for r in runs if r["method"] == method and r["n"] == n and "old" in r]
        if own:
            x, y = (np.mean([r[of]["magforces"]["mae"] for r in own]) for of in ("old", "test"))
            style = {"color": plots.COLORS[k % 4], "marker": plots.MARKERS[k % len(plots.MARKERS)]}
            axes.plot(x, y, linestyle="none", label=method, **style)
    scratch = [r["test"]["magforces"]["mae"] for r in runs if r["method"] == SCRATCH and r["n"] == n]
    axes.axhline(np.mean(scratch), color=plots.REFERENCE, linestyle=":", label=SCRATCH)
    axes.axvline(
        base["magforces"]["mae"], color=plots.REFERENCE, linestyle="--", label="the base on its own data"
    )
    unit = base["magforces"]["unit"]
    axes.set(
        xlabel=f"old data: magforces, test MAE ({unit})", ylabel=f"new data: magforces, test MAE ({unit})"
    )
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plots.save_figure(figure, record.FOLDER / "finetune_forgetting")


def main() -> None:
    """Do what is not done yet."""
    options = curves.options(__doc__, SIZES, CURVES)
    warnings.simplefilter("ignore")
    n_test = sum(len(read(options.data / NEW / f"{part}.extxyz", ":")) for part in ("valid", "test"))
    settings = {"base": BASE.name, "steps": STEPS, "new_per_step": BATCH, "model_from_scratch": MODEL}
    settings |= {"n_test": n_test, "old_errors_of_base": before(options.data)}
    results = curves.Results(NAME, settings)
    wanted = itertools.product(options.methods, options.sizes, options.seeds)
    results.add_missing(wanted, functools.partial(run, options.data, options.work))
    draw = functools.partial(curves.draw, results.runs, CURVES, xlabel="structures of the new data")
    draw(record.FOLDER / NAME, labels=("energy", "magforces"))
    draw_forgetting(results.runs, settings["old_errors_of_base"])


if __name__ == "__main__":
    main()
