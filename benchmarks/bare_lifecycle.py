"""The flight_delay lifecycle as one plain script: what the platform's run is measured against.

The same data, feature SQL, point-in-time join, network, hyper-parameters and exam, with DuckDB,
polars, a plain torch loop and ONNX Runtime: no Dagster, Feast, Great Expectations, MLflow,
Lightning or Evidently; nothing is registered, versioned, governed or resumable, and no page is
drawn. What the platform checks on the way is checked here, too (`bare_checks.py`). From the
platform come the network and the arrays it eats (`bare_model.py`), so that both train the same
function.

    python benchmarks/bare_lifecycle.py [folder to write to] [--no-checks]
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import bare_checks
import bare_source
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from bare_features import MODEL, TTL, frame_of, queries
from bare_model import Scorer, export, schema_of, train

TRAINED = [f"2013-{month:02}" for month in range(1, 12)]
EXAM = ["2013-12"]


def main(folder: Path, *, checks: bool) -> None:
    """Run all steps and print their times and the model's quality.

    Args:
        folder: Where to write.
        checks: Also validate, fill an online store, look for leaks, test the ONNX model, and put
            intervals around what is compared, as the platform does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    declared = yaml.safe_load((MODEL / "defs.yaml").read_text())["attributes"]
    steps: dict[str, float] = {}

    def timed(name, function, *arguments):
        begin = time.perf_counter()
        result = function(*arguments)
        steps[name] = time.perf_counter() - begin
        return result

    timed("raw", write_raw, folder)
    if checks:
        timed("validation", bare_checks.validate, folder, declared)
    tables = timed("features", write_features, folder)
    if checks:
        timed(
            "online",
            bare_checks.write_online,
            folder / "online.db",
            ((name, read_features(folder, name)) for name in tables),
        )
    frame = timed("join", join, folder, declared["features"].get("request", []))
    pq.write_table(frame, folder / "frame.parquet", compression="zstd", compression_level=1)
    frame = pq.read_table(folder / "frame.parquet")
    schema = schema_of(frame)
    leaks = timed("leak check", find_leaks, folder, declared, frame, schema) if checks else None
    model, encoding = timed("training", train, frame, schema, declared.get("training", {}), TRAINED)
    timed("export", export, model, schema, folder / "model.onnx")
    if checks:
        path = folder / "model.onnx"
        timed("parity", bare_checks.parity, frame, schema, encoding, model, path)
    scored = timed("scoring", score, frame, schema, encoding, folder)
    metrics = timed("metrics", quality, scored)
    ends = timed("intervals", bare_checks.intervals, scored, EXAM) if checks else None
    drift = timed("drift", population_stability, frame, schema)
    print(
        json.dumps(
            {
                "seconds": {name: round(value, 2) for name, value in steps.items()},
                "rows": frame.num_rows,
                "features": len(schema.names),
                "metrics": metrics,
                "leaks": leaks,
                "intervals": ends,
                "drifted": {month: sum(v > 0.2 for v in psi) for month, psi in drift.items()},
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            },
            indent=1,
        )
    )


def write_raw(folder: Path) -> None:
    """Flights, weather and planes as Parquet, one file per table and month."""
    planes = bare_source.planes()
    for name, table, column in [
        ("flights", bare_source.flights(), "scheduled_at"),
        ("weather", bare_source.weather(), "observed_at"),
    ]:
        month = pl.col(column).dt.convert_time_zone(bare_source.ZONE).dt.strftime("%Y-%m")
        for (key,), part in table.with_columns(window=month).group_by("window"):
            write(part.drop("window"), folder / "raw" / name / f"{key}.parquet")
    for key in [*TRAINED, *EXAM]:
        snapshot = planes.with_columns(snapshot_at=bare_source.instant(key))
        write(snapshot, folder / "raw" / "planes" / f"{key}.parquet")


def write(frame: pl.DataFrame, path: Path) -> None:
    """One Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path, compression="zstd", compression_level=1)


def write_features(folder: Path) -> list[str]:
    """Run the model's feature SQL over the whole year."""
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'")
    # The SQL gets what it gets from the platform: plain times, and a window, here all there is.
    for table in ("flights", "weather", "planes"):
        files = f"{folder}/raw/{table}/*.parquet"
        times = [
            f"make_timestamp(epoch_us({field.name})) AS {field.name}"
            for field in pq.read_schema(next((folder / "raw" / table).glob("*.parquet")))
            if pa.types.is_timestamp(field.type)
        ]
        connection.execute(
            f"CREATE TABLE {table} AS SELECT * REPLACE ({', '.join(times)}) "
            f"FROM read_parquet('{files}')"
        )
    for name, moment in [("window_start", "1900-01-01"), ("window_end", "2100-01-01")]:
        connection.execute(f"CREATE MACRO {name}() AS TIMESTAMP '{moment}'")
    (folder / "features").mkdir(exist_ok=True)
    found = queries()
    for name, sql in found.items():
        path = folder / "features" / f"{name}.parquet"
        connection.execute(f"COPY ({sql}\n) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
    connection.close()
    return list(found)


def read_features(folder: Path, name: str) -> pl.DataFrame:
    """One feature table."""
    return pl.read_parquet(folder / "features" / f"{name}.parquet")


def join(folder: Path, request: list[str]) -> pa.Table:
    """The feature frame: each flight with what was known at its prediction time."""
    local = pl.col("scheduled_at").dt.convert_time_zone(bare_source.ZONE)
    flights = pl.read_parquet(folder / "raw" / "flights" / "*.parquet").with_columns(
        window=local.dt.strftime("%Y-%m")
    )
    frame = frame_of(flights, lambda name: read_features(folder, name), request)
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def find_leaks(folder: Path, declared: dict, frame: pa.Table, schema) -> dict:
    """Features made again at two moments, and the AUC of the best single feature."""
    raw = {
        name: pl.read_parquet(folder / "raw" / name / "*.parquet")
        for name in declared["source"]["tables"]
    }
    moments = bare_checks.moments_of(frame, TRAINED)
    compared, differing = bare_checks.replay(
        raw, declared, {name: read_features(folder, name) for name in TTL}, moments
    )
    best = round(bare_checks.canary(frame, schema), 4)
    return {"cells": compared, "differ": differing, "best_single_feature_auc": best}


def score(frame, schema, encoding, folder: Path) -> pl.DataFrame:
    """Score the exam's months, a Parquet file each."""
    scorer = Scorer.load(folder / "model.onnx", schema, encoding)
    (folder / "predictions").mkdir(exist_ok=True)
    months = []
    for month in EXAM:
        part = frame.filter(pc.equal(frame["window"], month))
        table = part.select(["flight_id", "prediction_time"]).append_column(
            "probability", pa.array(scorer.predict(part))
        )
        pq.write_table(table, folder / "predictions" / f"{month}.parquet", compression="zstd")
        months.append(pl.from_arrow(table.append_column("is_late", part["is_late"])))
    return pl.concat(months)


def quality(scored: pl.DataFrame) -> dict[str, float]:
    """Metrics of all exam rows with a label."""
    from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

    known = scored.drop_nulls("is_late")
    labels, p = known["is_late"].to_numpy(), known["probability"].to_numpy().astype(np.float64)
    edges = np.quantile(p, np.linspace(0, 1, 16)[1:-1])
    gaps = np.bincount(np.searchsorted(edges, p), weights=p - labels, minlength=15)
    return {
        "roc_auc": round(float(roc_auc_score(labels, p)), 4),
        "pr_auc": round(float(average_precision_score(labels, p)), 4),
        "log_loss": round(float(log_loss(labels, p)), 4),
        "ece": round(float(np.abs(gaps).sum() / len(p)), 4),
    }


def population_stability(frame, schema) -> dict[str, list[float]]:
    """PSI of each feature, each exam month against the training months."""
    months = pl.from_arrow(frame.select(["window", *schema.names])).partition_by(
        "window", as_dict=True
    )
    past = pl.concat([months[(key,)] for key in TRAINED])
    found: dict[str, list[float]] = {key: [] for key in EXAM}
    for name in schema.names:
        if name in schema.numerical:
            values = past[name].drop_nulls().to_numpy()
            edges = np.unique(np.quantile(values, np.linspace(0.1, 0.9, 9))) if len(values) else []
        else:
            edges = past[name].value_counts(sort=True)[name].drop_nulls()[:30].to_list()
        reference = shares(past[name], edges, name in schema.numerical)
        for key in EXAM:
            current = shares(months[(key,)][name], edges, name in schema.numerical)
            found[key].append(float(((current - reference) * np.log(current / reference)).sum()))
    return found


def shares(column: pl.Series, edges, numerical: bool) -> np.ndarray:
    """Share of rows per bin; the last one holds missing values."""
    present = column.drop_nulls()
    if numerical:
        places = np.searchsorted(edges, present.to_numpy())
        counts = np.bincount(places, minlength=len(edges) + 1)
    else:
        place = {value: index for index, value in enumerate(edges)}
        counts = np.zeros(len(edges) + 1)
        for value, count in present.value_counts().iter_rows():
            counts[place.get(value, len(edges))] += count
    counts = np.append(counts, len(column) - len(present)) + 0.5
    return counts / counts.sum()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where to write; unset, nowhere")
    parser.add_argument("--no-checks", action="store_true", help="the bare chain alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        main(options.folder or Path(scratch), checks=not options.no_checks)
