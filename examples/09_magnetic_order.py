"""
The lowest magnetic order
=========================

Which order of the moments is lowest? Collinear orders are enumerated by symmetry, spirals and random directions are
added, and all of them are relaxed in one batch. The same from the command line is ``mmace-sim order``.
"""

# %%
# Enumeration
# -----------
# Two orders count as one if a symmetry of the lattice, or time reversal, maps one onto the other. Face-centred cubic
# iron has 18 collinear orders in magnetic cells of up to four atoms. The simple ones come first: the ferromagnet,
# layers along [001] and along [111], double layers.

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.plots import COLORS, MARKERS
from mmace_sim.properties.order import OrderSearch
from mmace_sim.properties.order.enumeration import enumerate_collinear
from mmace_sim.testing import HeisenbergModel

fcc, bcc = bulk("Fe", "fcc", a=3.50), bulk("Fe", "bcc", a=2.83)
for atoms in (fcc, bcc):
    set_magmoms(atoms, [2.5])
found = enumerate_collinear(fcc, max_supercell=4)
print(f"{found.n_found} orders")
for order in found.orders[:5]:
    wave = "several" if order.propagation is None else " ".join(map(str, order.propagation))
    print(
        f"{order.name:6s} {order.n_cells} atoms, k = ({wave}), keeps {order.kept_symmetry:.0%} of the symmetry"
    )

# %%
# A known answer
# --------------
# Classical spins on the fcc lattice with an antiferromagnetic coupling J1 of near neighbours and J2 of the next ones
# have layers along [001] for ferromagnetic J2, the order of type III for 0 < J2/J1 < 1/2, and layers along [111]
# beyond.

spins = bulk("Fe", "fcc", a=2.5 * 2**0.5)
set_magmoms(spins, [2.0])
for j2 in (0.003, -0.003, -0.007):
    toy = HeisenbergModel(exchange_shells=[(2.5, -0.01), (2.5 * 2**0.5, j2)], morse=(0.0, 1.0, 2.5))
    (result,) = OrderSearch(toy, max_supercell=4, relax_cell=False, relax_positions=False).run([spins])
    print(
        f"J2/J1 = {-j2 / 0.01:+.1f}: {result.best.name}, k = {' '.join(map(str, result.best.start.propagation))}"
    )

# %%
# Iron
# ----
# Both lattices, cells and moments free. A start that becomes the state of another one is drawn hollow.

search = OrderSearch(mmace_sim.load_model("default"), max_supercell=2, random=2)
results = dict(zip(("bcc", "fcc"), search.run([bcc, fcc]), strict=True))
for lattice, result in results.items():
    for order in sorted(result.orders, key=lambda order: order.energy):
        print(
            f"{lattice} {order.name:9s} {1000 * order.energy_above_lowest:6.1f} meV/atom"
            f"  |m| {np.linalg.norm(order.magmoms, axis=1).mean():4.2f} μB  {order.outcome}"
        )

figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for lattice, color, marker in zip(results, COLORS, MARKERS, strict=False):
    orders = sorted(results[lattice].orders, key=lambda order: order.energy)
    names = [f"{lattice} {order.name}" for order in orders]
    energies = [1000 * order.energy_above_lowest for order in orders]
    axes.plot(names, energies, marker, color=color, fillstyle="none", label=lattice)
    own = [k for k, order in enumerate(orders) if order.state == order.name]
    axes.plot([names[k] for k in own], [energies[k] for k in own], marker, color=color)
axes.set_ylabel("energy (meV/atom)")
axes.tick_params(axis="x", rotation=90, labelsize=8)
axes.legend(frameon=False, fontsize=8)
plt.show()
