"""Calibration. Of a binary model: probability = sigmoid(slope · logit + intercept) (Platt 1999).

Windows differ in how often the label is true for reasons that no feature shows. A plain Platt fit
on the last window or two takes that window's luck for the network's fault: on the flights of 2013
it raised the calibration error of Oct-Dec from 0.006 to 0.015. So the slope is fitted on held-out
rows, beside an intercept for each held-out window that is then thrown away; and the intercept that
is kept makes the mean probability right over the longest stretch there is, all labelled windows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios_platform.errors import TrainingError

STEPS = 100
TOLERANCE = 1e-10
RIDGE = 1e-9
FARTHEST = 5.0
"""Largest |log| of a temperature that is looked for."""


def fit_slope(
    logits: NDArray[np.float64], labels: NDArray[np.bool_], windows: NDArray[np.object_]
) -> float:
    """The slope, with one nuisance intercept per window.

    Args:
        logits: Shape (n,), of rows that the network has not learnt from.
        labels: Shape (n,).
        windows: Shape (n,), the window of each row.

    Raises:
        TrainingError: No window has both classes, or the logits do not rank the labels (the slope
            is not above 0).
    """
    columns = []
    for window in np.unique(windows):
        inside = windows == window
        if 0 < labels[inside].mean() < 1:
            columns.append(inside.astype(np.float64))
    if not columns:
        raise TrainingError(
            "No held-out window has labels of both classes.",
            remedy="Train on more windows, or raise training.validation_windows.",
        )
    usable = np.sum(columns, axis=0) > 0
    # Standardised, so that the curvature is well conditioned whatever the scale of the logits.
    center, scale = float(logits[usable].mean()), float(logits[usable].std()) or 1.0
    design = np.column_stack([(logits - center) / scale, *columns])[usable]
    slope = float(_logistic(design, labels[usable])[0]) / scale
    if not slope > 0:
        raise TrainingError(
            f"The network does not rank held-out rows: calibration gave a slope of {slope:.3f}.",
            remedy="Look at the training log; there may be no signal in the features.",
        )
    return slope


def fit_intercept(logits: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """The intercept that makes the mean probability equal the share of positives.

    Args:
        logits: Shape (n,), already times the slope.
        labels: Shape (n,), of both classes.
    """
    return float(_logistic(np.ones((labels.size, 1)), labels, offset=logits)[0])


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """The factor of the logits that makes held-out log loss least, 1 / temperature.

    Guo et al. (2017, "On Calibration of Modern Neural Networks").

    Args:
        logits: Shape (n, classes), of rows that the network has not learnt from.
        labels: Codes, shape (n,).

    Raises:
        TrainingError: The logits do not tell the classes apart.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    own = logits[np.arange(len(labels)), labels]

    def loss(exponent: float) -> float:
        slope = float(np.exp(exponent))
        return float((logsumexp(slope * logits, axis=1) - slope * own).mean())

    found = minimize_scalar(loss, bounds=(-FARTHEST, FARTHEST), method="bounded")
    slope = float(np.exp(found.x))
    if not loss(found.x) < np.log(logits.shape[1]):
        raise TrainingError(
            "The network does not tell the classes of held-out rows apart: the best factor of its "
            f"logits is {slope:.3f}.",
            remedy="Look at the training log; there may be no signal in the features.",
        )
    return slope


def fit_offsets(
    predicted: NDArray[np.float64], truth: NDArray[np.float64], levels: Sequence[float]
) -> tuple[float, ...]:
    """What to add to each quantile, so that its share of held-out rows is below it.

    The split-conformal shift of Romano, Patterson and Candes (2019, "Conformalized Quantile
    Regression"), for each level by itself.

    Args:
        predicted: Shape (n, levels), of rows that the network has not learnt from.
        truth: Shape (n,).
        levels: Rising levels within (0, 1).
    """
    rows = len(truth)
    offsets = []
    for place, level in enumerate(levels):
        rank = min(max(int(np.ceil(level * (rows + 1))), 1), rows)
        offsets.append(float(np.partition(truth - predicted[:, place], rank - 1)[rank - 1]))
    return tuple(offsets)


def _logistic(
    design: NDArray[np.float64],
    labels: NDArray[np.bool_],
    offset: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Weights of a logistic regression, by Newton's method."""
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):
        probability = 1 / (1 + np.exp(-(design @ weights + offset)))
        gradient = design.T @ (probability - labels)
        curvature = design.T @ (design * (probability * (1 - probability))[:, None])
        step = np.linalg.solve(curvature + RIDGE * np.eye(weights.size), gradient)
        largest = float(np.abs(step).max())
        # A bounded step cannot overshoot to where all probabilities are 0 or 1.
        weights -= step * min(1.0, 1.0 / (largest or 1.0))
        if largest < TOLERANCE:
            break
    return weights
