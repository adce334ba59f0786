"""The report of all results: the paper's tables with ours beside them, plots, pictures, and a page to browse these."""

from selfcascade.report.write import write_report

__all__ = ["write_report"]
