"""Windows read from files and databases that a declaration names."""

import sqlite3
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from aios_platform.contracts.declaration import Source
from aios_platform.contracts.windows import WindowSchedule
from aios_platform.data.source import read_source
from aios_platform.errors import SettingsError, SourceError, WindowNotDelivered

DAYS = WindowSchedule(every="day", start="2024-01-01")
DAY = timedelta(days=1)
BEGIN = datetime(2024, 1, 1)
ROWS = 72


def orders(kind=None):
    """An order an hour for three days, the first at midnight."""
    times = [BEGIN + timedelta(hours=place) for place in range(ROWS)]
    return pa.table(
        {
            "order_id": [f"o{place}" for place in range(ROWS)],
            "placed_at": pa.array(times, kind or pa.timestamp("us", "UTC")),
            "amount": [place / 2 for place in range(ROWS)],
            "items": pa.array([None if place == 30 else place for place in range(ROWS)]),
            "returned": [place % 3 == 0 for place in range(ROWS)],
            "unused": ["x"] * ROWS,
        }
    )


def source(stored, **columns):
    return Source.model_validate(
        {
            "rows": "orders",
            "prediction_time": "placed_at",
            "stored": {"orders": stored},
            "tables": {
                "orders": {
                    "row_id": ["order_id"],
                    "timestamp": "placed_at",
                    "columns": {
                        "order_id": {"type": "string"},
                        "placed_at": {"type": "timestamp"},
                        "amount": {"type": "float"},
                        "items": {"type": "int", "nullable": True},
                        "returned": {"type": "bool"},
                        **columns,
                    },
                }
            },
        }
    )


def read(stored, key="2024-01-02", **columns):
    return read_source(source(stored, **columns), DAYS.window(key))["orders"]


def expected(key_day=1):
    whole = orders().drop_columns(["unused"])
    return whole.slice(24 * key_day, 24)


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us", "UTC"), pa.timestamp("ns"), pa.timestamp("s", "Asia/Tokyo")]
)
def test_a_window_of_a_parquet_file(tmp_path, kind):
    table = orders()
    place = table.column_names.index("placed_at")
    times = table["placed_at"]
    if kind.tz is None:
        times = times.cast(pa.timestamp("us"))
    pq.write_table(table.set_column(place, "placed_at", times.cast(kind)), tmp_path / "o.parquet",
                   row_group_size=10)  # fmt: skip
    assert read({"path": str(tmp_path / "o.parquet")}).equals(expected())
    assert read({"path": f"file://{tmp_path}/o.parquet"}).equals(expected())


def test_times_without_a_zone_are_those_of_the_declared_zone(tmp_path):
    pq.write_table(orders(pa.timestamp("us")), tmp_path / "o.parquet")
    found = read({"path": str(tmp_path / "o.parquet"), "timezone": "Asia/Tokyo"})
    assert found["placed_at"][0].as_py() == datetime(2024, 1, 2, tzinfo=UTC)
    assert found["order_id"][0].as_py() == "o33", "midnight in London is nine in Tokyo"


def test_a_window_of_a_csv_file_is_read_as_declared(tmp_path):
    pacsv.write_csv(orders(pa.timestamp("us")), tmp_path / "o.csv")
    assert read({"path": str(tmp_path / "o.csv")}).equals(expected())


def test_a_file_per_window_and_one_that_is_not_there_yet(tmp_path):
    pq.write_table(orders(), tmp_path / "2024-01-02.parquet")
    stored = {"path": f"{tmp_path}/{{window}}.parquet"}
    assert read(stored).equals(expected())
    with pytest.raises(WindowNotDelivered, match="there is nothing at"):
        read(stored, "2024-01-03")


def test_columns_that_a_file_lacks_are_added(tmp_path):
    table = orders().drop_columns(["order_id"])
    pq.write_table(table, tmp_path / "o.parquet", row_group_size=7)
    found = read(
        {
            "path": str(tmp_path / "o.parquet"),
            "row_number": "order_id",
            "known_after_days": {"known_at": 2},
        },
        known_at={"type": "timestamp"},
    )
    assert found["order_id"].to_pylist() == [str(place) for place in range(24, 48)]
    later = [at - 2 * DAY for at in found["known_at"].to_pylist()]
    assert later == found["placed_at"].to_pylist()


def test_row_numbers_of_several_files_are_refused(tmp_path):
    for name in "ab":
        pq.write_table(orders(), tmp_path / f"{name}.parquet")
    with pytest.raises(SourceError, match="the number of a row may change"):
        read({"path": str(tmp_path), "format": "parquet", "row_number": "order_id"})


@pytest.mark.parametrize("bounded", [True, False], ids=["with bounds", "whole"])
def test_a_window_of_a_query(tmp_path, bounded):
    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.execute("CREATE TABLE orders (id, at, amount REAL, items INT, returned INT)")
    connection.executemany(
        "INSERT INTO orders VALUES (?, ?, ?, ?, ?)",
        [
            (row["order_id"], str(row["placed_at"].replace(tzinfo=None)), row["amount"],
             row["items"], int(row["returned"]))
            for row in orders().to_pylist()
        ],
    )  # fmt: skip
    connection.commit()
    connection.close()
    query = "SELECT id AS order_id, at AS placed_at, amount, items, returned FROM orders"
    if bounded:
        query += " WHERE at >= :start AND at < :end"
    stored = {"url": f"sqlite:///{tmp_path}/shop.db", "query": query}
    found = read(stored)
    assert found.equals(expected()), "the row at midnight is among them"
    assert read(stored, "2024-02-01").num_rows == 0


def test_a_password_comes_from_the_environment_and_is_never_shown(monkeypatch):
    stored = {"url": "postgresql+psycopg://me:${SHOP_PASSWORD}@127.0.0.1:1/shop", "query": "x"}
    with pytest.raises(SettingsError, match="SHOP_PASSWORD"):
        read(stored)
    monkeypatch.setenv("SHOP_PASSWORD", "p@ss/w:rd")
    with pytest.raises(SourceError, match="cannot be read from the database") as caught:
        read(stored)
    assert "p@ss" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host/db",
        "postgresql://me:${A}rest@host/db",
        "postgresql://me@host/db?password=secret",
    ],
)
def test_a_url_with_a_password_is_refused(url):
    with pytest.raises(ValidationError, match="the URL holds a password"):
        source({"url": url, "query": "SELECT 1"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["items"]), "has no column 'items'"),
        (lambda t: t.set_column(2, "amount", pa.array(["much"] * ROWS)), "in 'amount' that is no"),
        (lambda t: t.set_column(3, "items", pa.array([1.5] * ROWS)), "in 'items' that is no int"),
        (lambda t: t.set_column(4, "returned", pa.array([2] * ROWS)), "other than 0 and 1"),
        (lambda t: t.set_column(1, "placed_at", pa.array(["soon"] * ROWS)), "no timestamp"),
    ],
)
def test_what_does_not_fit_the_declaration_is_named(tmp_path, change, message):
    pq.write_table(change(orders()), tmp_path / "o.parquet")
    with pytest.raises(SourceError, match=message):
        read({"path": str(tmp_path / "o.parquet")})


def test_a_damaged_file_and_none_at_all_are_named(tmp_path):
    pq.write_table(orders(), tmp_path / "o.parquet")
    content = (tmp_path / "o.parquet").read_bytes()
    (tmp_path / "o.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match="cannot be read"):
        read({"path": str(tmp_path / "o.parquet")})
    with pytest.raises(SourceError, match="there is nothing at"):
        read({"path": str(tmp_path / "none.parquet")})


def test_a_window_of_the_newest_version_of_a_delta_table(tmp_path):
    deltalake = pytest.importorskip("deltalake")
    place = str(tmp_path / "orders")
    deltalake.write_deltalake(place, orders().slice(0, 30))
    deltalake.write_deltalake(place, orders().slice(30), mode="append", partition_by=[])
    deltalake.DeltaTable(place).delete("order_id = 'o25'")
    found = read({"path": place, "format": "delta"}).sort_by("amount")
    assert found.drop_columns(["order_id"]).column_names == expected().column_names[1:]
    wanted = [row for row in expected().to_pylist() if row["order_id"] != "o25"]
    assert found.to_pylist() == wanted


def test_a_delta_table_that_is_not_there_or_not_readable_is_named(tmp_path):
    deltalake = pytest.importorskip("deltalake")
    place = tmp_path / "orders"
    with pytest.raises(SourceError, match="no Delta table at"):
        read({"path": str(place), "format": "delta"})
    with pytest.raises(WindowNotDelivered, match="no Delta table at"):
        read({"path": str(tmp_path / "{window}"), "format": "delta"})
    deltalake.write_deltalake(str(place), orders())
    (data,) = place.glob("*.parquet")
    content = data.read_bytes()
    data.write_bytes(content[:100])
    with pytest.raises(SourceError, match="cannot be read"):
        read({"path": str(place), "format": "delta"})
    (log,) = (place / "_delta_log").glob("*.json")
    log.write_text(log.read_text().replace('"minReaderVersion":1', '"minReaderVersion":99'))
    with pytest.raises(SourceError, match="cannot be read"):
        read({"path": str(place), "format": "delta"})


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"path": "a", "format": "delta", "row_number": "nr"}, "have no number"),
        ({}, "give either path, or url and query"),
        ({"path": "a.parquet", "url": "sqlite://", "query": "x"}, "give either path"),
        ({"url": "sqlite://"}, "url and query go together"),
        ({"path": "a.xlsx"}, "neither .parquet nor .csv"),
        ({"path": "a.csv", "row_number": "nr"}, "adds the column 'nr', which is not declared"),
    ],
)
def test_a_place_that_cannot_be_is_refused_when_it_is_declared(stored, message):
    with pytest.raises(ValidationError, match=message):
        source(stored)


def test_dates_are_midnights(tmp_path):
    table = orders().set_column(
        1, "placed_at", pa.array([date(2024, 1, 1 + place // 24) for place in range(ROWS)])
    )
    pq.write_table(table, tmp_path / "o.parquet")
    assert read({"path": str(tmp_path / "o.parquet")}).num_rows == 24
