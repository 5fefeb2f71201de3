"""Fine-tune a language model on your corpus while an attribute of its output holds."""

__version__ = "0.1.0"
