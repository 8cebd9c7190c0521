"""Figures of elastic constants."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mmace_sim.plots import COLORS, add_legend, new_figure
from mmace_sim.properties.elastic.constants import ElasticResult
from mmace_sim.properties.elastic.moduli import ElasticConstants
from mmace_sim.properties.written import Figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLANES = (("(001)", (1, 0, 0), (0, 1, 0)), ("(110)", (0, 0, 1), (1, -1, 0)))


def directional_young_gpa(
    constants: ElasticConstants, directions: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, " n"]:
    """Young's modulus of the single crystal along directions, 1/E(n) = S_ijkl n_i n_j n_k n_l.

    Args:
        constants: Of a stable crystal.
        directions: Unit vectors in the axes of the IEEE standard.

    Returns:
        E in GPa.
    """
    compliance = np.asarray(constants.tensor_ieee.compliance_tensor)
    n = directions
    return 1.0 / np.einsum("ijkl,ni,nj,nk,nl->n", compliance, n, n, n, n)


def _young_figure(result: ElasticResult) -> "Figure | None":
    """Young's modulus against direction within the planes (001) and (110), in standard axes.

    None for a crystal that is unstable or failed.
    """
    stable = [(mode, constants) for mode, constants in result.constants.items() if constants.stable]
    if not stable:
        return None
    figure, axes = new_figure()
    angles = np.linspace(0, np.pi, 181)
    for (mode, constants), color in zip(stable, COLORS, strict=False):
        for (plane, first, second), style in zip(_PLANES, ("-", "--"), strict=True):
            a, b = (np.array(vector) / np.linalg.norm(vector) for vector in (first, second))
            directions = np.cos(angles)[:, None] * a + np.sin(angles)[:, None] * b
            values = directional_young_gpa(constants, directions)
            axes.plot(np.degrees(angles), values, style, color=color, label=f"{plane}, {mode} moments")
    axes.set(xlabel="angle to [100] in (001), to [001] in (110) (degrees)", ylabel="Young's modulus (GPa)")
    axes.set_xticks([0, 45, 90, 135, 180])
    axes.set_ylim(bottom=0)
    add_legend(axes)
    return figure


FIGURES: Figures = {"_young": _young_figure}
"""Of one structure."""
