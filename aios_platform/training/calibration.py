"""Platt scaling (Platt 1999): a logistic regression of the label on the logit."""

import numpy as np
from numpy.typing import NDArray

from aios_platform.errors import TrainingError

STEPS = 50
TOLERANCE = 1e-10


def fit_platt(logits: NDArray[np.float64], labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of `sigmoid(slope · logit + intercept)`, by Newton's method.

    Args:
        logits: Shape (n,), of rows that the network has not learnt from.
        labels: Shape (n,).

    Raises:
        TrainingError: The logits do not rank the labels at all (slope not above 0), or only one
            class occurs.
    """
    if not 0 < labels.mean() < 1:
        raise TrainingError(
            "The held-out rows have labels of one class only.",
            remedy="Train on more windows, or raise training.validation_windows.",
        )
    design = np.column_stack([logits, np.ones_like(logits)])
    weights = np.array([1.0, 0.0])
    for _ in range(STEPS):
        probability = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        gradient = design.T @ (probability - labels)
        curvature = design.T @ (design * (probability * (1 - probability))[:, None])
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        weights -= step
        if np.abs(step).max() < TOLERANCE:
            break
    slope, intercept = (float(value) for value in weights)
    if not (slope > 0 and np.isfinite(intercept)):
        raise TrainingError(
            f"The network does not rank held-out rows: calibration gave a slope of {slope:.3f}.",
            remedy="Look at the training log; there may be no signal in the features.",
        )
    return slope, intercept
