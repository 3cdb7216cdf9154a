"""Dagster's own storage, in the platform's Postgres.

`dagster.yaml` names this class, so that every Dagster command finds the same database as the rest
of the platform (and starts the embedded server where there is none) without a variable to set.
"""

import math
import time
from typing import Any

from dagster._serdes import ConfigurableClassData
from dagster_postgres.storage import DagsterPostgresStorage
from sqlalchemy import create_engine, event
from sqlalchemy.exc import DisconnectionError

from aios_platform.database import database

# Databases whose tables this process has seen: a code server opens the storage for every tick.
_MADE: set[str] = set()
IDLE_SECONDS = 1.0


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _try_if_idle(connection: Any, record: Any, _proxy: Any) -> None:
    """Ask a connection for a sign of life: the pool opens another in its place if there is none.

    `pool_pre_ping` would do so each time, which doubles the questions of a run's many events.
    """
    if time.monotonic() - record.info.get("used", math.inf) < IDLE_SECONDS:
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except connection.Error as error:
        raise DisconnectionError(str(error)) from error


class PlatformDagsterStorage(DagsterPostgresStorage):  # type: ignore[misc]
    """dagster-postgres on the database `dagster` of the platform's server.

    Its own engines open a connection for every event and every question; each costs several
    milliseconds on both sides (a server process, a SCRAM handshake). Here all of a process share a
    pool, whose connections are tried when they were idle, as Postgres may have been restarted.
    """

    def __init__(self, postgres_url: str, **options: Any) -> None:
        super().__init__(postgres_url, **options)
        pool = create_engine(
            postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=2,
            max_overflow=-1,
            pool_use_lifo=True,
        )
        event.listen(pool, "checkout", _try_if_idle)
        event.listen(pool, "checkin", _note_use)
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = pool

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
