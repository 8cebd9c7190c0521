"""Labels of candidates: energies and their derivatives by DFT or a model, each checked before it is kept."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "Failure": ".outcome",
    "LabelOutcome": ".outcome",
    "LabelSettings": ".settings",
    "label": ".run",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)
