"""
Fine-tune a model without forgetting
====================================

A model of bcc iron learns fcc iron, from data with another zero of energy. Trained on the new data alone it
forgets bcc; with a replay of old data it does not. Everything is tiny, so that the page builds in a
minute: it shows the steps, not the accuracy. From the command line:
``mmace-sim finetune base.safetensors fcc.extxyz --replay bcc.extxyz --n-replay 20``.
"""

# %%
# Old and new data
# ----------------
# Our constrained DFT of bcc iron, and that of fcc iron as another set of pseudopotentials would give it:
# with all energies moved by 3300 eV per atom.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from ase.io import read, write

from mmace_sim.model.checkpoint import load_model
from mmace_sim.training.config import load_train_config
from mmace_sim.training.evaluate import evaluate_files
from mmace_sim.training.finetune import finetune, load_finetune_config
from mmace_sim.training.metrics import error_line
from mmace_sim.training.trainer import train

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
folder = Path(tempfile.mkdtemp())
frames = read(here / "data" / "fe-cdft-train.extxyz.xz", ":")
bcc = [atoms for atoms in frames if atoms.info["config_type"].startswith(("eos_bcc", "mscan_bcc"))]
fcc = [atoms for atoms in frames if atoms.info["config_type"].startswith(("eos_fcc", "mscan_fcc", "fct"))]
for atoms in fcc:
    atoms.info["REF_energy"] += 3300.0 * len(atoms)
for name, images in (("bcc", bcc), ("fcc", fcc)):
    write(folder / f"{name}_train.extxyz", [atoms for k, atoms in enumerate(images) if k % 4])
    write(folder / f"{name}_test.extxyz", images[::4])
print(f"{len(bcc)} structures of bcc, {len(fcc)} of fcc")

# %%
# The model before
# ----------------

model = {"r_max": 4.0, "hidden_irreps": "8x0e", "num_interactions": 1, "spin_channels": 4, "max_ell": 2}
data = {"train_file": folder / "bcc_train.extxyz", "valid_file": folder / "bcc_test.extxyz"}
settings = {"data": data, "model": model, "trainer": {"max_epochs": 20, "valid_every": 20}}
(folder / "base").mkdir()
base = train(load_train_config(overrides=settings), folder / "base")
print("bcc:", error_line(base.errors["valid"].overall))

# %%
# Fine-tune
# ---------
# The zero of the new data is found before the first step: what the model leaves of their energies, by least
# squares. With a replay the old data have a head of their own, with the old zero; the network is shared.

new = {"train_file": folder / "fcc_train.extxyz", "valid_file": folder / "fcc_test.extxyz"}
runs = {}
for name, replay in (
    ("new data alone", None),
    ("with replay", {"file": folder / "bcc_train.extxyz", "n": 20}),
):
    settings = {
        "model": str(base.path),
        "data": new,
        "replay": replay,
        "optimizer": {"lr": 0.005},
        "trainer": {"max_epochs": 15, "valid_every": 15, "batch_size": 4},
    }
    output = folder / name.replace(" ", "_")
    output.mkdir()
    runs[name] = finetune(load_finetune_config(overrides=settings), output)
    moved = runs[name].training.model.reference.atomic_energies[0] - base.model.reference.atomic_energies[0]
    print(f"{name}: zero moved by {moved:.2f} eV/atom")

# %%
# What was learned and what was forgotten
# ---------------------------------------
# Both files are ordinary models of the new data. To ask for bcc, the old zero is needed: the file with the replay
# has it as the head ``#replay``; in the other one we put it back by hand.


def old_errors(run):
    several = len(run.training.model.heads) > 1
    tuned = load_model(run.training.path, head="replay" if several else None)
    tuned.reference.atomic_energies.copy_(base.model.reference.atomic_energies)
    return evaluate_files(tuned, [folder / "bcc_test.extxyz"]).overall


def new_errors(errors):
    return next(value for key, value in errors.items() if key in ("valid", "valid/default")).overall


rows = {"before": (new_errors(runs["new data alone"].before), base.errors["valid"].overall)}
for name, run in runs.items():
    rows[name] = (new_errors(run.training.errors), old_errors(run))
for name, (fcc_errors, bcc_errors) in rows.items():
    print(f"{name:15s} fcc: {error_line(fcc_errors)}   bcc: {error_line(bcc_errors)}")

figure, all_axes = plt.subplots(1, 2, figsize=(6.5, 3.0), layout="constrained")
for axes, (label, unit) in zip(all_axes, (("energy", "meV/atom"), ("magforces", "meV/μB")), strict=True):
    for k, (crystal, colour) in enumerate((("fcc (new)", "0.1"), ("bcc (old)", "0.7"))):
        places = [n + 0.35 * k for n in range(len(rows))]
        axes.bar(places, [row[k][label].mae for row in rows.values()], 0.33, color=colour, label=crystal)
    axes.set_xticks([n + 0.17 for n in range(len(rows))], list(rows))
    axes.tick_params(axis="x", rotation=15)
    axes.set_ylabel(f"{label} MAE ({unit})")
all_axes[0].legend(frameon=False)
plt.show()
