"""
Fine-tune a model without forgetting
====================================

``mmace-fe-pbe``, the embedded model of iron alone, learns fcc iron from a code with another zero of energy and a
smaller sphere in which moments are measured. Trained on the new data alone it forgets bcc; a replay of old data
keeps it. Data and training are short, so that the page builds in a minute: it shows the steps, not the accuracy.
From the command line: ``mmace-sim finetune mmace-fe-pbe fcc.extxyz --e0 one-body --replay bcc.extxyz``.
"""

# %%
# Old and new data
# ----------------
# Old: our constrained DFT of bcc iron, which ``mmace-fe-pbe`` was trained on. New: that of fcc iron, as another
# code might give it: all energies moved by 3300 eV per atom, all moments 0.7 times as long, and magnetic forces
# −∂E/∂m longer by the same factor.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from ase.io import read, write

from mmace_sim.model.checkpoint import load_model
from mmace_sim.training.evaluation.evaluate import evaluate_files
from mmace_sim.training.evaluation.metrics import error_line
from mmace_sim.training.finetuning.finetune import finetune, load_finetune_config

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
folder = Path(tempfile.mkdtemp())
frames = read(here / "data" / "fe-cdft-train.extxyz.xz", ":")
bcc = [atoms for atoms in frames if atoms.info["config_type"].startswith(("eos_bcc", "mscan_bcc"))]
fcc = [atoms for atoms in frames if atoms.info["config_type"].startswith(("eos_fcc", "mscan_fcc", "fct"))]
for atoms in fcc:
    atoms.info["REF_energy"] += 3300.0 * len(atoms)
    atoms.arrays["REF_magmom"] *= 0.7
    atoms.arrays["REF_magforces"] /= 0.7
for name, images in (("bcc", bcc), ("fcc", fcc)):
    write(folder / f"{name}_train.extxyz", [atoms for k, atoms in enumerate(images) if k % 4])
    write(folder / f"{name}_test.extxyz", images[::4])
print(f"{len(bcc)} structures of bcc, {len(fcc)} of fcc")

# %%
# Fine-tune
# ---------
# The zero of the new data, and here also the energy E1 of the moments' lengths, is found before the first step: what
# the model leaves of energies and magnetic forces, by least squares. With a replay the old data have a head of
# their own, with the old zero and E1; the network is shared.

new = {"train_file": folder / "fcc_train.extxyz", "valid_file": folder / "fcc_test.extxyz"}
runs = {}
for name, replay in (("new data alone", None), ("with replay", {"file": folder / "bcc_train.extxyz"})):
    settings = {
        "model": "mmace-fe-pbe",
        "data": new,
        "e0": "one-body",
        "replay": replay,
        "optimizer": {"lr": 0.003},
        "trainer": {"max_epochs": 15, "valid_every": 15, "batch_size": 4},
    }
    output = folder / name.replace(" ", "_")
    output.mkdir()
    runs[name] = finetune(load_finetune_config(overrides=settings), output)

# %%
# What was learned and what was forgotten
# ---------------------------------------
# Both files are ordinary models of the new data. To ask for bcc, the old zero and E1 are needed: the file with the
# replay has them as the head ``#replay``; in the other one we put them back by hand.

base = load_model("mmace-fe-pbe")


def new_errors(errors):
    return next(value for key, value in errors.items() if key in ("valid", "valid/default")).overall


def old_errors(model):
    return evaluate_files(model, [folder / "bcc_test.extxyz"]).overall


alone = load_model(runs["new data alone"].training.path)
alone.reference.load_state_dict(base.reference.state_dict())
old_models = {
    "before": base,
    "new data alone": alone,
    "with replay": load_model(runs["with replay"].training.path, head="replay"),
}
rows = {}
for name, model in old_models.items():
    found = runs["new data alone"].before if name == "before" else runs[name].training.errors
    rows[name] = (new_errors(found), old_errors(model))
    print(f"{name:15s} fcc: {error_line(rows[name][0])}   bcc: {error_line(rows[name][1])}")

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
