"""Energy against volume of many structures and magnetic states in one batch."""

from mmace_sim.workflows.eos.workflow import EosCurve, EosResult, EquationOfState

__all__ = ["EosCurve", "EosResult", "EquationOfState"]
