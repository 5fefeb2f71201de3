"""The command line; `main` runs it."""

from tiltune.cli.app import main

__all__ = ["main"]
