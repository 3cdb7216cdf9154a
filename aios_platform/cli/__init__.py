"""The command `aios`: thin; each command calls one function of a stage or of the runner."""

from aios_platform.cli.main import main

__all__ = ["main"]
