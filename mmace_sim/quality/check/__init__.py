"""A physics check of a magnetic potential: every identity that it must obey, and by how much it does not."""

from mmace_sim.quality.check.checks import CHECKS, CheckReport, CheckStatus, check_model

__all__ = ["CHECKS", "CheckReport", "CheckStatus", "check_model"]
