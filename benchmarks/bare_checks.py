"""The checks and by-products of the flight_delay lifecycle, written plainly.

A script without them does less than the platform's run; `bare_lifecycle.py` calls them so that
both do the same work, and can leave them out (`--no-checks`). Arithmetic that needs no library
(bootstrap, AUC of one feature) is the platform's own, so that neither side is cleverer.
"""

import hashlib
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import onnxruntime
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import torch

from aios_platform.contracts.datasets import FieldKind
from aios_platform.features.canary import single_feature_auc
from aios_platform.metrics import evaluate
from aios_platform.resampling import gain_interval, metric_interval, metric_intervals
from aios_platform.training.encoding import categorical_codes, numerical_matrix

RESAMPLES = 2000
MONTHLY_RESAMPLES = 1000
CANARY_ROWS = 60_000
SAMPLED_ROWS = 2000
PARITY_ROWS = 4096


def validate(folder: Path, declared: dict) -> int:
    """One aggregate query per table and month: nulls, ranges, categories, finite, unique ids.

    Returns:
        Rows that break a rule.
    """
    broken = 0
    with duckdb.connect(config={"threads": 2}) as connection:
        for name, table in declared["source"]["tables"].items():
            for path in sorted((folder / "raw" / name).glob("*.parquet")):
                known = set(pl.read_parquet_schema(path))
                rules = [
                    rule
                    for column, rule in _rules(table["columns"])
                    if column in known and rule is not None
                ]
                counts = [f"count(*) FILTER (WHERE {rule})" for rule in rules]
                ids = ", ".join(c for c in table.get("row_id", []) if c in known)
                if ids:
                    counts.append(f"count(*) - count(DISTINCT row({ids}))")
                query = f"SELECT count(*), {', '.join(counts)} FROM read_parquet('{path}')"
                [(rows, *found)] = connection.sql(query).fetchall()
                if rows < table.get("min_rows", 1):
                    raise SystemExit(f"{path} has {rows} rows")
                broken += sum(found)
                hashlib.sha256(path.read_bytes()).hexdigest()
    return broken


def _rules(columns: dict):
    for name, column in columns.items():
        if not column.get("nullable"):
            yield name, f"{name} IS NULL"
        if column["type"] == "float":
            yield name, f"NOT isfinite({name})"
        if "min" in column:
            yield name, f"{name} < {column['min']}"
        if "max" in column:
            yield name, f"{name} > {column['max']}"
        if "values" in column:
            listed = ", ".join(f"'{value}'" for value in column["values"])
            yield name, f"{name} NOT IN ({listed})"


def write_online(folder: Path, tables: list[str]) -> int:
    """The newest row of each entity, feature table by feature table, into SQLite."""
    written = 0
    with sqlite3.connect(folder / "online.db") as online:
        for name in tables:
            table = pl.read_parquet(folder / "features" / f"{name}.parquet")
            keys = table.columns[: table.columns.index("event_timestamp")]
            newest = (
                table.sort("event_timestamp")
                .unique(keys, keep="last", maintain_order=True)
                .with_columns(pl.col(pl.Datetime).dt.epoch("us"))
            )
            places = ", ".join("?" * newest.width)
            columns = ", ".join(f'"{c}"' for c in newest.columns)
            online.execute(f'CREATE TABLE "{name}" ({columns}, PRIMARY KEY ({", ".join(keys)}))')
            online.executemany(f'INSERT OR REPLACE INTO "{name}" VALUES ({places})', newest.rows())
            written += newest.height
    return written


def replay(
    folder: Path, sql: Path, declared: dict, tables: list[str], moments, join
) -> tuple[int, int]:
    """Make the features again from what was known at each moment; compare for sampled flights.

    Args:
        folder: Where the raw tables are.
        sql: Folder of the feature SQL.
        declared: The declaration, for its `known_at` clocks.
        tables: Names of the feature tables.
        moments: Moments, naive UTC.
        join: Joins flights with feature tables in a folder: (flights, folder) -> frame.

    Returns:
        Cells compared, cells that differ.
    """
    compared = differing = 0
    for moment in moments:
        again = folder / f"replay-{moment:%Y%m%dT%H%M}"
        (again / "features").mkdir(parents=True, exist_ok=True)
        first, last = moment - timedelta(days=62), moment + timedelta(days=1)
        with duckdb.connect(config={"threads": 2}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for name, table in declared["source"]["tables"].items():
                raw = pl.read_parquet(folder / "raw" / name / "*.parquet")
                times = [c for c, kind in raw.schema.items() if kind == pl.Datetime]
                raw = raw.with_columns(pl.col(times).dt.replace_time_zone(None))
                clock = table.get("known_at") or table.get("timestamp") or "snapshot_at"
                raw = raw.filter(pl.col(clock).is_between(first, moment))
                hidden = [
                    pl.when(pl.col(column["known_at"]) <= moment).then(pl.col(c)).alias(c)
                    for c, column in table["columns"].items()
                    if column.get("known_at") and c in raw.columns
                ]
                connection.register(f"{name}_known", raw.with_columns(hidden).to_arrow())
                connection.execute(f"CREATE TABLE {name} AS SELECT * FROM {name}_known")
            for macro, at in [("window_start", first), ("window_end", last)]:
                connection.execute(f"CREATE MACRO {macro}() AS TIMESTAMP '{at}'")
            for name in tables:
                query = (sql / f"{name}.sql").read_text().strip().rstrip(";")
                path = again / "features" / f"{name}.parquet"
                connection.execute(f"COPY ({query}\n) TO '{path}' (FORMAT parquet)")
        flights = pl.read_parquet(folder / "raw" / "flights" / "*.parquet")
        near = flights.filter(
            pl.col("scheduled_at").dt.replace_time_zone(None).is_between(first, last)
        )
        sample = near.gather_every(max(near.height // SAMPLED_ROWS, 1)).with_columns(
            prediction_time=pl.lit(moment).dt.replace_time_zone("UTC").dt.cast_time_unit("us")
        )
        used, known = join(sample, folder), join(sample, again)
        for name in used.columns:
            same = used[name].eq_missing(known[name])
            if used[name].dtype.is_float():
                same = same | ((used[name] - known[name]).abs() < 1e-5)
            compared += len(same)
            differing += int((~same.fill_null(False)).sum())
    return compared, differing


def canary(frame: pa.Table, schema) -> float:
    """The largest AUC of one feature alone, over about 60,000 rows."""
    known = frame.filter(pc.is_valid(frame["is_late"]))
    rows = known.take(np.arange(0, known.num_rows, max(known.num_rows // CANARY_ROWS, 1)))
    truth = rows["is_late"].to_numpy(zero_copy_only=False).astype(bool)
    kinds = dict.fromkeys(schema.numerical, FieldKind.NUMERICAL)
    return max(
        single_feature_auc(rows[name], truth, kinds.get(name, FieldKind.CATEGORICAL))
        for name in schema.names
    )


def parity(frame: pa.Table, schema, encoding, model, path: Path) -> float:
    """The largest difference between ONNX Runtime and torch on real rows."""
    rows = frame.slice(0, PARITY_ROWS)
    numbers = numerical_matrix(rows, schema)
    codes = categorical_codes(rows, schema, encoding.vocabularies)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {"numerical": numbers, "categorical": codes})[0]
    with torch.inference_mode():
        expected = model(torch.from_numpy(numbers), torch.from_numpy(codes)).numpy()
    return float(np.abs(found.ravel() - expected.ravel()).max())


def intervals(scored: pl.DataFrame, months: list[str]) -> dict[str, tuple[float, float]]:
    """What the gate compares and each month's metric, with their intervals."""
    known = scored.drop_nulls("is_late")
    truth, p = known["is_late"].to_numpy(), known["probability"].to_numpy().astype(np.float64)
    constant = np.full(truth.size, truth.mean())
    found = {"gain": gain_interval("roc_auc", truth, p, constant, seed=0, resamples=RESAMPLES)}
    found |= metric_intervals(["roc_auc", "ece"], truth, p, seed=0, resamples=RESAMPLES)
    month = known["prediction_time"].dt.strftime("%Y-%m").to_numpy()
    for key in months:
        rows = month == key
        found[key] = metric_interval(
            "roc_auc", truth[rows], p[rows], seed=0, resamples=MONTHLY_RESAMPLES
        )
        evaluate(truth[rows], p[rows])
    return {name: (round(i.low, 4), round(i.high, 4)) for name, i in found.items()}


def moments_of(frame: pa.Table, windows: list[str]) -> list[datetime]:
    """A prediction time in the middle of the first and of the last window."""
    found = []
    for key in (windows[0], windows[-1]):
        times = frame.filter(pc.equal(frame["window"], key))["prediction_time"]
        found.append(times[len(times) // 2].as_py().astimezone(UTC).replace(tzinfo=None))
    return found
