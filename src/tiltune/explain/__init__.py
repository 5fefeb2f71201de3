"""What a constraint is and does, measured on a model's samples: what `tiltune check` tells."""

from tiltune.explain.agreement import Agreement, agreement, relation
from tiltune.explain.findings import Count, Findings, find
from tiltune.explain.judged import constraint_record
from tiltune.explain.lines import agreement_lines, findings_lines, warnings

__all__ = [
    "Agreement",
    "Count",
    "Findings",
    "agreement",
    "agreement_lines",
    "constraint_record",
    "find",
    "findings_lines",
    "relation",
    "warnings",
]
