"""Predictions meet the truth that was known by a time."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.declaration import Label
from aios_platform.contracts.windows import Every, WindowSchedule
from aios_platform.errors import DataError
from aios_platform.metrics import evaluate
from aios_platform.monitoring.performance import (
    Performance,
    PerformanceStatus,
    matured,
    measure,
    restate,
)

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


def test_labels_before_their_predictions_wait_and_then_count():
    """A truth may be delivered before its row was scored; it is counted, and later matched."""
    none_yet = measured(predictions(0))
    assert (none_yet.matched, none_yet.unpredicted_labels) == (0, ROWS)
    scored = measured(predictions(300))
    assert (scored.matched, scored.unpredicted_labels) == (300, ROWS - 300)


def test_a_truth_that_was_known_when_it_was_predicted_proves_nothing():
    asked = pa.array([WINDOW.start] * 400 + [WINDOW.start + timedelta(hours=2)] * 200, KNOWN)
    report = measured(predictions(prediction_time=asked))
    assert (report.premature_labels, report.matched) == (200, 400)
    first = slice(0, 400)
    assert report.metrics == pytest.approx(
        evaluate(truth()["late"].to_numpy()[first], predictions()["probability"].to_numpy()[first])
    )


def test_labels_for_unknown_ids_are_counted_and_left_out():
    strangers = truth(flight=np.arange(ROWS) + 10_000)
    report = measured(facts=pa.concat_tables([truth(), strangers]))
    assert report.unpredicted_labels == ROWS
    assert report.metrics == measured().metrics


def test_contradictory_labels_are_left_out_and_corrections_are_not():
    facts = truth()
    late = facts["late"].to_pylist()
    turned = pa.array([not value for value in late])
    contradiction = truth(late=turned).slice(0, 100)
    earlier = truth(
        late=turned, landed_at=pa.array([WINDOW.start] * ROWS, KNOWN)
    ).slice(100, 50)  # fmt: skip
    report = measured(facts=pa.concat_tables([contradiction, facts, earlier]))
    assert report.contradictory_labels == 100
    assert report.corrected_labels == 50
    assert report.matched == ROWS - 100
    rest = slice(100, None)
    assert report.metrics == pytest.approx(
        evaluate(np.array(late)[rest], predictions()["probability"].to_numpy()[rest])
    )


def test_slices_are_measured_on_their_own_rows():
    inside = np.arange(ROWS) % 3 == 0
    few = np.arange(ROWS) < 20
    facts = truth().slice(30)
    report = measured(
        facts=facts,
        slices={"origin=JFK": inside, "origin=LGA": ~inside, "tiny": few},
        min_slice_rows=50,
    )
    assert set(report.by_slice) == {"origin=JFK", "origin=LGA"}
    jfk = report.by_slice["origin=JFK"]
    chosen = inside & (np.arange(ROWS) >= 30)
    expected = evaluate(
        truth()["late"].to_numpy()[chosen], predictions()["probability"].to_numpy()[chosen]
    )
    assert jfk.rows == chosen.sum()
    assert jfk.value == pytest.approx(expected["roc_auc"])
    assert jfk.low < jfk.value < jfk.high
    assert Performance.model_validate_json(report.model_dump_json()) == report


def test_figures_are_restated_only_when_something_changed():
    early = measured(as_of=MATURE - timedelta(days=1))
    first = restate(early, measured())
    assert (first.revision, first.restated) == (2, "status not_matured -> measured")
    assert restate(first, measured(as_of=MATURE + timedelta(days=9))) == first
    late = ["2"] * ROWS
    second = restate(first, measured(predictions(model_version=late).slice(9)))
    assert second.revision == 3
    assert second.restated.startswith("version 3 -> 2; predictions 600 -> 591; matched 600 -> 591")
    assert first.metrics == measured().metrics
