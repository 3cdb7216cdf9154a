"""Feature tables: what a model's feature SQL makes of its raw tables, window by window.

Each `<name>.sql` beside a model's declaration is one DuckDB query over views named like the raw
tables. A view holds the window and the lookback windows before it; a table without event time
(a snapshot) only the window's own delivery. The query's columns are, in this order: the join
keys, `event_timestamp`, `created_timestamp` (when the row became known), the features. Rows
whose event lies in the window are kept, so each row is written by exactly one window, and what
becomes known in a window about rows of the one before is found through the lookback.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from aios_platform.artifacts import ROW_GROUP_ROWS, ArtifactStore
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.windows import Window
from aios_platform.errors import ArtifactMissing, FeatureError

EVENT = "event_timestamp"
CREATED = "created_timestamp"
INSTANT = pa.timestamp("us", tz="UTC")
MEMORY_LIMIT = "2GB"
THREADS = 4


@dataclass(frozen=True)
class FeatureQuery:
    """One feature table's SQL.

    Args:
        name: The table's name, that of its file.
        path: The file, for messages.
        sql: Its text.
    """

    name: str
    path: str
    sql: str

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def feature_queries(sql_folder: Path) -> list[FeatureQuery]:
    """The feature tables that a model's folder of SQL files declares, by name."""
    return [
        FeatureQuery(path.stem, str(path), path.read_text().strip().rstrip(";"))
        for path in sorted(sql_folder.glob("*.sql"))
    ]


def raw_versions(
    declaration: ModelDeclaration, window: Window, store: ArtifactStore
) -> dict[str, list[DatasetVersion]]:
    """Raw versions that the window's feature SQL reads, oldest first, per table.

    A lookback window that was never delivered is left out; once it is there, the feature tables
    count as stale.

    Raises:
        ArtifactMissing: The window itself was not ingested.
    """
    found: dict[str, list[DatasetVersion]] = {}
    for name, table in declaration.source.tables.items():
        dataset = f"{declaration.name}/raw/{name}"
        versions = [store.require(dataset, window.key)]
        if table.timestamp is not None:
            for back in range(1, declaration.features.lookback_windows + 1):
                key = declaration.windows.shift(window.key, -back)
                earlier = store.current(dataset, key) if key else None
                versions += [earlier] if earlier else []
        found[name] = versions[::-1]
    return found


def build_feature_tables(
    declaration: ModelDeclaration, sql_folder: Path, window: Window, store: ArtifactStore
) -> list[DatasetVersion]:
    """Make the window's feature tables; those whose inputs are unchanged are left as they are.

    Args:
        declaration: The model.
        sql_folder: Folder of its `<feature table>.sql`.
        window: The window to make.
        store: Where raw tables are read and `<model>/features/<table>` is written.

    Returns:
        One version per feature table, in order of name.

    Raises:
        ArtifactMissing: The window was not ingested.
        FeatureError: A query fails, or its result is not a feature table.
    """
    queries = feature_queries(sql_folder)
    raw = raw_versions(declaration, window, store)
    inputs = {
        query.name: {
            "sql": query.digest,
            **{f"{v.dataset}/{v.key}": v.digest for vs in raw.values() for v in vs},
        }
        for query in queries
    }
    made: dict[str, DatasetVersion] = {}
    for query in queries:
        dataset = f"{declaration.name}/features/{query.name}"
        fresh = store.fresh(dataset, window.key, inputs[query.name])
        if fresh:
            made[query.name] = fresh
    stale = [query for query in queries if query.name not in made]
    if stale:
        with closing(FeatureEngine({name: store.scan(vs) for name, vs in raw.items()})) as engine:
            for query in stale:
                made[query.name] = store.write(
                    f"{declaration.name}/features/{query.name}",
                    window.key,
                    engine.batches(query, window),
                    schema=engine.schema(query),
                    inputs=inputs[query.name],
                )
    return [made[query.name] for query in queries]


class FeatureEngine:
    """Runs feature SQL over raw tables in a DuckDB of its own, bounded in memory and threads.

    Args:
        tables: Arrow tables or datasets by name.
    """

    def __init__(self, tables: Mapping[str, Any]) -> None:
        import duckdb

        self._connection = duckdb.connect(
            config={
                "memory_limit": MEMORY_LIMIT,
                "threads": THREADS,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        for name, table in tables.items():
            self._connection.register("arriving", table)
            self._connection.execute(f'CREATE TABLE "{name}" AS SELECT * FROM arriving')  # noqa: S608
            self._connection.unregister("arriving")
        # Feature SQL reads the raw tables and nothing else: no files, no network.
        self._connection.execute("SET enable_external_access = false")
        self._schemas: dict[str, pa.Schema] = {}

    def close(self) -> None:
        """Give the memory back."""
        self._connection.close()

    def schema(self, query: FeatureQuery) -> pa.Schema:
        """Schema of the feature table.

        Raises:
            FeatureError: The query does not run, or its columns are not those of one.
        """
        if query.name not in self._schemas:
            empty = self._select(query, f"SELECT * FROM ({query.sql}\n) LIMIT 0")  # noqa: S608
            self._schemas[query.name] = _checked_schema(query, empty.to_arrow_table().schema)
        return self._schemas[query.name]

    def table(self, query: FeatureQuery, window: Window) -> pa.Table:
        """The window's rows as one table; see `batches`."""
        return pa.Table.from_batches(self.batches(query, window), schema=self.schema(query))

    def batches(self, query: FeatureQuery, window: Window) -> Iterator[pa.RecordBatch]:
        """The window's rows, sorted by time and key, checked.

        Rows with a null in a key belong to nobody and are left out.

        Raises:
            FeatureError: A time is missing, a row is created before its event, or two rows have
                the same key and times.
        """
        schema = self.schema(query)
        keys = [f'"{n}"' for n in schema.names[: schema.names.index(EVENT)]]
        present = " AND ".join([f"{key} IS NOT NULL" for key in keys] or ["true"])
        self._run(
            query,
            f"CREATE OR REPLACE TEMP TABLE made AS SELECT * FROM ({query.sql}\n) "  # noqa: S608
            f"WHERE {present} AND ({EVENT} IS NULL OR {EVENT} >= $start AND {EVENT} < $end)",
            {"start": window.start, "end": window.end},
        ).fetchall()
        identity = ", ".join([*keys, EVENT, CREATED])
        [[rows, eventless, createdless, early]] = self._run(
            query,
            f"SELECT count(*), count(*) FILTER (WHERE {EVENT} IS NULL), "  # noqa: S608
            f"count(*) FILTER (WHERE {CREATED} IS NULL), "
            f"count(*) FILTER (WHERE {CREATED} < {EVENT}) FROM made",
        ).fetchall()
        repeated = self._run(
            query,
            f"SELECT {identity}, count(*) FROM made GROUP BY {identity} "  # noqa: S608
            "HAVING count(*) > 1 LIMIT 1",
        ).fetchall()
        for count, fault in [
            (eventless, f"no {EVENT}"),
            (createdless, f"no {CREATED}"),
            (early, f"a {CREATED} before the {EVENT}"),
        ]:
            if count:
                raise FeatureError(
                    f"{query.path}, window {window}: {count} of {rows} rows have {fault}.",
                    remedy="Give each row the time of its event, and when it became known.",
                )
        if repeated:
            raise FeatureError(
                f"{query.path}, window {window}: several rows for {repeated[0][:-1]} "
                f"({', '.join(schema.names[: len(keys)])}, {EVENT}, {CREATED}).",
                remedy="Aggregate to one row per key and time; which one to use is undefined.",
            )
        order = ", ".join([EVENT, *keys, CREATED])
        columns = ", ".join(f'"{name}"' for name in schema.names)
        made = self._select(query, f"SELECT {columns} FROM made ORDER BY {order}")  # noqa: S608
        for batch in made.to_arrow_reader(ROW_GROUP_ROWS):
            yield batch.cast(schema)

    def _run(
        self, query: FeatureQuery, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> Any:
        with _explained(query):
            return self._connection.execute(sql, dict(parameters or {}))

    def _select(self, query: FeatureQuery, sql: str) -> Any:
        # A relation hands its result to Arrow without the copy that a DB-API result makes.
        with _explained(query):
            return self._connection.sql(sql)


@contextmanager
def _explained(query: FeatureQuery) -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise FeatureError(
            f"{query.path} does not run: {error}",
            remedy="Correct the SQL; it sees the declared tables of the source, by name.",
        ) from error


def _checked_schema(query: FeatureQuery, schema: pa.Schema) -> pa.Schema:
    names = schema.names
    for name in (EVENT, CREATED):
        if name not in names:
            raise FeatureError(
                f"{query.path} gives no column {name}; it gives {', '.join(names)}.",
                remedy="Select the join keys, event_timestamp, created_timestamp, the features.",
            )
        kind = schema.field(name).type
        if not (pa.types.is_timestamp(kind) and kind.tz):
            raise FeatureError(
                f"{query.path}: {name} is of type {kind}; a time with a time zone is needed.",
                remedy="Use TIMESTAMPTZ, in UTC.",
            )
    place = names.index(EVENT)
    if names.index(CREATED) != place + 1:
        raise FeatureError(
            f"{query.path}: {CREATED} does not follow {EVENT}.",
            remedy="Select the join keys, event_timestamp, created_timestamp, the features.",
        )
    fields = []
    for field in schema:
        kind = INSTANT if field.name in (EVENT, CREATED) else field.type
        if pa.types.is_decimal(kind) or pa.types.is_nested(kind):
            raise FeatureError(
                f"{query.path}: the column {field.name} is of type {kind}, which no model takes.",
                remedy="Cast it in the SQL, e.g. with ::FLOAT, ::BIGINT or ::VARCHAR.",
            )
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def require_feature_tables(
    declaration: ModelDeclaration, sql_folder: Path, keys: list[str], store: ArtifactStore
) -> list[DatasetVersion]:
    """The current versions of all feature tables of these windows.

    Raises:
        ArtifactMissing: A window's feature table was not made.
    """
    found = []
    for query in feature_queries(sql_folder):
        for key in keys:
            version = store.current(f"{declaration.name}/features/{query.name}", key)
            if version is None:
                raise ArtifactMissing(
                    f"The feature table '{query.name}' of '{declaration.name}' lacks {key}.",
                    remedy="Materialize the model's features for that window first.",
                )
            found.append(version)
    return found
