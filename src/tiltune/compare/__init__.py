"""`tiltune compare`: several methods under one budget, one table, one page."""

from tiltune.compare.comparison import Evaluator, compare
from tiltune.compare.evaluator import evaluate_entry

__all__ = ["Evaluator", "compare", "evaluate_entry"]
