"""Run folder -> one self-contained HTML page; reads records only, and never imports torch."""

from tiltune.report.page import write_report

__all__ = ["write_report"]
