"""Run folders in, one self-contained HTML page (and its numbers as JSON) out."""

from similitude.report.page import write_report
from similitude.report.read import RunSummary, read_run

__all__ = ["RunSummary", "read_run", "write_report"]
