"""
Ordering temperatures by Monte Carlo
====================================

At which temperature does a magnet lose its order? A Heisenberg model with an exact answer first, then iron with
the default model. From the command line: ``mmace-sim curie``.
"""

# %%
# The simple cubic lattice
# ------------------------
# With exchange J' between nearest neighbours, E = −Σ J' e·e, each pair once, the simple cubic lattice orders below
# k T = 1.443 J'. Every temperature and both sizes are one batch: a heat bath without rejection, and turns about the
# local fields that cost no energy.

import matplotlib.pyplot as plt
from ase.build import bulk

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.plots import COLORS, MARKERS
from mmace_sim.properties.curie.temperatures import Curie
from mmace_sim.sampling.hamiltonian import SpinHamiltonian
from mmace_sim.units import BOLTZMANN_EV_PER_K

model = mmace_sim.load_model("default")
exchange = 0.02
unit = exchange / BOLTZMANN_EV_PER_K
lattice = bulk("Fe", "sc", a=2.5)
set_magmoms(lattice, [2.0])
spins = SpinHamiltonian.from_shells(lattice, [(2.5, exchange)])

temperatures = [x * unit for x in (0.3, 0.7, 1.0, 1.2, 1.3, 1.35, 1.4, 1.45, 1.5, 1.55, 1.6, 1.8)]
settings = {"temperatures": temperatures, "sizes": (4, 8), "sweeps": 300}
(result,) = Curie(model, **settings).run([lattice], spin_models=[spins])
crossing = result.temperature.crossings[0]
print(f"mean field        k T = {result.mean_field / unit:.3f} J'")
print(
    f"cumulants cross   k T = {crossing.mean / unit:.3f} ± {crossing.error / unit:.3f} J'  (literature: 1.443)"
)
print(result.status, result.message)

# %%
# The Binder cumulants U = 1 − ⟨o⁴⟩/(3⟨o²⟩²) of two sizes cross at the transition: from 2/3 in the ordered to 4/9 in
# the disordered phase. The larger the system, the steeper.

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
for row, color, marker in zip(result.points, COLORS, MARKERS, strict=False):
    t = [point.temperature / unit for point in row]
    for axes, key in ((left, "order"), (right, "binder")):
        mean, error = ([getattr(point.values[key], what) for point in row] for what in ("mean", "error"))
        axes.errorbar(
            t,
            mean,
            error,
            color=color,
            marker=marker,
            markersize=3,
            linewidth=0.8,
            label=f"{row[0].n_spins} spins",
        )
for axes, label in ((left, "order |Σ e|/n"), (right, "Binder cumulant")):
    axes.axvline(1.443, color="0.6", linestyle="--", linewidth=0.8)
    axes.set_xlabel("k T / J'")
    axes.set_ylabel(label)
left.legend(frameon=False, fontsize=8)
plt.show()

# %%
# Iron
# ----
# The exchange constants of the default model near its ferromagnetic state, up to 3 Å, and what they order at.

iron = bulk("Fe", cubic=True, a=2.83)
set_magmoms(iron, [2.2, 2.2])
settings = {"cutoff": 3.0, "sizes": (3, 5), "sweeps": 200}
(heisenberg,) = Curie(model, **settings).run([iron])
print(f"mean field {heisenberg.mean_field:.0f} K, measured 1043 K")
for name, values in (("crossing", heisenberg.temperature.crossings), ("peak", heisenberg.temperature.peaks)):
    print(name, *[f"{v.mean:.0f} ± {v.error:.0f} K" if v else "none" for v in values], sep="  ")
print(heisenberg.status, heisenberg.message)

# %%
# The energy of the model itself knows more than pairs. Hybrid Monte Carlo moves all moments at once along its
# gradients and accepts or rejects the whole move, which is exact: here a few moves of sixteen atoms at two
# temperatures.

settings = {"method": "direct", "temperatures": (300, 1500), "sizes": (2,), "sweeps": 20, "n_steps": 5}
(direct,) = Curie(model, **settings).run([iron])
for point in direct.points[0]:
    order, accepted = point.values["order"], point.values["acceptance"].mean
    print(
        f"{point.temperature:.0f} K: order {order.mean:.2f} ± {order.error:.2f}, {accepted:.0%} of moves accepted"
    )
print(direct.message)
