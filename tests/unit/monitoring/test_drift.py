"""Drift of a window: alarms where there is drift, and none where there is too little to say."""

import math

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.contracts.surveillance import Monitoring
from aios_platform.errors import DataError
from aios_platform.monitoring.drift import DriftReport, DriftStatus, detect, prediction_bins
from aios_platform.monitoring.psi import reference_bins

FIELDS = (
    FeatureField(name="speed", kind=FieldKind.NUMERICAL, origin="weather"),
    FeatureField(name="carrier", kind=FieldKind.CATEGORICAL, origin="request"),
)


def frame(rows, seed, shift=0.0, carriers="ABCD"):
    generator = np.random.default_rng(seed)
    return pa.table(
        {
            "speed": pa.array(
                generator.normal(shift, 1, rows).astype(np.float32),
                mask=generator.random(rows) < 0.1,
            ),
            "carrier": pa.array(generator.choice(list(carriers), rows), pa.string()),
        }
    )


REFERENCE = reference_bins(frame(20_000, 0), FIELDS)


def found(table, reference=REFERENCE, **more) -> DriftReport:
    return detect(
        model="flight_delay",
        window="2013-10",
        frame=table,
        reference=reference,
        monitoring=Monitoring(drift_psi=0.2, drift_share=0.5),
        **more,
    )


def statuses(report):
    return [feature.status for feature in report.features]


def test_same_distribution_is_stable():
    report = found(frame(3000, 1))
    assert report.status is DriftStatus.STABLE
    assert report.drifted == ()
    assert report.share == 0
    assert all(value < 0.05 for value in report.figures.values())


def test_shifted_and_new_values_are_named_the_worst_first():
    report = found(frame(3000, 1, shift=1, carriers="XYZ"))
    assert report.status is DriftStatus.DRIFTED
    assert report.drifted == ("carrier", "speed")
    assert report.share == 1


def test_half_of_the_features_is_within_the_bound_of_a_half():
    report = found(frame(3000, 1, shift=1))
    assert report.drifted == ("speed",)
    assert report.share == 0.5
    assert report.status is DriftStatus.STABLE


@pytest.mark.parametrize("rows", [0, 1, 20])
@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_too_few_rows_say_so_and_raise_no_alarm(rows, shift):
    report = found(frame(rows, 1, shift=shift))
    assert report.status is DriftStatus.NOT_ENOUGH_DATA
    assert statuses(report) == [DriftStatus.NOT_ENOUGH_DATA] * 2
    assert report.drifted == ()
    assert report.share is None
    assert report.figures == {}
    assert f"With {rows} rows" in report.reason


def test_column_that_was_and_is_constant_is_stable():
    table = frame(3000, 1).set_column(0, "speed", pa.array(np.full(3000, 7.0)))
    report = found(table, reference_bins(table, FIELDS))
    assert statuses(report) == [DriftStatus.STABLE] * 2


def test_column_that_became_constant_drifted():
    report = found(frame(3000, 1).set_column(0, "speed", pa.array(np.full(3000, 0.1))))
    assert report.drifted == ("speed",)


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_column_without_any_value_in_the_reference_is_not_judged(nothing):
    empty = pa.array([nothing] * 3000, pa.float32())
    table = frame(3000, 1).set_column(0, "speed", empty)
    reference = reference_bins(table, FIELDS)
    for window in (table, frame(3000, 2)):
        report = found(window, reference)
        assert statuses(report) == [DriftStatus.NOT_ENOUGH_DATA, DriftStatus.STABLE]
        assert report.status is DriftStatus.STABLE


def test_values_that_stopped_coming_are_an_alarm():
    table = frame(3000, 1).set_column(0, "speed", pa.array([None] * 3000, pa.float32()))
    report = found(table)
    assert report.drifted == ("speed",)
    assert report.features[0].missing == 1
    assert report.features[0].reference_missing == pytest.approx(0.1, abs=0.01)
    assert "Every value is missing" in report.features[0].reason


def test_null_typed_columns_of_an_empty_delivery():
    table = pa.table({"speed": pa.nulls(500), "carrier": pa.nulls(500)})
    assert found(table).drifted == ("carrier", "speed")
    assert found(table.slice(0, 0)).status is DriftStatus.NOT_ENOUGH_DATA


def test_empty_reference_judges_nothing():
    report = found(frame(3000, 1), reference_bins(frame(0, 0), FIELDS))
    assert report.status is DriftStatus.NOT_ENOUGH_DATA


def test_missing_column_is_an_error_that_names_it():
    with pytest.raises(DataError, match="lacks the columns carrier"):
        found(frame(100, 1).drop_columns(["carrier"]))


def test_predictions_are_compared_beside_the_features():
    generator = np.random.default_rng(0)
    bins = prediction_bins(generator.beta(2, 6, 20_000))
    for parameters, status in [((2, 6), DriftStatus.STABLE), ((6, 2), DriftStatus.DRIFTED)]:
        predictions = pa.table({"probability": generator.beta(*parameters, 3000)})
        report = found(frame(3000, 1), predictions=predictions, prediction_reference=bins)
        assert report.prediction is not None
        assert report.prediction.status is status
        assert report.status is DriftStatus.STABLE
        assert "probability" in report.figures
    assert found(frame(3000, 1)).prediction is None


def test_report_survives_json():
    report = found(frame(3000, 1, shift=1))
    assert DriftReport.model_validate_json(report.model_dump_json()) == report


SAMPLE = frame(5000, 0)


def with_tests(table, **more) -> DriftReport:
    return found(table, reference_sample=SAMPLE, **more)


def test_each_feature_has_its_effect_sizes_and_its_adjusted_p_value():
    report = with_tests(frame(3000, 1, shift=1, carriers="ABXY"))
    speed, carrier = report.features
    assert speed.wasserstein == pytest.approx(1, abs=0.1)
    assert carrier.wasserstein is None
    assert all(0 < feature.jensen_shannon < 1 for feature in report.features)
    assert all(feature.p_value <= feature.adjusted_p < 1e-6 for feature in report.features)
    assert report.drifted == ("carrier", "speed")
    assert with_tests(frame(3000, 1, shift=1, carriers="ABXY")) == report


def test_without_drift_hardly_a_feature_is_discovered():
    names = [f"x{n}" for n in range(40)]
    fields = [FeatureField(name=n, kind=FieldKind.NUMERICAL, origin="request") for n in names]

    def normal(seed):
        values = np.random.default_rng(seed).normal(size=(40, 4000))
        return pa.table(dict(zip(names, values, strict=True)))

    reference = reference_bins(normal(0), fields)
    discovered = 0
    for seed in range(1, 6):
        report = found(normal(seed), reference, reference_sample=normal(0))
        assert report.drifted == ()
        discovered += sum(feature.adjusted_p < 0.05 for feature in report.features)
    assert discovered <= 4, "of 200"


def test_a_change_in_missing_values_alone_is_seen_by_the_test():
    table = frame(3000, 1)
    fewer = pa.array(np.random.default_rng(5).random(3000) < 0.4)
    thinned = table.set_column(
        0, "speed", pa.chunked_array([pa.array([
            None if gone else value
            for value, gone in zip(table["speed"].to_pylist(), fewer.to_pylist(), strict=True)
        ], pa.float32())]),
    )  # fmt: skip
    assert with_tests(table).features[0].adjusted_p > 0.01
    assert with_tests(thinned).features[0].adjusted_p < 1e-6


@pytest.mark.parametrize(("speed", "status"), [(0.05, "stable"), (0.6, "drifted")])
def test_the_window_is_judged_by_what_the_model_uses(speed, status):
    report = with_tests(frame(3000, 1, shift=1), importance={"speed": speed, "carrier": 1 - speed})
    assert report.drifted == ("speed",)
    assert report.weighted_share == pytest.approx(speed)
    assert report.status == status
    assert "of what the model uses" in report.reason


@pytest.mark.parametrize("rows", [0, 3, 29])
def test_a_handful_of_rows_is_not_tested(rows):
    report = with_tests(frame(rows, 1, shift=9), importance={"speed": 1.0, "carrier": 0.0})
    assert statuses(report) == [DriftStatus.NOT_ENOUGH_DATA] * 2
    assert all(feature.p_value is None for feature in report.features)
    assert report.weighted_share is None


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_constant_and_empty_columns_and_unseen_categories_are_tested_without_an_error(nothing):
    table = frame(3000, 1, carriers="XYZ")
    empty = table.set_column(0, "speed", pa.array([nothing] * 3000, pa.float32()))
    constant = table.set_column(0, "speed", pa.array(np.full(3000, 0.1)))
    for window in (empty, constant):
        report = with_tests(window)
        assert set(report.drifted) == {"speed", "carrier"}
        assert all(feature.adjusted_p < 1e-6 for feature in report.features)
    assert (
        found(empty, reference_sample=empty, reference=reference_bins(empty, FIELDS)).drifted == ()
    )
