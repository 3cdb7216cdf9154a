"""`python -m aios_platform` is the command `aios`."""

from aios_platform.cli import main

main()
