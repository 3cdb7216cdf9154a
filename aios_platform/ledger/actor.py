"""Who acts, as written to the ledger."""

import getpass

from aios_platform.settings import settings


def current_actor() -> str:
    """The configured actor (`AIOS_ACTOR`), else the user of the operating system."""
    if settings().actor:
        return settings().actor
    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError):
        return "user:unknown"
