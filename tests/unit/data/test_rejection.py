"""Deliveries that are unusable as a whole: a clear error, and the last good version stays."""

from datetime import timedelta

import pyarrow as pa
import pytest

from aios_platform.errors import DataError, DeclarationError, SourceError, WindowRejected
from tests.unit.data.conftest import DAY, Shop, orders, prices, with_values


def cast(column: str, kind: pa.DataType) -> pa.Table:
    table = orders()
    place = table.column_names.index(column)
    return table.set_column(place, column, table[column].cast(kind))


BAD = {
    "missing column": (
        {"orders": orders().drop_columns(["amount"])},
        "orders: the column 'amount' is missing",
    ),
    "renamed column": (
        {"orders": orders().rename_columns({"amount": "amounts"})},
        "the column 'amount' is missing. Did you mean 'amounts'?",
    ),
    "extra column": (
        {"orders": orders().append_column("colour", pa.nulls(40, pa.string()))},
        "orders: the column 'colour' is not declared",
    ),
    "text for int": (
        {"orders": cast("items", pa.string())},
        "the column 'items' has type string; expected int",
    ),
    "float for int": (
        {"orders": cast("items", pa.float64())},
        "the column 'items' has type double; expected int",
    ),
    "time without zone": (
        {"orders": cast("placed_at", pa.timestamp("us"))},
        "the column 'placed_at' has type timestamp[us]; expected timestamp in UTC",
    ),
    "an integer too large": (
        {"orders": orders().set_column(3, "items", pa.array([2**63] * 40, pa.uint64()))},
        "does not fit the declared type",
    ),
    "missing table": ({"prices": None}, "the table 'prices' is missing"),
    "extra table": ({"clients": prices()}, "the table 'clients' is not declared"),
    "no rows": ({"orders": orders().slice(0, 0)}, "orders: 0 rows; at least 5 are expected"),
    "no rows in a table with defaults": ({"prices": prices().slice(0, 0)}, "prices: 0 rows"),
    "too few rows": ({"orders": orders().slice(36)}, "orders: 4 rows; at least 5 are expected"),
    "stale": (
        {"orders": orders().slice(0, 20)},
        "orders: the newest row is 14.5 hours older than the window's end; at most 12",
    ),
    "a column of nulls": (
        {"orders": with_values(orders(), "amount", dict.fromkeys(range(40)))},
        "amount: missing in 40 rows",
    ),
    "a column of NaN": (
        {"orders": with_values(orders(), "amount", dict.fromkeys(range(40), float("nan")))},
        "40 of 40 rows (100.0 %) are bad; at most 10 % may be",
    ),
    "an unseen category everywhere": (
        {"orders": with_values(orders(), "channel", dict.fromkeys(range(0, 40, 2), "telex"))},
        "channel: not a declared value in 20 rows, e.g. 'telex'",
    ),
    "another day's rows": (
        {"orders": orders(DAY + timedelta(days=1))},
        "placed_at: outside the window in 40 rows, e.g. 2024-03-02T00:00:00+00:00",
    ),
    "one id for all": (
        {"orders": with_values(orders(), "order_id", dict.fromkeys(range(40), "same"))},
        "order_id: not unique in 39 rows, e.g. 'same'",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_an_unusable_delivery_is_rejected_and_the_last_good_one_stays(
    shop: Shop, fault: str
) -> None:
    shop.deliver()
    before = shop.ingest().versions
    tables, message = BAD[fault]
    shop.deliver(**tables)
    with pytest.raises(WindowRejected) as caught:
        shop.ingest()
    assert message in str(caught.value)
    assert "2024-03-01" in str(caught.value)
    for name, version in before.items():
        assert shop.store.current(f"returns/raw/{name}", "2024-03-01") == version
        assert shop.store.read(version).num_rows == version.rows


def test_everything_wrong_is_told_at_once(shop: Shop) -> None:
    shop.deliver(
        orders=with_values(orders(), "amount", dict.fromkeys(range(30), -7.0)),
        prices=prices().drop_columns(["price"]),
        clients=prices(),
    )
    with pytest.raises(WindowRejected) as caught:
        shop.ingest()
    for part in (
        "the table 'clients' is not declared",
        "prices: the column 'price' is missing",
        "orders: 30 of 40 rows (75.0 %) are bad",
        "amount: outside 0 to 1000 in 30 rows, e.g. -7.0",
    ):
        assert part in str(caught.value)


def test_volume_is_judged_by_the_windows_before(shop: Shop) -> None:
    for day in range(3):
        key = f"2024-03-0{day + 1}"
        shop.deliver(key, orders=orders(DAY + timedelta(days=day)))
        shop.ingest(key)
    few = orders(DAY + timedelta(days=3)).filter(pa.array([i % 3 == 0 for i in range(40)]))
    shop.deliver("2024-03-04", orders=few)
    with pytest.raises(WindowRejected, match="orders: 14 rows; 20 to 60 are usual"):
        shop.ingest("2024-03-04")
    shop.deliver("2024-03-04", orders=orders(DAY + timedelta(days=3), rows=46))
    assert shop.ingest("2024-03-04").versions["orders"].rows == 46


def test_a_share_of_bad_rows_up_to_the_limit_is_accepted(shop: Shop) -> None:
    shop.deliver(orders=with_values(orders(), "amount", dict.fromkeys(range(4), -1.0)))
    assert shop.ingest().quarantined["orders"] == 4
    shop.deliver(orders=with_values(orders(), "amount", dict.fromkeys(range(5), -1.0)))
    with pytest.raises(WindowRejected, match=r"5 of 40 rows \(12\.5 %\) are bad"):
        shop.ingest()


def test_a_truncated_parquet_file_is_an_error_of_the_source(shop: Shop) -> None:
    shop.deliver()
    version = shop.ingest().versions["orders"]
    path = shop.folder / "2024-03-01" / "orders.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SourceError, match=r"shop_source:read failed on window 2024-03-01"):
        shop.ingest()
    assert shop.store.current("returns/raw/orders", "2024-03-01") == version


@pytest.mark.parametrize(
    ("entrypoint", "error", "message"),
    [
        ("shop_source:break_down", SourceError, "ConnectionError: the shop is closed"),
        ("shop_source:nothing", SourceError, "returned NoneType"),
        ("shop_source:numbers", SourceError, "delivered the table 'orders' as int"),
        ("shop_source:raed", DeclarationError, "no function 'raed'. Did you mean 'read'?"),
        ("shop_sauce:read", DeclarationError, "'shop_sauce' does not import"),
        (
            "aios_platform.defs.flight_dely.source:read_window",
            DeclarationError,
            "Did you mean 'flight_delay'?",
        ),
    ],
)
def test_a_source_that_fails_says_so(
    shop: Shop, entrypoint: str, error: type[Exception], message: str
) -> None:
    shop.declare(entrypoint=entrypoint)
    with pytest.raises(error) as caught:
        shop.ingest()
    assert message in str(caught.value)


def test_a_hostile_value_is_shown_short_and_on_one_line(shop: Shop) -> None:
    hostile = "<img onerror=alert(1)>\n" * 50
    shop.deliver(orders=with_values(orders(), "channel", dict.fromkeys(range(40), hostile)))
    with pytest.raises(WindowRejected) as caught:
        shop.ingest()
    line = next(li for li in str(caught.value).splitlines() if "channel" in li)
    assert "\\n" in line
    assert len(line) < 160


def test_an_expectation_that_cannot_be_evaluated_is_not_bad_data() -> None:
    import pandas as pd
    from great_expectations import expectations as gxe

    from aios_platform.data.validation import run_suite

    with pytest.raises(DataError, match="could not evaluate"):
        run_suite(pd.DataFrame({"a": [1.0]}), [gxe.ExpectColumnMaxToBeBetween(column="b")], "BASIC")
