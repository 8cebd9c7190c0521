"""
Elastic constants of magnetic crystals
======================================

Full elastic tensors of several crystals in one batch, with relaxed ions, once with moments that stay and once with
moments that follow the strain. The same from the command line is ``mmace-sim elastic``.
"""

# %%
# Four crystals
# -------------
# Each is relaxed, then strained by ±0.5 % and ±1 % along the few directions that its magnetic symmetry asks for. The
# antiferromagnet is tetragonal although its lattice starts as fcc.

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.plots import COLORS
from mmace_sim.properties.elastic import ElasticTensorCalculation
from mmace_sim.properties.elastic.plots import directional_young_gpa

model = mmace_sim.load_model("default")
ferromagnet = bulk("Fe", "bcc", a=2.83, cubic=True)
set_magmoms(ferromagnet, [2.2, 2.2])
antiferromagnet = bulk("Fe", "fcc", a=3.50, cubic=True)
set_magmoms(antiferromagnet, [1.5, 1.5, -1.5, -1.5])
hexagonal = bulk("Fe", "hcp", a=2.45, c=3.88)
set_magmoms(hexagonal, [0.0, 0.0])
vacancy = bulk("Fe", "bcc", a=2.83, cubic=True) * (2, 2, 2)
set_magmoms(vacancy, np.full(16, 2.2))
del vacancy[0]
crystals = {"bcc FM": ferromagnet, "fcc AFM": antiferromagnet, "hcp NM": hexagonal, "bcc vacancy": vacancy}

results = ElasticTensorCalculation(model, magmoms="both").run(list(crystals.values()))
for name, result in zip(crystals, results, strict=True):
    print(
        f"{name}: {result.status}, {result.n_independent} constants from strains {', '.join(result.strains)}"
    )
    for mode, constants in result.constants.items():
        c, moduli = constants.c_ieee_gpa, constants.moduli()
        print(
            f"  {mode:8s} C11 {c[0, 0]:4.0f}  C12 {c[0, 1]:4.0f}  C33 {c[2, 2]:4.0f}  C44 {c[3, 3]:4.0f}",
            end="",
        )
        print(f"  B {moduli['bulk']:4.0f}  G {moduli['shear']:4.0f} GPa  stable: {constants.stable}")

# %%
# What the moments do
# -------------------
# Moments that follow soften a crystal, never the reverse: they lower the energy of every strained cell. In bcc iron a
# change of volume changes the moment, a shear does not: C₁₁ and C₁₂ lose the same, C₄₄ and C₁₁ − C₁₂ lose nothing.

fixed, relaxed = (results[0].constants[mode].c_gpa for mode in ("fixed", "relaxed"))
print(np.round(fixed - relaxed, 1))

# %%
# pymatgen's ``ElasticTensor`` is in the result: everything that it can do follows.

tensor = results[0].constants["relaxed"].tensor
print(
    f"universal anisotropy {tensor.universal_anisotropy:.2f}, Poisson's ratio {tensor.homogeneous_poisson:.2f}"
)

# %%
# Moments in the strained cells, and Young's modulus against direction.

points = results[0].points["relaxed"][:4]  # ± each magnitude along xx
figure, axes = plt.subplots(1, 2, figsize=(7.5, 3), layout="constrained")
strain = [
    100 * (atoms.cell[0, 0] / results[0].reference.cell[0, 0] - 1) for atoms in (p.atoms for p in points)
]
order = np.argsort(strain)
moments = np.array([np.linalg.norm(get_magmoms(point.atoms)[0]) for point in points])
axes[0].plot(np.array(strain)[order], moments[order], "o-", color=COLORS[0], markersize=4)
axes[0].set_xlabel("strain along [100] (%)")
axes[0].set_ylabel("moment (μB)")
angles = np.linspace(0, np.pi, 181)
directions = np.cos(angles)[:, None] * [[0, 0, 1]] + np.sin(angles)[:, None] * [[2**-0.5, 2**-0.5, 0]]
for mode, style in (("fixed", "--"), ("relaxed", "-")):
    values = directional_young_gpa(results[0].constants[mode], directions)
    axes[1].plot(np.degrees(angles), values, style, color=COLORS[0], label=f"{mode} moments")
axes[1].set_xlabel("angle to [001] in (110) (degrees)")
axes[1].set_ylabel("Young's modulus (GPa)")
axes[1].set_ylim(bottom=0)
axes[1].legend(frameon=False)
plt.show()
