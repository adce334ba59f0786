"""The report of all results: the paper's tables with ours next to them, plots, pictures, and a page to browse."""

from selfcascade.report.write import write_report

__all__ = ["write_report"]
