"""Feature tables: what a model's feature SQL makes of its raw tables, window by window.

Each `<name>.sql` beside a model's declaration is one DuckDB query over tables named like the raw
ones. A table holds the window and the lookback windows before it; one without event time (a
snapshot) only the window's own delivery. Times are TIMESTAMP in UTC. The query's columns are, in
this order: the join keys, `event_timestamp`, `created_timestamp` (when the row became known), the
features. Rows whose event lies in the window are kept, so each row is written by exactly one
window, and what becomes known in a window about rows of the one before is found through the
lookback. A query may leave out earlier what it knows to be of no use to the window: its bounds
are `window_start()` and `window_end()`.
"""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.artifacts import ROW_GROUP_ROWS, ArtifactStore
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.windows import Window
from aios_platform.errors import ArtifactMissing, FeatureError
from aios_platform.known import INSTANT

EVENT = "event_timestamp"
CREATED = "created_timestamp"
MEMORY_LIMIT = "2GB"
THREADS = 4
ROWS_PER_THREAD = 250_000
# Of a small window a query keeps one thread busy; of a large one it has several, and the memory.
SMALL_QUERIES_AT_ONCE = 2


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
        tables = {name: store.scan(versions) for name, versions in raw.items()}
        with closing(FeatureEngine(tables, window)) as engine:

            def make(query: FeatureQuery) -> DatasetVersion:
                schema, batches = engine.run(query)
                return store.write(
                    f"{declaration.name}/features/{query.name}",
                    window.key,
                    batches,
                    schema=schema,
                    inputs=inputs[query.name],
                )

            with ThreadPoolExecutor(SMALL_QUERIES_AT_ONCE if engine.threads == 1 else 1) as pool:
                written = pool.map(make, stale)
                made |= {query.name: version for query, version in zip(stale, written, strict=True)}
    return [made[query.name] for query in queries]


class FeatureEngine:
    """Runs feature SQL over raw tables in a DuckDB of its own, bounded in memory and threads.

    Args:
        tables: Arrow tables or datasets by name.
        window: The window whose rows are made.

    Attributes:
        threads: How many a query uses.
    """

    def __init__(self, tables: Mapping[str, Any], window: Window) -> None:
        import duckdb

        self.window = window
        self._connection = duckdb.connect(
            config={
                "memory_limit": MEMORY_LIMIT,
                "threads": 1,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        # Each query has a connection of its own; without GLOBAL these do not know.
        self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
        rows = 0
        for name, table in tables.items():
            self._connection.register("arriving", table)
            [[loaded]] = self._connection.execute(
                f'CREATE TABLE "{name}" AS {_in_utc(table.schema)} FROM arriving'
            ).fetchall()
            self._connection.unregister("arriving")
            rows += loaded
        # Threads that share little work mostly wait for each other.
        self.threads = min(THREADS, 1 + rows // ROWS_PER_THREAD)
        self._connection.execute(f"SET threads = {self.threads}")
        for name, moment in [("window_start", window.start), ("window_end", window.end)]:
            self._connection.execute(f"CREATE MACRO {name}() AS {_literal(moment)}")
        # Feature SQL reads the raw tables and nothing else: no files, no network.
        self._connection.execute("SET enable_external_access = false")

    def close(self) -> None:
        """Give the memory back."""
        self._connection.close()

    def table(self, query: FeatureQuery) -> pa.Table:
        """The window's rows as one table; see `run`."""
        schema, batches = self.run(query)
        return pa.Table.from_batches(batches, schema=schema)

    def run(self, query: FeatureQuery) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The feature table's schema, and the window's rows, sorted by time and key, checked.

        Rows with a null in a key belong to nobody and are left out. Several threads may run
        queries at once.

        Raises:
            FeatureError: The query does not run, or its columns are not those of a feature table;
                when the rows are read to their end: a time is missing, a row is created before
                its event, or two rows have the same key and times.
        """
        # A connection's queries wait for each other, and its last result goes with the next one.
        connection = self._connection.cursor()
        with _explained(query):
            names = connection.sql(f"SELECT * FROM ({query.sql}\n)").columns  # noqa: S608
        keys = _checked_keys(query, names)
        columns = ", ".join(f'"{name}"' for name in names)
        present = " AND ".join([f'"{key}" IS NOT NULL' for key in keys] or ["true"])
        order = ", ".join([EVENT, *(f'"{key}"' for key in keys), CREATED])
        with _explained(query):
            reader = connection.sql(
                f"SELECT {columns} FROM ({query.sql}\n) WHERE {present} AND ({EVENT} IS NULL "  # noqa: S608
                f"OR {EVENT} >= window_start() AND {EVENT} < window_end()) ORDER BY {order}"
            ).to_arrow_reader(ROW_GROUP_ROWS)
        schema = _checked_schema(query, reader.schema)
        return schema, self._checked(query, keys, schema, reader)

    def _checked(
        self, query: FeatureQuery, keys: list[str], schema: pa.Schema, reader: pa.RecordBatchReader
    ) -> Iterator[pa.RecordBatch]:
        checks = _RowChecks(keys)
        while True:
            with _explained(query):
                batch = next(reader, None)
            if batch is None:
                break
            rows = batch.cast(schema)
            checks.see(rows)
            yield rows
        checks.refuse(f"{query.path}, window {self.window}")


def _in_utc(schema: pa.Schema) -> str:
    # TIMESTAMPTZ is reckoned in the calendar of a time zone, which makes frames over it slow.
    times = [f'"{column.name}"' for column in schema if pa.types.is_timestamp(column.type)]
    plain = ", ".join(f"make_timestamp(epoch_us({time})) AS {time}" for time in times)
    return f"SELECT * REPLACE ({plain})" if plain else "SELECT *"


def _literal(moment: datetime) -> str:
    return f"TIMESTAMP '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


@dataclass
class _RowChecks:
    """What must hold of a feature table's rows, seen batch by batch in their order."""

    keys: list[str]
    rows: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    repeated: tuple[Any, ...] | None = None
    _last: pa.RecordBatch | None = None

    def see(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        early = pc.sum(pc.less(batch[CREATED], batch[EVENT])).as_py() or 0
        for fault, count in [
            (f"no {EVENT}", batch[EVENT].null_count),
            (f"no {CREATED}", batch[CREATED].null_count),
            (f"a {CREATED} before the {EVENT}", early),
        ]:
            self.faults[fault] = self.faults.get(fault, 0) + count
        identity = [*self.keys, EVENT, CREATED]
        names = batch.select(identity)
        seen = pa.Table.from_batches([self._last, names] if self._last else [names])
        # In their order rows of one identity are neighbours.
        same = np.ones(max(seen.num_rows - 1, 0), dtype=bool)
        for name in identity[::-1]:
            equal = pc.equal(seen[name].slice(1), seen[name].slice(0, len(same)))
            same &= pc.fill_null(equal, False).to_numpy(zero_copy_only=False)
        if self.repeated is None and same.any():
            place = int(np.argmax(same))
            self.repeated = tuple(seen.slice(place, 1).to_pylist()[0].values())
        self._last = names.slice(batch.num_rows - 1)

    def refuse(self, where: str) -> None:
        for fault, count in self.faults.items():
            if count:
                raise FeatureError(
                    f"{where}: {count} of {self.rows} rows have {fault}.",
                    remedy="Give each row the time of its event, and when it became known.",
                )
        if self.repeated:
            raise FeatureError(
                f"{where}: several rows for {self.repeated} "
                f"({', '.join([*self.keys, EVENT, CREATED])}).",
                remedy="Aggregate to one row per key and time; which one to use is undefined.",
            )


@contextmanager
def _explained(query: FeatureQuery) -> Iterator[None]:
    import duckdb

    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise FeatureError(
            f"{query.path} does not run: {error}",
            remedy="Correct the SQL; it sees the declared tables of the source, by name.",
        ) from error


def _checked_keys(query: FeatureQuery, names: list[str]) -> list[str]:
    for name in (EVENT, CREATED):
        if name not in names:
            raise FeatureError(
                f"{query.path} gives no column {name}; it gives {', '.join(names)}.",
                remedy="Select the join keys, event_timestamp, created_timestamp, the features.",
            )
    place = names.index(EVENT)
    if names.index(CREATED) != place + 1:
        raise FeatureError(
            f"{query.path}: {CREATED} does not follow {EVENT}.",
            remedy="Select the join keys, event_timestamp, created_timestamp, the features.",
        )
    return names[:place]


def _checked_schema(query: FeatureQuery, schema: pa.Schema) -> pa.Schema:
    for name in (EVENT, CREATED):
        kind = schema.field(name).type
        if not (pa.types.is_timestamp(kind) and kind.unit == "us"):
            raise FeatureError(
                f"{query.path}: {name} is of type {kind}; a moment in microseconds is needed.",
                remedy="Use TIMESTAMP, in UTC, or TIMESTAMPTZ.",
            )
    fields = []
    for column in schema:
        kind = INSTANT if column.name in (EVENT, CREATED) else column.type
        if pa.types.is_decimal(kind) or pa.types.is_nested(kind):
            raise FeatureError(
                f"{query.path}: the column {column.name} is of type {kind}, which no model takes.",
                remedy="Cast it in the SQL, e.g. with ::FLOAT, ::BIGINT or ::VARCHAR.",
            )
        fields.append(pa.field(column.name, kind))
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
