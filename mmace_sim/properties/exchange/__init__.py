"""Exchange constants of collinear magnets by three routes: second derivatives, four states, spin spirals."""

from mmace_sim.properties.exchange.constants import CONVENTION, Exchange, ExchangeResult

__all__ = ["CONVENTION", "Exchange", "ExchangeResult"]
