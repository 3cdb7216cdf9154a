"""The checks and by-products of the flight_delay lifecycle, written plainly.

A script without them does less than the platform's run; `bare_lifecycle.py` calls them so that
both do the same work, and can leave them out (`--no-checks`). Arithmetic that needs no library
(bootstrap, AUC of one feature) is the platform's own, so that neither side is cleverer.
"""

import hashlib
import sqlite3
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import torch
from bare_features import KEYS, compute, derive, join_features
from bare_model import Scorer
from bare_source import INSTANT, known_by

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
                broken += broken_rows(connection, f"read_parquet('{path}')", table, known)
                hashlib.sha256(path.read_bytes()).hexdigest()
    return broken


def broken_rows(connection, rows: str, table: dict, known: set[str]) -> int:
    """How often rows break a rule of their declaration.

    Args:
        connection: Of DuckDB.
        rows: What stands after FROM.
        table: The declared table.
        known: Columns that there are.
    """
    rules = [
        rule for column, rule in _rules(table["columns"]) if column in known and rule is not None
    ]
    counts = [f"count(*) FILTER (WHERE {rule})" for rule in rules]
    ids = ", ".join(c for c in table.get("row_id", []) if c in known)
    if ids:
        counts.append(f"count(*) - count(DISTINCT row({ids}))")
    [(delivered, *found)] = connection.sql(
        f"SELECT count(*), {', '.join(counts)} FROM {rows}"
    ).fetchall()
    if delivered < table.get("min_rows", 1):
        raise SystemExit(f"{rows} has {delivered} rows")
    return sum(found)


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


def write_online(path: Path, tables: Iterable[tuple[str, pl.DataFrame]]) -> int:
    """The newest row of each entity, feature table by feature table, into SQLite."""
    written = 0
    with sqlite3.connect(path) as online:
        for name, table in tables:
            keys = table.columns[: table.columns.index("event_timestamp")]
            newest = (
                table.sort("event_timestamp")
                .unique(keys, keep="last", maintain_order=True)
                .with_columns(pl.col(pl.Datetime).dt.epoch("us"))
            )
            places = ", ".join("?" * newest.width)
            columns = ", ".join(f'"{c}"' for c in newest.columns)
            online.execute(
                f'CREATE TABLE IF NOT EXISTS "{name}" ({columns}, PRIMARY KEY ({", ".join(keys)}))'
            )
            online.executemany(f'INSERT OR REPLACE INTO "{name}" VALUES ({places})', newest.rows())
            written += newest.height
    return written


def replay(
    raw: dict[str, pl.DataFrame], declared: dict, used: dict[str, pl.DataFrame], moments
) -> tuple[int, int]:
    """Make the features again from what was known at each moment; compare for sampled flights.

    Args:
        raw: The raw tables.
        declared: The declaration, for its `known_at` clocks.
        used: The feature tables as they were used.
        moments: Moments, aware.

    Returns:
        Cells compared, cells that differ.
    """
    compared = differing = 0
    tables = declared["source"]["tables"]
    for moment in moments:
        first, last = moment - timedelta(days=62), moment + timedelta(days=1)
        known = {}
        for name, table in raw.items():
            clock = tables[name].get("timestamp") or tables[name]["known_at"]
            near = table.filter(pl.col(clock).is_between(first, last))
            known[name] = known_by(near, tables[name], moment)
        again = dict(compute(known, first, last))
        near = raw["flights"].filter(pl.col("scheduled_at").is_between(first, last))
        sample = near.gather_every(max(near.height // SAMPLED_ROWS, 1)).with_columns(
            prediction_time=pl.lit(moment).cast(INSTANT)
        )
        keys = sample.select("flight_id", "prediction_time", *KEYS)
        first_frame, second_frame = (
            derive(join_features(keys, found.__getitem__)).sort("flight_id")
            for found in (used, again)
        )
        for name in first_frame.columns:
            one, other = first_frame[name], second_frame[name]
            same = one.eq_missing(other)
            if one.dtype.is_float():
                same = same | ((one - other).abs() < 1e-5)
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
    found = Scorer.load(path, schema, encoding).run(numbers, codes)
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
        found.append(times[len(times) // 2].as_py())
    return found
