"""A Feast online store on Postgres in which the newest event wins and the TTL holds.

Feast's own Postgres store lets a late write of an older event replace a newer value, and serves
values of any age. This one, on the same table layout::

    online_store:
      type: aios_platform.features.online_store.NewestWinsOnlineStore
      url: postgresql://user:password@host:5432/database

writes a value only if its `(event, created)` time is not older than the stored one's, so that
writes may be repeated and come in any order; and reads a value older than its view's TTL as null
with the status OUTSIDE_MAX_AGE. "Now" is `reading_time`.
"""

import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
from feast.feature_view import FeatureView  # noqa: TID253
from feast.infra.online_stores.helpers import compute_table_id  # noqa: TID253
from feast.infra.online_stores.postgres_online_store.postgres import (  # noqa: TID253
    PostgreSQLOnlineStore,
    PostgreSQLOnlineStoreConfig,
)
from feast.infra.utils.postgres.connection_utils import (  # noqa: TID253
    _get_conn_kwargs,
    _get_conninfo,
)
from feast.protos.feast.serving.ServingService_pb2 import (  # noqa: TID253
    GetOnlineFeaturesResponse,
)
from feast.repo_config import RepoConfig  # noqa: TID253
from psycopg import AsyncConnection, Connection, OperationalError, sql
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout
from pydantic import model_validator

from aios_platform.errors import DatabaseUnavailable, SettingsError
from aios_platform.features.online_ages import AgesEnforced, expire, without_gaps
from aios_platform.features.online_rows import COLUMNS, Row, lines_of_rows, lines_of_table

WAIT_SECONDS = 30.0
LINES_AT_ONCE = 50_000
MARKERS = (
    "CREATE TABLE IF NOT EXISTS aios_materialized (project TEXT, view TEXT, window_key TEXT, "
    "digest TEXT NOT NULL, PRIMARY KEY (project, view, window_key))"
)


class NewestWinsOnlineStoreConfig(PostgreSQLOnlineStoreConfig):  # type: ignore[misc]
    """Settings of the store in `feature_store.yaml`."""

    type: Literal[  # type: ignore[assignment]
        "aios_platform.features.online_store.NewestWinsOnlineStore", "NewestWinsOnlineStore"
    ] = "aios_platform.features.online_store.NewestWinsOnlineStore"

    url: str | None = None
    """URL of the database; fills host, port, database, user, password and sslmode."""

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not values.get("url"):
            return values
        return {**_parts(values["url"]), **values}


class NewestWinsOnlineStore(AgesEnforced, PostgreSQLOnlineStore):  # type: ignore[misc]
    """Feast's Postgres online store with ordered writes and ages enforced."""

    _conn_pool: ConnectionPool[Any] | None = None
    _conn_pool_async: AsyncConnectionPool[Any] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.written: Counter[str] = Counter()
        self._opening = threading.Lock()

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write values, all of them or none; older ones than the stored are passed over.

        Raises:
            DatabaseUnavailable: Postgres does not answer; the same call may be made again.
        """
        self._write(
            config, table, lines_of_rows(data, config.entity_key_serialization_version), len(data)
        )
        if progress:
            progress(len(data))

    def write_table(self, config: RepoConfig, table: FeatureView, rows: pa.Table) -> None:
        """Write the newest values of a view's entities, as `online_write_batch` does, in less time.

        Args:
            config: Of the repository.
            table: A view of a source whose columns have the names of its features and join keys.
            rows: One row per entity, with the columns of that source.

        Raises:
            DatabaseUnavailable: Postgres does not answer; the same call may be made again.
        """
        source = table.batch_source
        lines = lines_of_table(
            rows,
            {entity.name: entity.dtype.to_value_type() for entity in table.entity_columns},
            {feature.name: feature.dtype.to_value_type() for feature in table.features},
            source.timestamp_field,
            source.created_timestamp_column or None,
            config.entity_key_serialization_version,
        )
        self._write(config, table, lines, rows.num_rows)

    def _write(
        self, config: RepoConfig, table: FeatureView, lines: Iterator[str], rows: int
    ) -> None:
        name = compute_table_id(
            config.project, table, config.registry.enable_online_feature_view_versioning
        )
        columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
        with self._get_conn(config) as connection, connection.cursor() as cursor:
            cursor.execute(
                "CREATE TEMP TABLE arriving (entity_key BYTEA, feature_name TEXT, value BYTEA, "
                "value_text TEXT, event_ts TIMESTAMPTZ, created_ts TIMESTAMPTZ, place BIGINT) "
                "ON COMMIT DROP"
            )
            with cursor.copy("COPY arriving FROM STDIN") as copy:
                while part := "".join(islice(lines, LINES_AT_ONCE)):
                    copy.write(part)
            # Rows in key order, so that two writers at once wait for each other, not for ever.
            cursor.execute(
                sql.SQL(
                    "INSERT INTO {table} AS stored ({columns}) "
                    "SELECT DISTINCT ON (entity_key, feature_name) {columns} FROM arriving "
                    "ORDER BY entity_key, feature_name, event_ts DESC, "
                    "coalesce(created_ts, '-infinity') DESC, place DESC "
                    "ON CONFLICT (entity_key, feature_name) DO UPDATE SET "
                    "value = excluded.value, value_text = excluded.value_text, "
                    "event_ts = excluded.event_ts, created_ts = excluded.created_ts "
                    "WHERE (stored.event_ts, coalesce(stored.created_ts, '-infinity')) "
                    "<= (excluded.event_ts, coalesce(excluded.created_ts, '-infinity')) "
                    "AND stored IS DISTINCT FROM excluded"
                ).format(table=sql.Identifier(name), columns=columns)
            )
        self.written[table.name] += rows

    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: list[Any],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        *rest: Any,
        **named: Any,
    ) -> None:
        done = len(online_features_response.results)
        await super()._read_features_per_fv_async(
            config,
            grouped_refs,
            without_gaps(join_key_values),
            entity_name_to_join_key_map,
            online_features_response,
            *rest,
            **named,
        )
        expire(online_features_response, done, grouped_refs)

    @contextmanager
    def _get_conn(
        self, config: RepoConfig, autocommit: bool = False
    ) -> Generator[Connection[Any], Any, Any]:
        # Feast's own never returns a connection on an error and never replaces a broken one.
        with self._opening:
            if self._conn_pool is None:
                self._conn_pool = ConnectionPool(
                    conninfo=_get_conninfo(config.online_store),
                    kwargs=_get_conn_kwargs(config.online_store),
                    min_size=0,
                    max_size=config.online_store.max_conn,
                    timeout=WAIT_SECONDS,
                    check=ConnectionPool.check_connection,
                    open=True,
                )
        try:
            with self._conn_pool.connection() as connection:
                connection.set_autocommit(autocommit)
                try:
                    yield connection
                    if not autocommit:
                        connection.commit()
                except BaseException:
                    if not autocommit:
                        connection.rollback()
                    raise
        except (PoolTimeout, OperationalError) as error:
            raise _unavailable(config, error) from error

    @asynccontextmanager
    async def _get_conn_async(
        self, config: RepoConfig, autocommit: bool = False
    ) -> AsyncGenerator[AsyncConnection[Any], Any]:
        if self._conn_pool_async is None:
            self._conn_pool_async = AsyncConnectionPool(
                conninfo=_get_conninfo(config.online_store),
                kwargs=_get_conn_kwargs(config.online_store),
                min_size=0,
                max_size=config.online_store.max_conn,
                timeout=WAIT_SECONDS,
                check=AsyncConnectionPool.check_connection,
                open=False,
            )
            await self._conn_pool_async.open()
        try:
            async with self._conn_pool_async.connection() as connection:
                await connection.set_autocommit(autocommit)
                yield connection
        except (PoolTimeout, OperationalError) as error:
            raise _unavailable(config, error) from error

    def materialized(self, config: RepoConfig, view: str) -> dict[str, str]:
        """Windows whose rows are in the store: window key → digest of the rows."""
        with self._get_conn(config) as connection, connection.cursor() as cursor:
            cursor.execute(MARKERS)
            cursor.execute(
                "SELECT window_key, digest FROM aios_materialized WHERE project = %s AND view = %s",
                (config.project, view),
            )
            return dict(cursor.fetchall())

    def mark_materialized(self, config: RepoConfig, view: str, windows: dict[str, str]) -> None:
        """Note that these windows' rows are in the store now."""
        with self._get_conn(config) as connection, connection.cursor() as cursor:
            cursor.execute(MARKERS)
            cursor.executemany(
                "INSERT INTO aios_materialized VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (project, view, window_key) DO UPDATE SET digest = excluded.digest",
                [(config.project, view, key, digest) for key, digest in sorted(windows.items())],
            )

    def retract(
        self, config: RepoConfig, table: FeatureView, start: datetime, end: datetime
    ) -> None:
        """Take out values whose event lies in `[start, end)`."""
        name = compute_table_id(
            config.project, table, config.registry.enable_online_feature_view_versioning
        )
        with self._get_conn(config) as connection, connection.cursor() as cursor:
            cursor.execute(
                sql.SQL("DELETE FROM {} WHERE event_ts >= %s AND event_ts < %s").format(
                    sql.Identifier(name)
                ),
                (start, end),
            )

    def teardown(
        self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Any]
    ) -> None:
        """Drop the views' tables, and forget what was materialized into them."""
        super().teardown(config, tables, entities)
        self._forget(config, [table.name for table in tables])

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """Create and drop tables as the views come and go."""
        super().update(
            config, tables_to_delete, tables_to_keep, entities_to_delete, entities_to_keep, partial
        )
        self._forget(config, [table.name for table in tables_to_delete])

    def _forget(self, config: RepoConfig, views: list[str]) -> None:
        with self._get_conn(config) as connection, connection.cursor() as cursor:
            cursor.execute(MARKERS)
            cursor.execute(
                "DELETE FROM aios_materialized WHERE project = %s AND view = ANY(%s)",
                (config.project, views),
            )

    def disconnect(self) -> None:
        """Give up the pooled connections; the next call opens new ones."""
        if self._conn_pool is not None:
            self._conn_pool.close()
            self._conn_pool = None


def _parts(url: str) -> dict[str, Any]:
    """Connection settings from a URL; a socket folder may be given as `?host=/path`."""
    found = urlsplit(url)
    if not found.scheme.startswith("postgres"):
        raise SettingsError(
            "The URL of Feast's online store is not a Postgres URL.",
            remedy="Run feast through `aios feast`, or set AIOS_FEAST_URL to "
            "postgresql+psycopg2://user:password@host:5432/feast.",
        )
    query = {key: values[-1] for key, values in parse_qs(found.query).items()}
    host = query.get("host") or unquote(found.hostname or "localhost")
    return {
        "host": host,
        "port": found.port or int(query.get("port", 5432)),
        "database": unquote(found.path.lstrip("/")) or "feast",
        "user": unquote(found.username or "postgres"),
        "password": unquote(found.password or ""),
        "sslmode": query.get("sslmode", "disable" if host.startswith("/") else "prefer"),
    }


def _unavailable(config: RepoConfig, error: Exception) -> DatabaseUnavailable:
    store = config.online_store
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DatabaseUnavailable(
        f"The online store on {store.host}:{store.port} does not answer: {reason}",
        remedy="Start the server, then run the same command again.",
    )
