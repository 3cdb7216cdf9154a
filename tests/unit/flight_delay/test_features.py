"""The feature SQL on real flights: against a plain count, and against a past without a future."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.windows import Window
from tests.unit.flight_delay.conftest import SQL, run_sql

KEYS = ["origin", "carrier", "destination", "route", "flight_number", "tail_number"]
TIMES = ["event_timestamp", "created_timestamp"]


def keys_of(frame: pl.DataFrame) -> list[str]:
    return [name for name in frame.columns if name in KEYS]


@pytest.fixture(scope="module")
def flights(raw: dict[str, pa.Table]) -> pl.DataFrame:
    return pl.DataFrame(raw["flights"])


def sample(frame: pl.DataFrame, rows: int = 60) -> list[dict[str, object]]:
    """Rows of the last ten days, when a week of history lies behind them."""
    late = frame.filter(pl.col("event_timestamp") > pl.col("event_timestamp").max() - timedelta(10))
    return late.sample(min(rows, late.height), seed=7).to_dicts()


@pytest.mark.parametrize("name", SQL)
def test_a_key_has_one_row_per_moment_known_no_earlier_than_it_happened(
    made: dict[str, pl.DataFrame], name: str
) -> None:
    frame = made[name]
    keys = keys_of(frame)
    assert keys
    assert frame.columns[: len(keys) + 2] == [*keys, *TIMES]
    assert (
        not frame.filter(pl.all_horizontal(pl.col(k).is_not_null() for k in keys))
        .select(pl.struct([*keys, "event_timestamp"]).is_duplicated().any())
        .item()
    )
    assert frame.filter(pl.col("created_timestamp") < pl.col("event_timestamp")).is_empty()


def known(tables: dict[str, pa.Table], model: ModelDeclaration, cutoff: datetime) -> dict:
    """What the declaration says was known at a moment."""
    found = {}
    for name, declared in model.source.tables.items():
        frame = pl.DataFrame(tables[name]).filter(pl.col(declared.known_at) <= cutoff)
        unknown = {
            column: (pl.col(c.known_at) <= cutoff).fill_null(False)
            for column, c in declared.columns.items()
            if c.known_at
        }
        columns = [pl.when(when).then(pl.col(c)).alias(c) for c, when in unknown.items()]
        found[name] = frame.with_columns(columns).to_arrow(compat_level=pl.CompatLevel.oldest())
    return found


@pytest.mark.parametrize("hour", ["2013-03-05 12:30", "2013-03-08 21:47", "2013-03-08 05:00"])
def test_no_row_would_have_been_different_in_the_past(
    raw: dict[str, pa.Table],
    made: dict[str, pl.DataFrame],
    declaration: ModelDeclaration,
    hour: str,
) -> None:
    cutoff = datetime.fromisoformat(hour + "+00:00")
    past = known(raw, declaration, cutoff)
    for name in SQL:
        until = pl.col("event_timestamp") <= cutoff
        then = run_sql(name, past).filter(until)
        now = made[name].filter(until)
        order = [*keys_of(now), "event_timestamp"]
        assert then.sort(order).equals(now.sort(order)), name
        assert now.height > 0


@pytest.mark.parametrize("start", ["2013-03-01 05:00", "2013-03-07 17:34"])
def test_rows_do_not_depend_on_where_the_window_begins(
    raw: dict[str, pa.Table], made: dict[str, pl.DataFrame], start: str
) -> None:
    begin = datetime.fromisoformat(start + "+00:00")
    window = Window(key="part", start=begin, end=begin + timedelta(days=2))
    for name in SQL:
        inside = pl.col("event_timestamp").is_between(window.start, window.end, closed="left")
        expected = made[name].filter(inside)
        assert run_sql(name, raw, window).equals(expected), name
        assert expected.height > 0 or name == "plane"


def test_late_rates_count_the_flights_that_have_landed(
    made: dict[str, pl.DataFrame], flights: pl.DataFrame
) -> None:
    for row in sample(made["carrier_delays"]):
        now = row["event_timestamp"]
        landed = flights.filter(
            pl.col("carrier") == row["carrier"],
            pl.col("landed_at").is_between(now - timedelta(days=7), now),
        )
        assert row["carrier_late_rate_7d"] == pytest.approx(landed["is_late"].mean(), rel=1e-6)


def test_mean_delays_are_of_flights_that_have_landed_and_are_clipped(
    made: dict[str, pl.DataFrame], flights: pl.DataFrame
) -> None:
    for row in sample(made["route_delays"]):
        now = row["event_timestamp"]
        landed = flights.filter(
            pl.col("route") == row["route"],
            pl.col("landed_at").is_between(now - timedelta(days=1), now),
        )
        mean = landed["arrival_delay"].clip(-60, 180).mean()
        assert row["route_delay_1d"] == pytest.approx(mean, rel=1e-5, abs=1e-5)


def test_overdue_counts_flights_that_ought_to_have_left(
    made: dict[str, pl.DataFrame], flights: pl.DataFrame
) -> None:
    for name, key in [("origin_traffic", ["origin"]), ("carrier_traffic", ["carrier"]),
                      ("origin_carrier_traffic", ["origin", "carrier"])]:  # fmt: skip
        prefix = "_".join(key)
        for row in sample(made[name], 40):
            now = row["event_timestamp"]
            waiting = flights.filter(
                *(pl.col(k) == row[k] for k in key),
                pl.col("scheduled_at") > now - timedelta(hours=4),
                pl.col("scheduled_at") <= now,
                pl.col("departed_at").is_null() | (pl.col("departed_at") > now),
            )
            assert row[f"{prefix}_overdue"] == waiting.height


def test_departures_of_the_last_hour(made: dict[str, pl.DataFrame], flights: pl.DataFrame) -> None:
    for row in sample(made["origin_traffic"]):
        now = row["event_timestamp"]
        gone = flights.filter(
            pl.col("origin") == row["origin"],
            pl.col("departed_at").is_between(now - timedelta(hours=1), now),
        )
        assert row["origin_departures_1h"] == gone.height
        mean = gone["departure_delay"].clip(-30, 180).mean()
        if mean is None:
            assert row["origin_departure_delay_1h"] is None
        else:
            assert row["origin_departure_delay_1h"] == pytest.approx(mean, rel=1e-5, abs=1e-5)


def test_an_aircraft_is_airborne_until_it_lands(
    made: dict[str, pl.DataFrame], flights: pl.DataFrame
) -> None:
    moves = made["tail_movements"]
    departures = flights.filter(pl.col("departed_at").is_not_null(), pl.col("tail_number") != "")
    for row in sample(moves):
        last = (
            departures.filter(
                pl.col("tail_number") == row["tail_number"],
                pl.col("departed_at") <= row["event_timestamp"],
            )
            .sort("departed_at")
            .row(-1, named=True)
        )
        landed = last["landed_at"] is not None and last["landed_at"] <= row["event_timestamp"]
        assert row["tail_airborne"] == (0.0 if landed else 1.0)
        assert row["tail_arrival_delay"] == (last["arrival_delay"] if landed else None)
        assert row["tail_scheduled_at"] == last["scheduled_at"].timestamp()


def test_weather_is_known_an_hour_after_it_was_observed(
    made: dict[str, pl.DataFrame], raw: dict[str, pa.Table]
) -> None:
    weather = pl.DataFrame(raw["weather"])
    for row in sample(made["origin_weather"]):
        observed = weather.row(
            by_predicate=(pl.col("origin") == row["origin"])
            & (pl.col("observed_at") == row["event_timestamp"] - timedelta(hours=1)),
            named=True,
        )
        assert row["temperature"] == pytest.approx(observed["temperature"], rel=1e-6)


@pytest.fixture(scope="module")
def repository():
    from aios_platform.features.repository import load_repository
    from aios_platform.settings import PROJECT_ROOT

    objects = load_repository(Path(PROJECT_ROOT) / "feature_repo")
    return {thing.name: thing for thing in objects}


def test_feast_knows_exactly_the_columns_that_the_sql_makes(
    made: dict[str, pl.DataFrame], repository: dict
) -> None:
    for name, frame in made.items():
        view = repository[name]
        features = [f.name for f in view.schema]
        assert set(frame.columns) == {*features, *TIMES, *keys_of(frame)}
        assert sorted(view.entities) == sorted(keys_of(frame))


def test_the_aircrafts_clock(repository: dict) -> None:
    now = datetime.fromisoformat("2013-03-05T12:00:00+00:00")
    answer = repository["tail_clock"].feature_transformation.udf(
        {
            "prediction_time": [now, now, now],
            "tail_scheduled_at": [now.timestamp() - 4 * 3600, None, now.timestamp() - 9e6],
            "tail_landing_at": [now.timestamp() - 3600, None, now.timestamp() + 1800],
            "tail_flight_minutes": [90.0, None, 100.0],
        }
    )
    assert answer == {
        "tail_minutes_since_scheduled": [240.0, None, 2880.0],
        "tail_minutes_since_landing": [60.0, None, -30.0],
        "tail_slack": [-30.0, None, -130.0],
    }
