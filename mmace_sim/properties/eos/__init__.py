"""Energy against volume of many structures and magnetic states in one batch."""

from mmace_sim.properties.eos.equation_of_state import EosCurve, EosResult, EquationOfState

__all__ = ["EosCurve", "EosResult", "EquationOfState"]
