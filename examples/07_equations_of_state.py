"""
Magnetic states of iron against volume and c/a
==============================================

Energy-volume curves of several magnetic states, the collapse from high to low spin, and the Bain path from bcc to
fcc. All points of a calculation are one batch. The same from the command line are ``mmace-sim eos`` and
``mmace-sim bain``.
"""

# %%
# Two lattices, four states, 16 volumes
# -------------------------------------
# The moments follow the volume. A state that does not fit into the cell gets a larger one: antiferromagnetic double
# layers (AFMD) in fcc take eight atoms.

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

import mmace_sim
from mmace_sim.plots import COLORS, MARKERS
from mmace_sim.properties.bain import BainPath, lowest_along_path
from mmace_sim.properties.eos import EquationOfState

model = mmace_sim.load_model("default")
bcc, fcc = bulk("Fe", "bcc", a=2.83, cubic=True), bulk("Fe", "fcc", a=3.50, cubic=True)
states = ["fm", "afm", "afmd", "nm"]
eos = EquationOfState(model, states=states, volume_min=0.9, volume_max=1.23, n_volumes=16)
results = dict(zip(("bcc", "fcc"), eos.run([bcc, fcc]), strict=True))

# %%
# V₀, B₀ and B₀′ come from a Birch–Murnaghan equation in a window that its residual chooses. A curve whose moment
# jumps has an equation of state on each side: ferromagnetic fcc iron has a low-spin and a high-spin one.

zero = results["bcc"].lowest.fits[0].energy
for lattice, result in results.items():
    for curve in result.curves:
        for fit in curve.fits:
            print(f"{lattice} {curve.state:5s} {1000 * (fit.energy - zero):6.1f} meV/atom", end="")
            print(f"  V₀ {fit.volume:6.2f} Å³  B₀ {fit.bulk_modulus_gpa:4.0f} GPa  |m| {fit.moment:4.2f} μB")
        if not curve.fits:
            print(f"{lattice} {curve.state:5s} {curve.message}")
        for jump in curve.jumps:
            (v1, v2), (m1, m2) = jump.volumes, jump.moments
            print(f"          the moment jumps from {m2:.2f} to {m1:.2f} μB between {v2:.2f} and {v1:.2f} Å³")
for crossing in results["fcc"].crossings:
    print(f"fcc: {crossing.below} below {crossing.volume:.2f} Å³, {crossing.above} above")

# %%
# The curves of both lattices, and the moments of fcc.

figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for panel, (lattice, result) in zip(axes, results.items(), strict=False):
    for curve, color, marker in zip(result.curves, COLORS, MARKERS, strict=False):
        panel.plot(
            curve.volumes,
            1000 * (curve.energies - zero),
            marker + "-",
            color=color,
            markersize=3,
            linewidth=1,
        )
    panel.set_xlabel("volume (Å³/atom)")
    panel.set_ylabel("energy (meV/atom)")
    panel.set_ylim(-20, 600)
    panel.set_title(lattice)
for curve, color, marker in zip(results["fcc"].curves, COLORS, MARKERS, strict=False):
    axes[2].plot(
        curve.volumes,
        curve.moments,
        marker + "-",
        color=color,
        markersize=3,
        linewidth=1,
        label=curve.state.upper(),
    )
axes[2].set_xlabel("volume (Å³/atom)")
axes[2].set_ylabel("moment (μB)")
axes[2].set_title("fcc")
axes[2].legend(frameon=False, fontsize=8)
plt.show()

# %%
# The Bain path
# -------------
# A body-centred tetragonal cell is bcc at c/a = 1 and fcc at c/a = √2. The maps show the energy over c/a and volume;
# crosses are minima. The antiferromagnets of iron are not cubic: their minimum is not at √2.

(path,) = BainPath(model, states=states, n_ratios=13, n_volumes=7).run([bcc])
figure, axes = plt.subplots(1, 4, figsize=(9, 2.8), sharex=True, sharey=True, layout="constrained")
for panel, one in zip(axes, path.maps, strict=True):
    energies = 1000 * (one.energies.T - path.lowest_energy)
    drawn = panel.contourf(
        path.c_over_a, path.volumes, energies, levels=np.arange(0, 401, 25), cmap="viridis", extend="max"
    )
    for minimum in one.minima:
        panel.plot(minimum.c_over_a, minimum.volume, "x", color="white")
    panel.set_title(one.state.upper())
    panel.set_xlabel("c/a")
axes[0].set_ylabel("volume (Å³/atom)")
figure.colorbar(drawn, ax=axes, label="energy (meV/atom)")
plt.show()

# %%
# The energy along the path, at the best volume of each c/a.

figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
for one, color, marker in zip(path.maps, COLORS, MARKERS, strict=False):
    energies = 1000 * (lowest_along_path(one) - path.lowest_energy)
    axes.plot(
        path.c_over_a, energies, marker + "-", color=color, markersize=4, linewidth=1, label=one.state.upper()
    )
for ratio, name in ((1.0, "bcc"), (2**0.5, "fcc")):
    axes.axvline(ratio, color="0.7", linewidth=0.8, zorder=0)
    axes.text(ratio, 1.01, name, transform=axes.get_xaxis_transform(), ha="center")
axes.set_xlabel("c/a")
axes.set_ylabel("energy (meV/atom)")
axes.legend(frameon=False, fontsize=8)
plt.show()
