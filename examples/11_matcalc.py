"""
matcalc with magnetic moments
=============================

`matcalc <https://github.com/materialsvirtuallab/matcalc>`_ computes properties with any ASE calculator, ours
included. It is not a dependency: ``pip install matcalc``. What becomes of the moments must be known: it **keeps** them
(found with matcalc 0.7, for ASE and pymatgen structures, collinear or not), and it does not relax them.
"""

# %%
# The calculator as it is: moments stay
# -------------------------------------
# A structure without moments is an error, never a non-magnetic calculation by accident.

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk
from ase.units import GPa

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.plots import COLORS
from mmace_sim.properties.elastic import ElasticTensorCalculation
from mmace_sim.properties.singlepoint import SinglePoint

try:
    import matcalc
except ImportError:
    matcalc = None
    print("matcalc is not installed: pip install matcalc. What follows without it are our own workflows.")

model = mmace_sim.load_model("default")
iron = bulk("Fe", "bcc", a=2.83, cubic=True)
set_magmoms(iron, [2.25, 2.25])
iron = mmace_sim.relax([iron], model=model, fmax=1e-3, stress_tol=0.01, magforce_tol=1e-4)[0].atoms
iron.calc = None
if matcalc:
    result = matcalc.RelaxCalc(mmace_sim.MMACECalculator(model), fmax=0.01).calc(iron)
    print("moments after matcalc's relaxation:", result["final_structure"].site_properties["magmom"])

# %%
# Moments that follow
# -------------------
# Relax them inside of the calculator, and every workflow of matcalc sees the adiabatic energy, with its forces and
# stress. The moments of the structure are where the relaxation starts.


class FollowingCalculator(mmace_sim.MMACECalculator):
    """Energy, forces and stress at the moments that are relaxed for each structure."""

    def __init__(self, model, **settings) -> None:
        super().__init__(model)
        self.points = SinglePoint(self.model, magmoms="relaxed", **settings)

    def calculate(self, atoms=None, properties=("energy",), system_changes=()) -> None:
        (point,) = self.points.run([atoms])
        if point.status != "converged":
            raise RuntimeError(f"moments of {atoms.get_chemical_formula()}: {point.message}")
        super().calculate(point.atoms, properties, system_changes)
        self.atoms = atoms.copy()  # what the results belong to, so that ASE does not compute them again


compressed = iron.copy()
compressed.set_cell(0.98 * iron.cell, scale_atoms=True)
compressed.calc = FollowingCalculator(model)
compressed.get_potential_energy()
before, after = get_magmoms(iron)[0, 2], compressed.calc.results["magmoms"][0, 2]
print(f"moment {before:.3f} μB, {after:.3f} μB after compression by 2 % of each length")

# %%
# The difference is physics
# -------------------------
# Elastic constants with both calculators, and with our own workflow, which computes all strained cells in one batch.

rows = {}
if matcalc:
    for name, calculator in (
        ("matcalc, fixed", mmace_sim.MMACECalculator(model)),
        ("matcalc, following", FollowingCalculator(model)),
    ):
        elasticity = matcalc.ElasticityCalc(
            calculator,
            norm_strains=(-0.005, 0.005),
            shear_strains=(-0.005, 0.005),
            relax_structure=False,
            fmax=0.001,
        )
        c = elasticity.calc(iron)["elastic_tensor"].voigt / GPa
        rows[name] = c[0, 0], c[0, 1], c[3, 3]
(own,) = ElasticTensorCalculation(model, magmoms="both", strains=[0.005]).run([iron])
for mode, name in (("fixed", "ours, fixed"), ("relaxed", "ours, following")):
    c = own.constants[mode].c_gpa
    rows[name] = c[0, 0], c[0, 1], c[3, 3]
for name, (c11, c12, c44) in rows.items():
    print(f"{name:20s}  C11 {c11:6.1f}  C12 {c12:6.1f}  C44 {c44:6.1f} GPa")

figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
for k, ((name, values), color) in enumerate(
    zip(rows.items(), (*COLORS[1:3], *COLORS[:1], *COLORS[3:]), strict=False)
):
    axes.bar(np.arange(3) + 0.2 * (k - 1.5), values, width=0.18, color=color, label=name)
axes.set_xticks(range(3), ["C11", "C12", "C44"])
axes.set_ylabel("elastic constant (GPa)")
axes.legend(frameon=False, fontsize=8)
plt.show()
