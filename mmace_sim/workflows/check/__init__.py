"""A physics check of a magnetic potential: every identity that it must obey, and by how much it does not."""

from mmace_sim.workflows.check.workflow import CHECKS, CheckReport, CheckStatus, check_model

__all__ = ["CHECKS", "CheckReport", "CheckStatus", "check_model"]
