"""Run folder -> one self-contained HTML page; reads records only, and never imports torch."""

from tiltune.report.comparison import write_comparison_report
from tiltune.report.page import write_report

__all__ = ["write_comparison_report", "write_report"]
