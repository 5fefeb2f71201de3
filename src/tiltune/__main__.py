"""`python -m tiltune` is the command `tiltune`."""

from tiltune.cli import main

main()
