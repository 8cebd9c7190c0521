"""
Check the physics of a model
============================

Small validation errors say nothing about symmetry. ``check_model`` measures what every magnetic potential
must obey, for our models and for any ASE calculator. The same from the command line is ``mmace-sim check``.
"""

# %%
# Our model
# ---------
# Each check has a status, the violation relative to the energy of interaction and in meV/atom, and the
# structure where it was largest.

import matplotlib.pyplot as plt
import numpy as np

import mmace_sim
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.plots import COLORS
from mmace_sim.quality.check import CheckReport, CheckStatus, check_model

model = mmace_sim.load_model("default")
good = check_model(model)
print(f"{good.model}: {good.count('passed')} of {len(good.results)} passed in {good.seconds:.0f} s")

# %%
# A potential with a mistake
# --------------------------
# Say that a potential was trained on ferromagnets along z only, and learned a small preference for that
# direction: 1 meV per μB, less than the error of any fit. Its forces and magnetic forces are consistent.
# Anything that has ASE's interface can be checked; what a calculator cannot know by itself is an argument.


class PrefersZ(mmace_sim.MMACECalculator):
    """The default model with 1 meV/μB too much for moments along +z."""

    def calculate(self, *args: object, **kwargs: object) -> None:
        super().calculate(*args, **kwargs)
        self.results["energy"] -= 1e-3 * get_magmoms(self.atoms)[:, 2].sum()
        self.results["magforces"] = self.results["magforces"] + np.array([0.0, 0.0, 1e-3])


bad = check_model(PrefersZ(model), elements=[26], r_max=5.0, max_moment=3.0, spin_orbit=False)
for result in bad.results:
    if result.status == CheckStatus.FAILED:
        print(f"{result.name:25s} {result.statement:30s} violated by {result.energy:.2g} meV/atom")
    elif result.status == CheckStatus.SKIPPED:
        print(f"{result.name:25s} skipped: {result.reason}")

# %%
# Both at a glance
# ----------------
# Violation divided by its tolerance: right of the line is a failure. A violation of exactly zero is drawn
# at the left edge.


def relative_to_tolerance(report: CheckReport) -> np.ndarray:
    """Violation of each identity in units of its tolerance, NaN where it was skipped."""
    values = [np.nan if r.relative is None else r.relative / r.tolerance for r in report.results]
    return np.maximum(np.array(values, dtype=float), 1e-9)


names = [result.name.replace("_", " ") for result in good.results]
rows = np.arange(len(names))
figure, axes = plt.subplots(figsize=(5.5, 4.0), layout="constrained")
axes.axvline(1.0, color="0.6", linewidth=0.8)
axes.plot(relative_to_tolerance(good), rows, "o", color=COLORS[0], markersize=4, label="default model")
axes.plot(
    relative_to_tolerance(bad), rows, "D", color=COLORS[1], markersize=4, fillstyle="none", label="prefers z"
)
axes.set_xscale("log")
axes.set_yticks(rows, names)
axes.invert_yaxis()
axes.set_xlabel("relative violation / tolerance")
axes.legend(frameon=False, loc="lower right")
plt.show()
