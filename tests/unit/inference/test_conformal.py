"""Prediction sets: the promised coverage holds, exactly, for any model and any number of rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.contracts.packages import Conformal
from aios_platform.errors import MetricError
from aios_platform.inference.conformal import (
    Answered,
    conformal_sets,
    covered_by,
    prediction_sets,
)

COVERAGES = st.sampled_from([0.55, 0.8, 0.9, 0.95, 0.99])
# A coarse grid, so that most examples have ties.
TIED = st.lists(st.integers(0, 10).map(lambda tenths: tenths / 10), min_size=2, max_size=30)
DISTINCT = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30, unique=True)


def answered(labels, probabilities, *windows):
    return Answered(np.array(labels, bool), np.array(probabilities, np.float32), windows)


def left_out(probabilities, label, coverage):
    """Share of rows covered when each in turn is the new one and the others calibrate."""
    covered = []
    for place, own in enumerate(probabilities):
        others = [*probabilities[:place], *probabilities[place + 1 :]]
        found = conformal_sets(
            coverage,
            # One row of the other class: it has a quantile of its own, and no say in this one.
            answered([label] * len(others) + [not label], [*others, 0.5], "a"),
            answered([label, not label], [own, 0.5], "b"),
        )
        covered.append(found.by_class[int(label)])
    return float(np.mean(covered))


@settings(max_examples=60, deadline=None)
@given(probabilities=st.one_of(TIED, DISTINCT), label=st.booleans(), coverage=COVERAGES)
def test_of_exchangeable_rows_at_least_the_coverage_is_covered(probabilities, label, coverage):
    # Every row is equally likely to be the new one: that is what exchangeable means, so this
    # mean is the coverage itself, not an estimate of it.
    assert left_out(probabilities, label, coverage) >= coverage - 1e-12


@settings(max_examples=40, deadline=None)
@given(probabilities=DISTINCT, label=st.booleans(), coverage=COVERAGES)
def test_without_ties_it_is_not_more_than_one_row_above(probabilities, label, coverage):
    values = [0.001 + 0.998 * value for value in probabilities]
    if len({np.float32(value) for value in values}) < len(values):
        return
    assert left_out(values, label, coverage) <= coverage + 1 / len(values) + 1e-12


def test_few_rows_of_a_class_rule_nothing_out_for_it():
    calibration = answered([False] * 19 + [True] * 18, [0.1] * 19 + [0.8] * 18, "a")
    found = conformal_sets(0.95, calibration, answered([False, True], [0.3, 0.2], "b"))
    # ⌈20 · 0.95⌉ = 19 of 19 negatives; ⌈19 · 0.95⌉ = 19 of 18 positives.
    assert found.negative == pytest.approx(0.1)
    assert found.positive == 1.0
    assert prediction_sets(np.float32([0.0, 0.05, 0.5, 1.0]), found).tolist() == [3, 3, 2, 2]


def test_each_class_has_its_own_coverage_however_rare():
    random = np.random.default_rng(0)

    def draw(rows, window):
        labels = random.random(rows) < 0.05
        logits = random.normal(np.where(labels, -1.5, -3), 1)
        return answered(labels, 1 / (1 + np.exp(-logits)), window)

    found = conformal_sets(0.9, draw(20_000, "a"), draw(20_000, "b"))
    assert found.by_class == pytest.approx((0.9, 0.9), abs=0.03)
    assert found.measured == pytest.approx(0.9, abs=0.02)
    assert found.calibrated_on == ("a",)
    assert found.measured_on == ("b",)
    assert found.rows == 20_000
    assert 0.2 < found.ambiguous < 0.9


def test_what_is_measured_is_what_the_sets_give():
    random = np.random.default_rng(1)
    labels = random.random(500) < 0.4
    rows = answered(labels, np.where(labels, 0.6, 0.4) + random.normal(0, 0.1, 500), "a")
    later = answered(labels, np.where(labels, 0.9, 0.1), "b")
    found = conformal_sets(0.8, rows, later)
    sets = prediction_sets(later.probabilities, found)
    assert found.measured == covered_by(sets, later.labels).mean()
    assert found.ambiguous == (sets == 3).mean()
    assert found.empty == (sets == 0).mean()


@settings(max_examples=60, deadline=None)
@given(probabilities=DISTINCT, coverage=COVERAGES)
def test_sets_are_the_same_after_the_quantiles_were_written_and_read(probabilities, coverage):
    labels = [place % 2 == 0 for place in range(len(probabilities))]
    rows = answered(labels, probabilities, "a")
    found = conformal_sets(coverage, rows, rows)
    read = Conformal.model_validate_json(found.model_dump_json())
    sets = prediction_sets(rows.probabilities, read)
    assert sets.dtype == np.uint8
    # The row that gives a quantile lies exactly on it, and is covered.
    assert np.array_equal(sets, prediction_sets(rows.probabilities, found))
    assert covered_by(sets, rows.labels).mean() == found.measured


def test_an_answer_that_is_not_a_number_has_no_label():
    both = answered([False, True], [0.2, 0.8], "a")
    found = conformal_sets(0.9, both, both)
    assert prediction_sets(np.float32([np.nan, 0.5]), found).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([True, True], [0.5, 0.5], "2 of them positive; both classes"),
        ([], [], "have 0 labels"),
        ([True, False], [0.5, np.nan], "are not probabilities"),
        ([True, False], [0.5, 1.5], "are not probabilities"),
    ],
)
def test_rows_that_promise_nothing_are_refused(labels, probabilities, message):
    good = answered([False, True], [0.2, 0.8], "a")
    bad = answered(labels, probabilities, "b")
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(MetricError, match=message):
            conformal_sets(0.9, *pair)
