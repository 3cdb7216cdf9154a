"""Platt scaling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.errors import TrainingError
from aios_platform.metrics import ece, log_loss
from aios_platform.training.calibration import fit_intercept, fit_slope


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def rows(seed, shifts, size=20_000):
    """True logits of windows whose base rates differ, and labels drawn from them."""
    random = np.random.default_rng(seed)
    windows = np.repeat(np.arange(len(shifts)), size).astype(object)
    truth = random.normal(0, 1.5, windows.size)
    shifted = truth + np.repeat(shifts, size)
    return truth, random.random(windows.size) < sigmoid(shifted), windows


@settings(max_examples=20, deadline=None)
@given(
    slope=st.floats(0.2, 5),
    offset=st.floats(-3, 3),
    shifts=st.lists(st.floats(-1, 1), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_the_slope_is_found_whatever_the_base_rates_of_windows(slope, offset, shifts, seed):
    truth, labels, windows = rows(seed, shifts)
    found = fit_slope((truth - offset) / slope, labels, windows)
    assert found == pytest.approx(slope, rel=0.1)


@settings(max_examples=20, deadline=None)
@given(logits=st.lists(st.floats(-30, 30), min_size=2, max_size=50), data=st.data())
def test_the_intercept_makes_the_mean_right(logits, data):
    values = np.array(logits)
    positives = data.draw(st.integers(1, values.size - 1))
    labels = np.arange(values.size) < positives
    intercept = fit_intercept(values, labels)
    assert sigmoid(values + intercept).mean() == pytest.approx(labels.mean(), abs=1e-4)


def test_calibration_lowers_loss_and_error_of_an_overconfident_network():
    truth, labels, windows = rows(1, [0, 0])
    logits = 3 * truth + 1
    slope = fit_slope(logits, labels, windows)
    before = sigmoid(logits)
    after = sigmoid(slope * logits + fit_intercept(slope * logits, labels))
    assert log_loss(labels, after) < log_loss(labels, before)
    assert ece(labels, after) < 0.02 < ece(labels, before)


def test_one_odd_window_does_not_move_the_probabilities_of_all():
    truth, labels, windows = rows(2, [0, 0, 0, 0, 0, 0, 0, -1], size=5000)
    held_out = windows == 7
    slope = fit_slope(truth[held_out], labels[held_out], windows[held_out])
    probabilities = sigmoid(slope * truth + fit_intercept(slope * truth, labels))
    assert ece(labels[~held_out], probabilities[~held_out]) < 0.03


def test_one_class_is_refused():
    with pytest.raises(TrainingError, match="both classes"):
        fit_slope(np.array([0.1, 0.2]), np.array([True, True]), np.array(["a", "a"], dtype=object))


def test_a_network_that_ranks_backwards_is_refused():
    truth, labels, windows = rows(3, [0])
    with pytest.raises(TrainingError, match="does not rank"):
        fit_slope(-truth, labels, windows)
