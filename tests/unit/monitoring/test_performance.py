"""Predictions meet the truth that was known by a time."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.declaration import Label
from aios_platform.contracts.windows import Every, WindowSchedule
from aios_platform.errors import DataError
from aios_platform.metrics import evaluate
from aios_platform.monitoring.performance import Performance, PerformanceStatus, matured, measure

SCHEDULE = WindowSchedule(every=Every.MONTH, start="2013-01")
WINDOW = SCHEDULE.window("2013-10")
LABEL = Label(column="late", known_at="landed_at", maturity_days=2)
MATURE = WINDOW.end + timedelta(days=2)
ROWS = 600


def predictions(rows=ROWS, **columns):
    ids = np.arange(rows)
    generator = np.random.default_rng(0)
    return pa.table(
        {
            "flight": ids,
            "probability": generator.random(rows).astype(np.float32),
            "model_version": ["3"] * rows,
            **columns,
        }
    )


def truth(rows=ROWS, **columns):
    generator = np.random.default_rng(0)
    # The scores above, so that a high score makes a late flight likelier.
    late = generator.random(rows) + generator.normal(0, 0.4, rows) > 0.6
    return pa.table(
        {
            "flight": np.arange(rows),
            "late": late,
            "landed_at": pa.array([WINDOW.start + timedelta(hours=1)] * rows, KNOWN),
            **columns,
        }
    )


KNOWN = pa.timestamp("us", tz="UTC")


def measured(made=None, facts=None, as_of=MATURE, **more) -> Performance:
    return measure(
        model="flight_delay",
        window=WINDOW,
        predictions=predictions() if made is None else made,
        truth=truth() if facts is None else facts,
        row_id="flight",
        label=LABEL,
        metric="roc_auc",
        as_of=as_of,
        resamples=200,
        **more,
    )


def test_metrics_are_those_of_the_matched_rows():
    report = measured()
    assert report.status is PerformanceStatus.MEASURED
    assert report.metrics == pytest.approx(
        evaluate(truth()["late"].to_numpy(), predictions()["probability"].to_numpy())
    )
    assert report.low < report.metrics["roc_auc"] < report.high
    assert report.model_versions == ("3",)
    assert (report.matched, report.unlabelled_predictions, report.unpredicted_labels) == (
        ROWS,
        0,
        0,
    )
    assert Performance.model_validate_json(report.model_dump_json()) == report


def test_order_and_id_type_have_no_influence():
    order = np.random.default_rng(1).permutation(ROWS)
    words = pa.array([str(n) for n in range(ROWS)])
    facts = truth().set_column(0, "flight", words).take(order)
    assert measured(facts=facts) == measured()


def test_unmatched_rows_are_counted_on_both_sides():
    made = predictions().slice(50)
    facts = truth(late=pa.array([None] * 100 + [True, False] * 250))
    report = measured(made, facts)
    assert report.predictions == ROWS - 50
    assert report.labels == ROWS - 100
    assert report.matched == ROWS - 100
    assert report.unlabelled_predictions == 50
    assert measured(predictions().slice(0, 550), facts).unpredicted_labels == 50


def test_truth_known_later_is_not_looked_at():
    late = [MATURE + timedelta(seconds=1)] * 200 + [MATURE] * 200 + [None] * 200
    report = measured(facts=truth(landed_at=pa.array(late, KNOWN)))
    assert report.labels == report.matched == 200
    assert report.unlabelled_predictions == 400


def test_truth_delivered_twice_counts_once_and_the_last_one_known_counts():
    first = truth(late=pa.array([False] * ROWS))
    corrected = truth(landed_at=pa.array([WINDOW.end] * ROWS, KNOWN))
    too_late = truth(
        late=pa.array([True] * ROWS), landed_at=pa.array([MATURE + timedelta(days=1)] * ROWS, KNOWN)
    )
    report = measured(facts=pa.concat_tables([corrected, first, corrected, too_late]))
    assert report.repeated_labels == 2 * ROWS
    assert report.metrics == measured().metrics


def test_window_counts_only_once_its_labels_are_complete():
    early = measured(as_of=MATURE - timedelta(microseconds=1))
    assert early.status is PerformanceStatus.NOT_MATURED
    assert early.metrics == {}
    assert early.low is None
    assert early.matched == ROWS
    windows = SCHEDULE.windows(datetime(2014, 1, 1, tzinfo=UTC))
    assert [w.key for w in matured(windows, LABEL, MATURE)][-1] == "2013-10"
    assert matured(windows, LABEL, MATURE - timedelta(seconds=1))[-1].key == "2013-09"


@pytest.mark.parametrize(
    ("made", "facts", "says"),
    [
        (predictions(0), truth(), "0 predictions have a known truth"),
        (predictions(), truth(0), "0 predictions have a known truth"),
        (predictions(1), truth(1), "1 predictions have a known truth"),
        (predictions(), truth(late=pa.array([None] * ROWS, pa.bool_())), "0 predictions"),
        (predictions(), truth(late=pa.array([True] * ROWS)), "both classes"),
        (predictions(probability=pa.array([None] * ROWS, pa.float32())), truth(), "not prob"),
        (predictions(probability=pa.array([np.nan] * ROWS)), truth(), "not prob"),
    ],
    ids=["no predictions", "no truth", "one row", "nulls", "one class", "null score", "nan score"],
)
def test_too_little_to_say_is_said(made, facts, says):
    report = measured(made, facts)
    assert report.status is PerformanceStatus.NOT_ENOUGH_DATA
    assert says in report.reason
    assert report.metrics == {}


def test_broken_tables_are_errors():
    twice = pa.concat_tables([predictions(), predictions(1)])
    with pytest.raises(DataError, match="name a row twice"):
        measured(twice)
    with pytest.raises(DataError, match="no column 'late'"):
        measured(facts=truth().drop_columns(["late"]))
    with pytest.raises(DataError, match="no column 'model_version'"):
        measured(predictions().drop_columns(["model_version"]))
