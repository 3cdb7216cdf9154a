"""Our Feast offline store against the bare as-of join and against Feast's own file stores.

    python benchmarks/point_in_time_join.py [--rows 1 10 30] [--repeats 3] [--work FOLDER]

The rows are the flights of 2013 at their prediction times; the features are three of the
model's real tables: one with few hot keys, one composite, one with many sparse keys. Ten and
thirty times the rows are copies under other keys, so that rows per key stay what they are. Every
measurement is a process of its own, timed without imports and after two small joins, from
entity rows in memory to the joined rows in memory; its peak is that of the whole process. Results
are compared cell by cell (large ones by digests of each column), and a sample with brute force.
"""

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

VIEWS: dict[str, tuple[list[str], timedelta, list[str]]] = {
    "carrier_delays": (
        ["carrier"],
        timedelta(days=28),
        ["carrier_late_rate_1d", "carrier_late_rate_7d", "carrier_late_rate_28d"],
    ),
    "origin_carrier_traffic": (
        ["origin", "carrier"],
        timedelta(hours=12),
        ["origin_carrier_overdue", "origin_carrier_departure_late_rate_2h"],
    ),
    "tail_movements": (
        ["tail_number"],
        timedelta(days=28),
        ["tail_arrival_delay", "tail_flight_minutes", "tail_airborne", "tail_scheduled_at"],
    ),
}
KEYS = ["carrier", "origin", "tail_number"]
FEATURES = [feature for _, _, features in VIEWS.values() for feature in features]
TIMEOUT = 300
BUDGET_MB = 512


def prepare(work: Path, scales: list[int]) -> None:
    """Real flights and feature tables, once, and their multiples."""
    if not (work / "x1" / "entities.parquet").exists():
        _real_flights(work / "x1")
    base = work / "x1"
    for scale in scales:
        folder = work / f"x{scale}"
        if scale == 1 or (folder / "done").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("entities", *VIEWS):
            table = pq.read_table(base / f"{name}.parquet")
            with pq.ParquetWriter(folder / f"{name}.parquet", table.schema) as writer:
                for copy in range(scale):
                    writer.write_table(_copied(table, copy), row_group_size=65_536)
        (folder / "done").touch()


def _real_flights(folder: Path) -> None:
    import yaml

    from aios_platform.artifacts import ArtifactStore
    from aios_platform.contracts.declaration import ModelDeclaration
    from aios_platform.defs import flight_delay
    from aios_platform.defs.flight_delay.source import read_window
    from aios_platform.features.tables import build_feature_tables

    folder.mkdir(parents=True, exist_ok=True)
    home = Path(flight_delay.__file__).parent
    document = yaml.safe_load((home / "defs.yaml").read_text())
    declaration = ModelDeclaration.model_validate(document["attributes"])
    store = ArtifactStore(str(folder / "artifacts"))
    keys = [f"2013-{month:02d}" for month in range(1, 13)]
    sql = folder / "sql"
    sql.mkdir(exist_ok=True)
    for name in VIEWS:
        (sql / f"{name}.sql").write_text((home / "features" / f"{name}.sql").read_text())
    for key in keys:
        window = declaration.windows.window(key)
        for name, table in read_window(window).items():
            store.write(f"flight_delay/raw/{name}", key, table)
        build_feature_tables(declaration, sql, window, store)
    for name in VIEWS:
        dataset = f"flight_delay/features/{name}"
        table = store.scan([store.require(dataset, key) for key in keys]).to_table()
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=65_536)
    rows = store.scan([store.require("flight_delay/raw/flights", key) for key in keys])
    table = rows.to_table(columns=[*KEYS, "prediction_time"])
    table = table.rename_columns([*KEYS, "event_timestamp"])
    table = table.append_column("id", pa.array(np.arange(table.num_rows)))
    pq.write_table(table, folder / "entities.parquet")


def _copied(table: pa.Table, copy: int) -> pa.Table:
    for place, name in enumerate(table.column_names):
        if name in KEYS:
            text = table[name].cast(pa.string())
            marked = pc.binary_join_element_wise(text, f"#{copy}", "")
            table = table.set_column(place, name, marked.cast(table.schema.field(name).type))
        if name == "id":
            shifted = pc.add(table[name], copy * table.num_rows)
            table = table.set_column(place, name, shifted)
    return table


def bare_polars(folder: Path, entities: pa.Table) -> pa.Table:
    """The as-of join in polars, with the TTL, by hand."""
    import polars as pl

    left = pl.DataFrame(pl.from_arrow(entities)).sort("event_timestamp", maintain_order=True)
    for name, (keys, ttl, features) in VIEWS.items():
        right = pl.read_parquet(
            folder / f"{name}.parquet", columns=[*keys, "event_timestamp", *features]
        )
        right = right.with_columns(pl.col("event_timestamp").alias("seen")).sort("event_timestamp")
        left = left.join_asof(
            right, on="event_timestamp", by=keys, strategy="backward", check_sortedness=False
        )
        fresh = pl.col("seen") >= pl.col("event_timestamp") - ttl
        left = left.with_columns(
            pl.when(fresh).then(pl.col(feature)).alias(feature) for feature in features
        ).drop("seen")
    return left.sort("id").to_arrow()


def bare_duckdb(folder: Path, entities: pa.Table) -> pa.Table:
    """The as-of join in DuckDB, with the TTL, by hand."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("e", entities)
    joins, columns = [], ["e.*"]
    for name, (keys, ttl, features) in VIEWS.items():
        on = " AND ".join(f"e.{key} = {name}.{key}" for key in keys)
        joins.append(
            f"ASOF LEFT JOIN '{folder / name}.parquet' AS {name} "
            f"ON {on} AND e.event_timestamp >= {name}.event_timestamp"
        )
        limit = f"e.event_timestamp - INTERVAL {int(ttl.total_seconds())} SECONDS"
        columns += [
            f"CASE WHEN {name}.event_timestamp >= {limit} THEN {name}.{f} END AS {f}"
            for f in features
        ]
    query = f"SELECT {', '.join(columns)} FROM e {' '.join(joins)} ORDER BY id"
    return connection.sql(query).to_arrow_table()


def through_feast(kind: str, streamed: bool = False) -> Callable[[Path, pa.Table], pa.Table]:
    """A Feast store on the tables; the registry is made before the clock starts."""

    def join(_: Path, entities: pa.Table) -> Any:
        job = join.store.get_historical_features(  # type: ignore[attr-defined]
            entity_df=entities if kind == "ours" else entities.to_pandas(),
            features=[f"{name}:{f}" for name, (_, _, fs) in VIEWS.items() for f in fs],
        )
        if not streamed:
            return job.to_arrow()
        from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

        target = Path(tempfile.mkdtemp()) / "joined.parquet"
        job.persist(SavedDatasetFileStorage(path=str(target)))
        return target

    join.prepare = lambda folder: setattr(join, "store", _feast_store(kind, folder, streamed))  # type: ignore[attr-defined]
    return join


def _feast_store(kind: str, folder: Path, streamed: bool) -> Any:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float32, Float64

    ours = {
        "type": "aios_platform.features.offline_store.AsOfJoinOfflineStore",
        "memory_budget_mb": BUDGET_MB if streamed else 4096,
    }
    scratch = Path(tempfile.mkdtemp())
    store = FeatureStore(
        config=RepoConfig(
            project="benchmark",
            provider="local",
            registry=str(scratch / "registry.db"),
            offline_store=ours if kind == "ours" else {"type": kind},
            online_store=None,
            entity_key_serialization_version=3,
        )
    )
    entities = {k: Entity(name=k, join_keys=[k], value_type=ValueType.STRING) for k in KEYS}
    views = []
    for name, (keys, ttl, features) in VIEWS.items():
        source = FileSource(
            name=name,
            path=str(folder / f"{name}.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        )
        schema = pq.read_schema(folder / f"{name}.parquet")
        fields = [
            Field(name=f, dtype=Float64 if schema.field(f).type == pa.float64() else Float32)
            for f in features
        ]
        views.append(
            FeatureView(
                name=name,
                entities=[entities[key] for key in keys],
                ttl=ttl,
                schema=fields,
                source=source,
            )
        )
    store.apply([*entities.values(), *views])
    return store


CONTENDERS: dict[str, Callable[[Path, pa.Table], Any]] = {
    "bare polars": bare_polars,
    "bare DuckDB": bare_duckdb,
    "ours": through_feast("ours"),
    "ours, streamed to a file": through_feast("ours", streamed=True),
    "Feast's duckdb": through_feast("duckdb"),
    "Feast's dask": through_feast("dask"),
}


def measure(contender: str, folder: Path, rows: int | None, result: Path | None) -> None:
    """One measurement, in this process; prints it as JSON."""
    join = CONTENDERS[contender]
    entities = pq.read_table(folder / "entities.parquet")
    if rows is not None:
        step = entities.num_rows // rows
        entities = entities.take(pa.array(np.arange(0, rows) * step))
    if hasattr(join, "prepare"):
        join.prepare(folder)
    else:
        import duckdb  # noqa: F401
        import polars  # noqa: F401
    if not contender.startswith("Feast"):
        few = np.arange(100) * (entities.num_rows // 100)
        for _ in range(2):
            join(folder, entities.take(pa.array(few)))
    start, cpu = time.perf_counter(), time.process_time()
    joined = join(folder, entities)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table = pq.read_table(joined) if isinstance(joined, Path) else joined
    if result is not None:
        pq.write_table(table.select(["id", *FEATURES]), result)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": cpu,
                "peak_mb": peak,
                "rows": table.num_rows,
                "digests": {name: _digest(table[name]) for name in FEATURES},
            }
        )
    )


def _digest(column: pa.ChunkedArray) -> str:
    values = column.cast(pa.float64()).combine_chunks()
    present = pc.is_valid(values)
    filled = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
    content = hashlib.sha256(np.packbits(present.to_numpy(zero_copy_only=False)).tobytes())
    content.update(np.ascontiguousarray(filled).tobytes())
    return content.hexdigest()


def run(contender: str, folder: Path, rows: int | None, result: Path | None = None) -> Any:
    """One measurement in a process of its own; None when it fails or takes too long."""
    command = [sys.executable, __file__, "--one", contender, str(folder)]
    command += ["--take", str(rows)] if rows else []
    command += ["--result", str(result)] if result else []
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    except subprocess.TimeoutExpired:
        return f"stopped after {TIMEOUT} s"
    except subprocess.CalledProcessError as error:
        return (error.stderr.strip().splitlines() or ["failed"])[-1][:90]
    return json.loads(ran.stdout.strip().splitlines()[-1])


def large(work: Path, scales: list[int], repeats: int) -> None:
    """Bare joins and ours at 1, 10, 30 times the rows."""
    contenders = ["bare polars", "bare DuckDB", "ours", "ours, streamed to a file"]
    print("| rows | contender | seconds | CPU s | ratio to bare polars | peak MiB | cells |")
    print("|---|---|---|---|---|---|---|")
    for scale in scales:
        folder = work / f"x{scale}"
        results: dict[str, list[Any]] = {name: [] for name in contenders}
        for _ in range(repeats):
            for name in contenders:
                results[name].append(run(name, folder, None))
        reference = results["bare polars"][0]
        for name in contenders:
            done = [r for r in results[name] if isinstance(r, dict)]
            if not done:
                print(f"| {scale} times | {name} | {results[name][0]} | | | | |")
                continue
            seconds = statistics.median(r["seconds"] for r in done)
            base = [r["seconds"] for r in results["bare polars"] if isinstance(r, dict)]
            ratio = f"{seconds / statistics.median(base):.2f}" if base else "?"
            same = isinstance(reference, dict) and done[0]["digests"] == reference["digests"]
            cpu = statistics.median(r["cpu"] for r in done)
            peak = statistics.median(r["peak_mb"] for r in done)
            print(
                f"| {done[0]['rows']:,} | {name} | {seconds:.2f} | {cpu:.2f} | {ratio} "
                f"| {peak:,.0f} | {'all equal' if same else 'DIFFER'} |",
                flush=True,
            )


def small(work: Path) -> None:
    """Feast's own stores at sizes they survive, compared cell by cell with ours."""
    print("\n| rows | contender | seconds | peak MiB | rows lost | cells that differ from ours |")
    print("|---|---|---|---|---|---|")
    folder = work / "x1"
    cases = {10: ["Feast's dask", "Feast's duckdb"], 1_000: ["Feast's duckdb"]}
    cases[10_000] = ["Feast's duckdb"]
    for rows, contenders in cases.items():
        with tempfile.TemporaryDirectory() as scratch:
            kept = Path(scratch) / "ours.parquet"
            ours = run("ours", folder, rows, kept)
            print(f"| {rows:,} | ours | {ours['seconds']:.2f} | {ours['peak_mb']:,.0f} | 0 | |")
            for name in contenders:
                other = Path(scratch) / "other.parquet"
                found = run(name, folder, rows, other)
                if isinstance(found, str):
                    print(f"| {rows:,} | {name} | {found} | | | |", flush=True)
                    continue
                lost, differ = _compare(pq.read_table(kept), pq.read_table(other))
                print(
                    f"| {rows:,} | {name} | {found['seconds']:.2f} | {found['peak_mb']:,.0f} "
                    f"| {lost} | {differ} |",
                    flush=True,
                )


def _compare(ours: pa.Table, other: pa.Table) -> tuple[int, int]:
    other = other.sort_by("id")
    mine = ours.filter(pc.is_in(ours["id"], other["id"].combine_chunks())).sort_by("id")
    differ = 0
    for name in FEATURES:
        a = mine[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        b = other[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        differ += int((~((a == b) | (np.isnan(a) & np.isnan(b)))).sum())
    return ours.num_rows - other.num_rows, differ


def brute_force(work: Path, rows: int = 300) -> None:
    """A sample of our cells against a scan of the whole table per row."""
    folder = work / "x1"
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "ours.parquet"
        run("ours", folder, rows, kept)
        found = {row["id"]: row for row in pq.read_table(kept).to_pylist()}
    entities = pq.read_table(folder / "entities.parquet")
    step = entities.num_rows // rows
    sample = entities.take(pa.array(np.arange(0, rows) * step)).to_pylist()
    wrong = cells = 0
    for name, (keys, ttl, features) in VIEWS.items():
        table = pq.read_table(folder / f"{name}.parquet")
        columns = {k: np.array(table[k].to_pylist(), dtype=object) for k in keys}
        events = table["event_timestamp"].cast(pa.int64()).to_numpy()
        created = table["created_timestamp"].cast(pa.int64()).to_numpy()
        for row in sample:
            t = int(row["event_timestamp"].timestamp() * 1_000_000)
            seen = (events <= t) & (created <= t)
            seen &= events >= t - int(ttl.total_seconds() * 1_000_000)
            for key in keys:
                seen &= columns[key] == row[key]
            places = np.flatnonzero(seen)
            best = max(places, key=lambda p: (events[p], created[p], p)) if len(places) else None
            for feature in features:
                wanted = None if best is None else table[feature][int(best)].as_py()
                cells += 1
                wrong += found[row["id"]][feature] != wanted
    print(f"\nBrute force on {rows} rows: {wrong} of {cells} cells differ.")


def main() -> None:
    """Measure everything and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 10, 30])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "aios-pit")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--take", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one[0], Path(arguments.one[1]), arguments.take, arguments.result)
        return
    prepare(arguments.work, arguments.rows)
    large(arguments.work, arguments.rows, arguments.repeats)
    small(arguments.work)
    brute_force(arguments.work)


if __name__ == "__main__":
    main()
