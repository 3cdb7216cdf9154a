"""Raw tables as known at a moment, and how well a feature alone separates a label."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from aios_platform.contracts.datasets import FieldKind
from aios_platform.contracts.declaration import Column, Label, Table
from aios_platform.features.canary import rank_auc, single_feature_auc
from aios_platform.known import anything_known_after, as_known

INSTANT = pa.timestamp("us", tz="UTC")
NOON = pa.scalar(datetime(2024, 1, 1, 12, tzinfo=UTC), INSTANT)


def hour(number: int | None) -> datetime | None:
    return None if number is None else datetime(2024, 1, 1, number, tzinfo=UTC)


def table(**columns: list[int | None]) -> pa.Table:
    times = {n: pa.array([hour(h) for h in hours], INSTANT) for n, hours in columns.items()}
    rows = len(next(iter(columns.values())))
    return pa.table({"id": list(range(rows)), **times, "delay": [5] * rows, "late": [True] * rows})


DECLARED = Table(
    columns={
        "id": Column(type="int"),
        "at": Column(type="timestamp"),
        "done": Column(type="timestamp", nullable=True, known_at="done"),
        "delay": Column(type="int", nullable=True, known_at="done"),
        "late": Column(type="bool", nullable=True),
    },
    timestamp="at",
)
LABEL = Label(column="late", known_at="done")


def test_later_rows_go_and_later_values_are_hidden() -> None:
    rows = table(at=[8, 9, 10, 13, None], done=[11, 12, 14, 15, 11])
    known = as_known(rows, DECLARED, NOON, LABEL)
    assert known["id"].to_pylist() == [0, 1, 2]
    assert known["delay"].to_pylist() == [5, 5, None]
    assert known["late"].to_pylist() == [True, True, None]
    assert known["done"].to_pylist() == [hour(11), hour(12), None]
    without_label = as_known(rows, DECLARED, NOON, None)
    assert without_label["late"].to_pylist() == [True, True, True]


def test_a_value_of_which_nobody_says_when_it_became_known_is_hidden() -> None:
    known = as_known(table(at=[8], done=[None]), DECLARED, NOON, LABEL)
    assert known["delay"].to_pylist() == [None]


def test_a_table_that_was_wholly_known_needs_no_replay() -> None:
    assert not anything_known_after(table(at=[8, 9], done=[11, 12]), DECLARED, NOON)
    assert anything_known_after(table(at=[8, 9], done=[11, 13]), DECLARED, NOON)
    assert anything_known_after(table(at=[8, 13], done=[11, 12]), DECLARED, NOON)
    assert not anything_known_after(table(at=[8], done=[None]), DECLARED, NOON)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_rank_auc_is_the_textbooks(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([float(r[0]) for r in rows])
    truth = np.array([r[1] for r in rows])
    if 0 < truth.sum() < len(truth):
        assert rank_auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))


def test_a_feature_that_tells_the_label_is_told_in_either_direction() -> None:
    truth = np.array([True, False] * 500)
    numbers = pa.chunked_array([np.where(truth, -1.0, 1.0)])
    assert single_feature_auc(numbers, truth, FieldKind.NUMERICAL) == 1.0
    gaps = pa.chunked_array([pa.array([None if t else 1.0 for t in truth], pa.float32())])
    assert single_feature_auc(gaps, truth, FieldKind.NUMERICAL) == 1.0
    names = pa.chunked_array([pa.array(["late" if t else None for t in truth])])
    assert single_feature_auc(names, truth, FieldKind.CATEGORICAL) > 0.99


def test_a_category_seen_once_does_not_carry_its_own_label() -> None:
    random = np.random.default_rng(1)
    truth = random.random(4_000) < 0.3
    unique = pa.chunked_array([pa.array([str(n) for n in range(4_000)])])
    assert single_feature_auc(unique, truth, FieldKind.CATEGORICAL) < 0.55
    assert single_feature_auc(unique, np.ones(4_000, bool), FieldKind.CATEGORICAL) == 0.5
