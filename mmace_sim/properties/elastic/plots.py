"""Figures of elastic constants."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mmace_sim.plots import COLORS, add_legend, new_figure, save_figure
from mmace_sim.properties.elastic.constants import ElasticResult
from mmace_sim.properties.elastic.moduli import ElasticConstants

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


def young_figure(result: ElasticResult) -> "Figure":
    """Young's modulus against direction within the planes (001) and (110), in standard axes.

    Args:
        result: Elastic constants of one structure.

    Returns:
        The figure.
    """
    figure, axes = new_figure()
    angles = np.linspace(0, np.pi, 181)
    for (mode, constants), color in zip(_stable(result), COLORS, strict=False):
        for (plane, first, second), style in zip(_PLANES, ("-", "--"), strict=True):
            a, b = (np.array(vector) / np.linalg.norm(vector) for vector in (first, second))
            directions = np.cos(angles)[:, None] * a + np.sin(angles)[:, None] * b
            values = directional_young_gpa(constants, directions)
            axes.plot(np.degrees(angles), values, style, color=color, label=f"{plane}, {mode} moments")
    axes.set_xlabel("angle to [100] in (001), to [001] in (110) (degrees)")
    axes.set_ylabel("Young's modulus (GPa)")
    axes.set_xticks([0, 45, 90, 135, 180])
    axes.set_ylim(bottom=0)
    add_legend(axes)
    return figure


def save_young_figure(result: ElasticResult, stem: Path) -> list[Path]:
    """Write the figure of a structure.

    Args:
        result: Elastic constants of one structure.
        stem: Path without ending; ``_young`` is added.

    Returns:
        Files written; none for a crystal that is unstable or failed.
    """
    if not _stable(result):
        return []
    return save_figure(young_figure(result), stem.with_name(stem.name + "_young"))


def _stable(result: ElasticResult) -> list[tuple[str, ElasticConstants]]:
    return [(mode, constants) for mode, constants in result.constants.items() if constants.stable]
