"""One page about a run: results, figures, structures with moments, settings, versions, messages."""

from mmace_sim.report.page import MAX_BYTES, write_report

__all__ = ["MAX_BYTES", "write_report"]
