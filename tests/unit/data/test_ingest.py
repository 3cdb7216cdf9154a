"""Deliveries that are accepted: what is written, and when nothing is."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.errors import ArtifactMissing, WindowRejected
from tests.unit.data.conftest import DAY, Shop, orders, prices, with_values


def test_a_good_delivery_becomes_current_whole(shop: Shop) -> None:
    shop.deliver()
    result = shop.ingest()
    assert result.changed
    assert result.quarantined == {"orders": 0, "prices": 0}
    assert shop.raw().equals(orders().cast(shop.raw().schema))
    assert {v.version for v in result.versions.values()} == {1}
    assert all(report.success for report in result.reports)
    names = {r.name for report in result.reports for r in report.results}
    assert names >= {
        "columns",
        "row_count", "not_null", "finite", "range", "values", "unique", "in_window", "known",
        "freshness", "quarantined_share",
    }  # fmt: skip


def test_the_same_rows_in_another_shape_change_nothing(shop: Shop) -> None:
    shop.deliver()
    first = shop.ingest()
    table = orders()
    shuffled = table.take(np.random.default_rng(1).permutation(len(table)))
    shuffled = shuffled.select(list(reversed(table.column_names)))
    wide = pa.schema(
        [
            f.with_type(
                {pa.string(): pa.large_string(), pa.int64(): pa.int16()}.get(f.type, f.type)
            )
            for f in shuffled.schema
        ]
    )
    shop.deliver(orders=shuffled.cast(wide))
    again = shop.ingest()
    assert not again.changed
    assert again.versions == first.versions
    assert again.reports == first.reports


def test_changed_content_gets_a_new_version_and_the_old_one_stays_readable(shop: Shop) -> None:
    shop.deliver()
    first = shop.ingest()
    shop.deliver(orders=with_values(orders(), "amount", {3: 99.0}))
    second = shop.ingest()
    assert second.changed
    assert second.versions["orders"].version == 2
    assert second.versions["prices"] == first.versions["prices"]
    history = shop.store.history("returns/raw/orders", "2024-03-01")
    assert [v.digest for v in history] == [first.versions["orders"].digest,
                                           second.versions["orders"].digest]  # fmt: skip
    assert shop.store.read(history[0])["amount"][3].as_py() == 13.0


def test_a_changed_declaration_judges_the_same_delivery_again(shop: Shop) -> None:
    shop.deliver()
    assert shop.ingest().changed
    shop.declare(max_quarantine_share=0.2)
    again = shop.ingest()
    assert again.changed
    assert {v.version for v in again.versions.values()} == {1}


def test_bad_rows_in_a_delivery_leave_the_digest_of_the_good_ones_alone(shop: Shop) -> None:
    good = orders()
    shop.deliver(orders=good)
    first = shop.ingest()
    extra = with_values(good.slice(0, 1), "order_id", {0: "zz"})
    shop.deliver(orders=pa.concat_tables([good, with_values(extra, "amount", {0: -1.0})]))
    second = shop.ingest()
    assert second.quarantined["orders"] == 1
    assert second.versions["orders"].digest == first.versions["orders"].digest


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("amount", float("nan"), "amount: not finite"),
        ("amount", float("inf"), "amount: not finite"),
        ("amount", -0.5, "amount: outside 0 to 1000"),
        ("amount", None, "amount: missing"),
        ("items", 0, "items: below 1"),
        ("channel", "fax", "channel: not a declared value"),
        ("order_id", None, "order_id: missing"),
        ("placed_at", DAY - timedelta(microseconds=1), "placed_at: outside the window"),
        ("placed_at", DAY + timedelta(days=1), "placed_at: outside the window"),
        ("closed_at", DAY + timedelta(days=40_000), "closed_at: in the future"),
    ],
)
def test_a_bad_row_goes_to_quarantine_with_its_reason(
    shop: Shop, column: str, value: object, reason: str
) -> None:
    shop.deliver(orders=with_values(orders(), column, {3: value}))
    result = shop.ingest()
    assert result.quarantined == {"orders": 1, "prices": 0}
    assert shop.quarantine()["quarantine_reason"].to_pylist() == [reason]
    assert shop.raw().num_rows == 39
    assert "01-003" not in shop.raw()["order_id"].to_pylist()


def test_a_row_can_have_several_reasons(shop: Shop) -> None:
    table = with_values(with_values(orders(), "amount", {3: -1.0}), "channel", {3: "fax"})
    shop.deliver(orders=table)
    shop.ingest()
    assert shop.quarantine()["quarantine_reason"].to_pylist() == [
        "amount: outside 0 to 1000; channel: not a declared value"
    ]


def test_a_row_delivered_twice_is_kept_once(shop: Shop) -> None:
    shop.deliver(orders=pa.concat_tables([orders(), orders().slice(4, 1)]))
    result = shop.ingest()
    assert result.quarantined["orders"] == 1
    assert shop.quarantine()["quarantine_reason"].to_pylist() == ["order_id: not unique"]
    assert shop.raw().equals(orders().cast(shop.raw().schema))


def test_rows_that_contradict_each_other_all_go(shop: Shop) -> None:
    other = with_values(orders().slice(4, 1), "amount", {0: 500.0})
    shop.deliver(orders=pa.concat_tables([orders(), other]))
    result = shop.ingest()
    assert result.quarantined["orders"] == 2
    assert set(shop.quarantine()["amount"].to_pylist()) == {14.0, 500.0}
    assert "01-004" not in shop.raw()["order_id"].to_pylist()


def test_ids_of_several_columns_are_unique_together(shop: Shop) -> None:
    shop.declare(max_quarantine_share=0.5)
    twice = pa.concat_tables([prices(), prices().slice(0, 1)])
    shop.deliver(prices=twice)
    assert shop.ingest().quarantined["prices"] == 1
    assert shop.quarantine("prices")["quarantine_reason"].to_pylist() == [
        "article, country: not unique"
    ]


def test_a_quarantine_empties_again_when_the_rows_come_good(shop: Shop) -> None:
    shop.deliver(orders=with_values(orders(), "amount", {3: -1.0}))
    assert shop.ingest().quarantined_rows == 1
    shop.deliver()
    assert shop.ingest().quarantined_rows == 0
    assert shop.quarantine().num_rows == 0


def test_a_window_that_is_not_over_is_refused(shop: Shop) -> None:
    shop.deliver()
    with pytest.raises(WindowRejected, match="over at 2024-03-02"):
        shop.ingest(now=DAY + timedelta(hours=23))
    with pytest.raises(ArtifactMissing):
        shop.raw()


def test_a_file_cut_short_in_the_store_is_written_again(shop: Shop) -> None:
    shop.deliver()
    version = shop.ingest().versions["orders"]
    with open(version.uri, "r+b") as file:  # noqa: PTH123
        file.truncate(version.bytes // 2)
    again = shop.ingest()
    assert again.changed
    assert again.versions["orders"] == version
    assert shop.raw().num_rows == 40
