"""What a test process holds of a home, given up before it goes to another."""

import os

LOCATIONS = ("AIOS_DATABASE_URL", "AIOS_ARTIFACTS", "DAGSTER_HOME")
"""Variables that say where to work, beside AIOS_HOME."""


def forget() -> None:
    """Close what this process holds of its home."""
    from aios_platform import database, settings
    from aios_platform.resources import stores

    if database.database.cache_info().currsize:
        database.database().close()
    for cached in (settings.settings, database.database, stores._feature_store):
        cached.cache_clear()
    # A command that was called in this process exports where it works.
    for name in LOCATIONS:
        os.environ.pop(name, None)
