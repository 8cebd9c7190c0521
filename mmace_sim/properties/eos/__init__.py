"""Energy against volume of many structures and magnetic states in one batch."""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "EOS": ".declaration",
    "EosSettings": ".declaration",
    "EquationOfState": ".equation_of_state",
    "EosCurve": ".equation_of_state",
    "EosResult": ".equation_of_state",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)
