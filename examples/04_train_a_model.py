"""
Train a small model
===================

Fit a model to density functional data of bcc iron and look at its errors. It is small and trained briefly
so that the page builds in a minute: it shows the steps, not the accuracy. The same from the command line
is ``mmace-sim train run.yaml``.
"""

# %%
# Data
# ----
# Extended XYZ with the labels ``REF_energy``, ``REF_forces``, ``REF_stress``, ``REF_magmom`` and
# ``REF_magforces``. A label that a structure lacks does not count; it is never filled in.

import tempfile
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
from ase.io import read, write

from mmace_sim.training.config import load_train_config
from mmace_sim.training.evaluation.metrics import error_line
from mmace_sim.training.trainer import train

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
folder = Path(tempfile.mkdtemp())
frames = [atoms for path in sorted((here / "data").glob("*train*.extxyz*")) for atoms in read(path, ":")]
chosen = [atoms for atoms in frames if atoms.info["config_type"].startswith(("eos_bcc", "mscan_bcc"))]
write(folder / "train.extxyz", [atoms for k, atoms in enumerate(chosen) if k % 6])
write(folder / "valid.extxyz", chosen[::6])
for config_type, count in Counter(atoms.info["config_type"] for atoms in chosen).items():
    print(f"{count:4d} {config_type}")

# %%
# Configuration
# -------------
# What is not given has a default; an unknown key is an error. Elements, the largest moments and the
# number of neighbours come from the data.

config = load_train_config(
    overrides={
        "name": "tiny",
        "data": {
            "train_file": folder / "train.extxyz",
            "valid_file": folder / "valid.extxyz",
        },
        "model": {
            "r_max": 4.0,
            "hidden_irreps": "8x0e",
            "num_interactions": 1,
            "spin_channels": 4,
            "max_ell": 2,
        },
        "trainer": {"max_epochs": 20, "batch_size": 8},
    }
)

# %%
# Train
# -----
# The energies of isolated atoms and the one-body term are fitted first, by least squares. ``train``
# writes the model, the errors of each epoch and the merged configuration to a folder.

result = train(config, folder)
print(f"{result.n_epochs} epochs in {result.seconds:.0f} s, best after epoch {result.best_epoch}")
for name, evaluation in result.errors.items():
    print(f"{name:6s} {error_line(evaluation.overall)}")

# %%
# Predicted against reference
# ---------------------------
# Energies are counted from the lowest one of the reference: totals of this data are near −3386 eV per atom.

units = {"energy": (1000.0, "energy (meV/atom)"), "magforces": (1.0, "magnetic force (eV/μB)")}
figure, all_axes = plt.subplots(1, 2, figsize=(6.5, 3.2), layout="constrained")
for axes, (label, (scale, title)) in zip(all_axes, units.items(), strict=True):
    parity = {name: result.errors[name].parity[label] for name in ("train", "valid")}
    zero = min(min(values.x) for values in parity.values()) if label == "energy" else 0.0
    for (name, values), colour in zip(parity.items(), ("0.75", "0.1"), strict=True):
        reference, model = ([scale * (v - zero) for v in side] for side in (values.x, values.y))
        axes.plot(reference, model, "o", color=colour, markersize=3, label=name)
    axes.axline((0.0, 0.0), slope=1, color="0.6", linewidth=0.8)
    axes.set_xlabel(f"{title}, DFT")
    axes.set_ylabel(f"{title}, model")
    axes.locator_params(nbins=5)
all_axes[0].legend(frameon=False)
plt.show()

# %%
# The model is one file. Use it by its path wherever a model is asked for: ``mmace_sim.relax(structures,
# model=path)``.

print(result.path.name, f"{result.path.stat().st_size / 1000:.0f} kB")
