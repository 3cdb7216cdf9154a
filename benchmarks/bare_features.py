"""The model's feature SQL and the as-of join, plainly, for the bare scripts."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import duckdb
import polars as pl

MODEL = Path(__file__).parents[1] / "aios_platform" / "defs" / "flight_delay"
KEYS = ["carrier", "flight_number", "tail_number", "origin", "destination", "route"]
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
Load = Callable[[str], pl.DataFrame]


def queries(sql: Path = MODEL / "features") -> dict[str, str]:
    """The text of each feature table's query, by name."""
    found = {path.stem: path.read_text().strip().rstrip(";") for path in sorted(sql.glob("*.sql"))}
    if set(found) != set(TTL):
        raise SystemExit("bring TTL in line with feature_repo/flights.py")
    return found


def compute(
    raw: Mapping[str, pl.DataFrame], first: datetime, last: datetime
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Run the feature SQL over raw tables.

    Args:
        raw: The tables that the SQL names; aware times.
        first: What the SQL takes for the window's beginning, aware.
        last: And for its end.
    """
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in raw.items():
            times = [c for c, kind in table.schema.items() if kind == pl.Datetime]
            plain = table.with_columns(pl.col(times).dt.replace_time_zone(None))
            connection.register("arriving", plain.to_arrow())
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM arriving")
            connection.unregister("arriving")
        for name, moment in [("window_start", first), ("window_end", last)]:
            text = moment.strftime("%Y-%m-%d %H:%M:%S.%f")
            connection.execute(f"CREATE MACRO {name}() AS TIMESTAMP '{text}'")
        for name, query in queries().items():
            yield name, connection.sql(query).pl()


def join_features(rows: pl.DataFrame, load: Load) -> pl.DataFrame:
    """Each flight with the newest feature rows that are not too old at its prediction time.

    Args:
        rows: Flights with their keys and `prediction_time`.
        load: Gives a feature table by its name.
    """
    frame = rows.sort("prediction_time")
    for name in sorted(TTL):
        table = load(name)
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


def frame_of(flights: pl.DataFrame, load: Load, request: list[str]) -> pl.DataFrame:
    """The feature frame: flights with their window and with what was known at prediction time.

    Args:
        flights: Rows of the raw table with a column `window`; `is_late` and `landed_at` stay.
        load: Gives a feature table by its name.
        request: Columns of the raw table that are features themselves.
    """
    label = ["is_late", "landed_at"]
    columns = dict.fromkeys(["flight_id", "prediction_time", "window", *label, *KEYS, *request])
    frame = derive(join_features(flights.select(*columns), load))
    unused = [c for c in KEYS if c not in request]
    return frame.drop(unused).sort("window", "flight_id")
