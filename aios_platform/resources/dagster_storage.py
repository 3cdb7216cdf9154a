"""Dagster's own storage, in the platform's Postgres.

`dagster.yaml` names this class, so that every Dagster command finds the same database as the rest
of the platform (and starts the embedded server where there is none) without a variable to set.
"""

from typing import Any

from dagster._serdes import ConfigurableClassData
from dagster_postgres.storage import DagsterPostgresStorage

from aios_platform.database import database

# Databases whose tables this process has seen: a code server opens the storage for every tick.
_MADE: set[str] = set()


class PlatformDagsterStorage(DagsterPostgresStorage):  # type: ignore[misc]
    """dagster-postgres on the database `dagster` of the platform's server."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """No options: the platform's settings name the server."""
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Any,  # noqa: ARG003
    ) -> "PlatformDagsterStorage":
        """Open the storage; one process at a time makes its tables, and looks for them once."""
        opened = database()
        url = opened.url("dagster")
        if url in _MADE:
            return cls(postgres_url=url, should_autocreate_tables=False, inst_data=inst_data)
        with opened.lock("dagster tables"):
            storage = cls(postgres_url=url, inst_data=inst_data)
        _MADE.add(url)
        return storage
