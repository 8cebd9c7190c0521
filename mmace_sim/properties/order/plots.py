"""Figure of the energies of competing magnetic orders."""

from typing import TYPE_CHECKING

import numpy as np

from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure
from mmace_sim.properties.order.search import OrderResult
from mmace_sim.properties.written import Figures
from mmace_sim.structures.magnetic_order import MagneticOrder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SHOWN: int = 40
"""A figure shows at most so many starts, the lowest ones."""

_KINDS = (
    MagneticOrder.FM,
    MagneticOrder.AFM,
    MagneticOrder.FERRI,
    MagneticOrder.NON_COLLINEAR,
    MagneticOrder.NON_MAGNETIC,
)


def _order_figure(result: OrderResult) -> "Figure | None":
    """Energy above the lowest order for each start, from low to high; None if nothing converged.

    Colours and markers: the order at the end. Hollow: the start became an order that another start stands for, or did
    not converge.
    """
    if result.best is None:
        return None
    computed = [
        order for order in result.orders if order.order_final is not None and np.isfinite(order.energy)
    ]
    orders = sorted(
        computed, key=lambda order: (not order.state, round(order.energy, 4), order.state != order.name)
    )[:MAX_SHOWN]
    wide = len(orders) > 14
    figure, axes = new_figure("page" if wide else "column", aspect=0.5 if wide else 0.85)
    axes.axhline(0.0, color=REFERENCE, linewidth=0.8, zorder=0)
    for kind, color, marker in zip(_KINDS, COLORS, MARKERS, strict=True):
        chosen = [k for k, order in enumerate(orders) if order.order_final is kind]
        for own_state in (True, False):
            places = [k for k in chosen if (orders[k].state == orders[k].name) is own_state]
            heights = [1000 * orders[k].energy_above_best for k in places]
            label = str(kind) if own_state == any(orders[k].state == orders[k].name for k in chosen) else None
            axes.plot(
                places, heights, marker, color=color, markersize=5, linestyle="none",
                fillstyle="full" if own_state else "none", label=label if places else None,
            )  # fmt: skip
    axes.set_xticks(np.arange(len(orders)), [order.name for order in orders], rotation=90)
    axes.set(xlim=(-0.6, len(orders) - 0.4), xlabel="start", ylabel="energy above lowest (meV/atom)")
    add_legend(axes)
    return figure


FIGURES: Figures = {"": _order_figure}
"""Of one structure."""
