"""
Exchange constants, magnons and the mean-field Curie temperature
================================================================

How strongly do moments hold together, how far does that reach, and at which temperature do they let go? Three routes
to the same constants, and what follows from them. From the command line: ``mmace-sim exchange``.
"""

# %%
# Three routes
# ------------
# Energies are written as E = E₀ − Σ J' e·e, each pair once, with unit vectors: J' > 0 is ferromagnetic.
# Second derivatives, four states of tilted pairs, and spin spirals look at the same energy. With a small tilt they must
# agree for any model, which checks all of them; a tilt of 90° tells how far the model is from a Heisenberg model.

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.plots import COLORS, MARKERS
from mmace_sim.properties.exchange import CONVENTION, Exchange

model = mmace_sim.load_model("default")
iron = bulk("Fe", cubic=True, a=2.83)
set_magmoms(iron, [2.2, 2.2])

print(CONVENTION)
results = {angle: Exchange(model, cutoff=4.8, angle=angle).run([iron])[0] for angle in (10, 90)}
for angle, result in results.items():
    print(f"tilt {angle}°: J' in meV by {', '.join(result.tensors)}")
    for k in result.pairs.representatives():
        values = "  ".join(f"{1000 * result.isotropic(route)[k]:7.2f}" for route in result.tensors)
        print(f"  {result.pairs.distances[k]:.3f} Å {values}")

# %%
# The magnetic primitive cell of a cubic cell of iron has one atom. The supercell is as large as the cutoff demands.

result = results[10]
print(
    f"{len(result.lattice.atoms)} atom, supercell {result.supercell}, |m| = {result.lattice.lengths[0]:.3f} μB"
)
print(f"spin stiffness {1000 * result.stiffness:.0f} meV Å², mean-field T_C {result.temperature:.0f} K")
print(f"largest exchange beyond the cutoff {1000 * result.beyond_cutoff:.2f} meV")

# %%
# Exchange against distance
# -------------------------

figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
first = result.pairs.representatives()
distances = result.pairs.distances[first]
for route, color, marker in zip(result.tensors, COLORS, MARKERS, strict=False):
    axes.plot(
        distances, 1000 * result.isotropic(route)[first], marker, color=color, fillstyle="none", label=route
    )
large = 1000 * results[90].isotropic("four-state")[first]
axes.plot(distances, large, "x", color=COLORS[3], label="four-state, 90°")
axes.axhline(0, color="0.6", linewidth=0.8)
axes.set_xlabel("distance (Å)")
axes.set_ylabel("J' (meV)")
axes.legend(frameon=False, fontsize=8)
plt.show()

# %%
# Magnons
# -------

figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
breaks = np.flatnonzero(np.diff(result.magnons.lengths) < 1e-9) + 1  # at H|P the path jumps
for lengths, energies in zip(
    np.split(result.magnons.lengths, breaks), np.split(1000 * result.magnons.energies, breaks), strict=True
):
    axes.plot(lengths, energies, color=COLORS[0])
axes.set_xticks(*zip(*result.magnons.ticks, strict=True))
axes.set_xlim(0, result.magnons.lengths[-1])
axes.set_ylim(0, None)
axes.set_ylabel("magnon energy (meV)")
plt.show()

# %%
# For small waves the energy is D q²: the sum over neighbours.

sums = (result.isotropic() * result.pairs.distances**2).sum() / (3 * result.lattice.lengths[0])
print(f"D = (1/3m) Σ J' R² = {1000 * sums:.1f} meV Å²")
near, total = 1000 * result.isotropic()[:8].sum(), 1000 * result.isotropic().sum()
print(f"nearest neighbours contribute {near:.0f} of {total:.0f} meV to Σ J'")
print(f"error of the sum rule {1000 * result.sum_rule_error:.0e} meV")
