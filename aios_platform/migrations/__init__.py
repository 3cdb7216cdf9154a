"""Alembic migrations of our own schema, applied by `aios_platform.database`."""
