"""Served and offline features, cell by cell."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.errors import DataError
from aios_platform.monitoring.skew import TOLERANCE, compare

FEATURES = FeatureSchema(
    fields=(
        FeatureField(name="delay", kind=FieldKind.NUMERICAL, origin="delays"),
        FeatureField(name="carrier", kind=FieldKind.CATEGORICAL, origin="request"),
    )
)
ROWS = 400


def table(delay=None, carrier=None):
    delay = np.random.default_rng(0).normal(10, 3, ROWS) if delay is None else delay
    carrier = ["AA", "B6", "UA", None] * (ROWS // 4) if carrier is None else carrier
    return pa.table({"delay": pa.array(delay, pa.float32(), from_pandas=True), "carrier": carrier})


def skew(served, offline, bound=0.1):
    report = compare(
        model="toy", window="2013-10", version="3", served=served, offline=offline,
        features=FEATURES, bound=bound,
    )  # fmt: skip
    return report, {feature.name: feature for feature in report.features}


def test_the_same_values_are_no_skew_and_a_missing_one_is_like_a_missing_one():
    report, _ = skew(table(), table())
    assert [feature.different for feature in report.features] == [0, 0]
    assert not report.skewed
    assert "no feature differs" in report.reason
    gaps = np.where(np.arange(ROWS) % 5, 1.5, np.nan)
    assert skew(table(gaps), table(gaps))[1]["delay"].different == 0


def test_a_stale_feature_is_skewed_and_its_share_and_distance_are_told():
    offline = np.random.default_rng(0).normal(10, 3, ROWS)
    stale = np.where(np.arange(ROWS) < 100, offline + 15, offline)
    report, found = skew(table(stale), table(offline))
    assert [feature.name for feature in report.skewed] == ["delay"]
    assert (found["delay"].different, found["delay"].share) == (100, 0.25)
    assert found["delay"].psi > 0.2
    assert found["delay"].example.startswith("served 2")
    assert "1 of 2 features" in report.reason
    assert "delay in 25%" in report.reason
    assert not skew(table(stale), table(offline), bound=0.25)[0].skewed, "the bound itself passes"


def test_a_value_missing_on_one_side_differs():
    carrier = ["AA", "B6", None, None] * (ROWS // 4)
    found = skew(table(carrier=carrier), table())[1]["carrier"]
    assert (found.different, found.missing, found.skewed) == (100, 100, True)
    assert found.example == "served None, offline 'UA'"


def test_rounding_is_no_skew_also_next_to_zero():
    offline = np.random.default_rng(0).normal(0, 1, ROWS)
    offline[0] = 0.0
    noise = offline * (1 + TOLERANCE / 3)
    noise[0] = TOLERANCE / 3
    assert skew(table(noise), table(offline))[1]["delay"].different == 0
    tiny = np.full(ROWS, 1e-9)
    assert skew(table(2 * tiny), table(tiny))[1]["delay"].share == 1.0, "small values count, too"


def test_a_few_rows_accuse_nothing():
    few, other = table().slice(0, 29), table(np.zeros(ROWS)).slice(0, 29)
    report, found = skew(few, other)
    assert (report.enough, report.skewed, found["delay"].share) == (False, (), 1.0)
    assert "29 rows can be compared; 30 are needed" in report.reason
    empty, found = skew(table().slice(0, 0), table().slice(0, 0))
    assert (empty.rows, empty.enough, found["delay"].psi) == (0, False, None)


def test_other_rows_or_a_missing_input_cannot_be_compared():
    with pytest.raises(DataError, match="400 and 399 rows"):
        skew(table(), table().slice(1))
    with pytest.raises(DataError, match="carrier"):
        skew(table(), table().drop_columns(["carrier"]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32) | st.none()] * 2), min_size=1, max_size=50)
)
def test_no_order_of_the_rows_and_no_exchange_of_sides_changes_which_cells_differ(rows):
    def share(pairs):
        left, right = zip(*pairs, strict=True)
        columns = ["AA"] * len(pairs)
        one, other = (table(list(side), columns) for side in (left, right))
        return skew(one, other)[1]["delay"]

    found = share(rows)
    assert share(rows[::-1]).different == found.different
    assert share([pair[::-1] for pair in rows]).missing == found.missing
    assert found.missing == sum((a is None) != (b is None) for a, b in rows)
    assert found.missing <= found.different <= found.cells == len(rows)
