"""Performance without labels: what the scores themselves promise, until the truth is known.

Confidence-based performance estimation (Kivimäki, Białek, Nurminen and Kuberski 2025,
Confidence-based Estimators for Predictive Performance in Model Monitoring, JAIR 82): a calibrated
score is the chance that its row is positive, and so says how often the model will be right. It
holds while outcomes given the scores stay as they were. It follows a change of the rows (more hard
ones) and is blind to a change of the world (the same rows, other outcomes): a measured value
outside the interval says that the world changed.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from aios_platform.contracts.record import Record
from aios_platform.errors import MetricError
from aios_platform.metrics import (
    ACCURACY_THRESHOLD,
    PROBABILITY_EPSILON,
    checked,
    checked_scores,
)

ESTIMATED = ("roc_auc", "accuracy", "brier", "log_loss")
DRAWS = 200
MIN_ROWS = 100
Numbers = NDArray[np.float64]


class Calibration(Record):
    """Outcomes given scores: logit P(positive) = intercept + slope · logit(score).

    Source: Cox (1958), Two further applications of a model for binary regression. A model that is
    calibrated already has intercept 0 and slope 1.
    """

    intercept: float
    slope: float
    covariance: tuple[float, float, float] = Field(
        description="Variance of the intercept, covariance, variance of the slope."
    )
    rows: int = Field(ge=1)
    windows: tuple[str, ...] = Field(description="Where the outcomes come from.")

    def chances(self, logits: Numbers, intercept: float = 0.0, slope: float = 0.0) -> Numbers:
        """Chance of a positive by logit of the score; the offsets are added to the parameters."""
        strength = self.intercept + intercept + (self.slope + slope) * logits
        return np.asarray(1 / (1 + np.exp(-np.clip(strength, -35, 35))))


class MetricEstimate(Record):
    """An estimated metric, and where the measured value will lie."""

    value: float
    low: float
    high: float


class Estimate(Record):
    """What can be expected of the predictions of one window."""

    model_version: str
    rows: int = Field(ge=1)
    metrics: dict[str, MetricEstimate]
    base_rate: MetricEstimate = Field(description="Share of positives.")
    confidence: float
    calibrated_on: tuple[str, ...]
    predictions_digest: str = Field(description="Of the predictions it was made from.")


class EstimateScore(Record):
    """How good an estimate turned out to be."""

    metric: str
    estimated: float
    measured: float
    error: float = Field(description="Measured minus estimated.")
    inside: bool = Field(description="The measured value lies in the estimated interval.")


def calibrate(labels: ArrayLike, scores: ArrayLike, *, windows: tuple[str, ...]) -> Calibration:
    """Fit outcomes to scores by maximum likelihood (Newton's method).

    Args:
        labels: Shape (n,), bool or 0 and 1; both must occur.
        scores: Shape (n,), probabilities.
        windows: Where the rows come from.

    Raises:
        MetricError: There are too few rows, only one class, or scores without any order.
    """
    truth, values = checked(labels, scores)
    x = np.stack([np.ones(values.size), _logits(values)])
    if truth.size < MIN_ROWS or truth.all() or not truth.any() or not x[1].std() > 0:
        raise MetricError(
            f"Outcomes cannot be fitted to the scores of {truth.size:,} rows.",
            remedy=f"Take {MIN_ROWS} rows or more, with both outcomes and different scores.",
        )
    beta = np.array([0.0, 1.0])
    information = np.eye(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(beta @ x, -35, 35)))
        information = (x * (p * (1 - p))) @ x.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(information, x @ (truth - p))
        beta = beta + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    if not np.isfinite(beta).all():
        raise MetricError("Outcomes cannot be fitted to the scores.", remedy="Take more rows.")
    covariance = np.linalg.inv(information)
    return Calibration(
        intercept=float(beta[0]),
        slope=float(beta[1]),
        covariance=(float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])),
        rows=truth.size,
        windows=windows,
    )


def estimate(
    scores: ArrayLike,
    calibration: Calibration,
    *,
    model_version: str,
    predictions_digest: str,
    seed: int,
    confidence: float = 0.95,
    draws: int = DRAWS,
) -> Estimate:
    """Estimate the metrics of a window from its scores alone.

    The interval is for the value that will be *measured*: outcomes are drawn by their chances, and
    the chances by what the calibration's own rows leave open.

    Args:
        scores: Shape (n,), probabilities.
        calibration: Outcomes given scores, from other rows.
        model_version: The version that gave the scores.
        predictions_digest: Digest of the predictions.
        seed: Of the draws.
        confidence: Two-sided confidence of the intervals.
        draws: Number of draws.

    Raises:
        MetricError: There are too few scores, or one is not a probability.
    """
    given = np.asarray(scores, dtype=np.float64)
    if given.size < MIN_ROWS:
        raise MetricError(
            f"{given.size:,} predictions are too few to estimate from; {MIN_ROWS} are needed.",
            remedy="Wait for the labels.",
        )
    values = np.sort(checked_scores(given, given.size))
    logits = _logits(values)
    generator = np.random.default_rng(seed)
    one, both, other = calibration.covariance
    offsets = generator.multivariate_normal([0, 0], [[one, both], [both, other]], draws)
    ranks = _ranks(values)
    drawn = []
    for intercept, slope in offsets:
        chances = calibration.chances(logits, intercept, slope)
        truth = generator.random(values.size) < chances
        if truth.any() and not truth.all():
            drawn.append(_measured(values, ranks, truth))
    tail = (1 - confidence) / 2
    expected = _expected(values, logits, calibration)
    metrics = {
        name: _interval(expected[name], np.array([each[name] for each in drawn]), tail)
        for name in (*ESTIMATED, "base_rate")
    }
    base_rate = metrics.pop("base_rate")
    return Estimate(
        model_version=model_version,
        rows=values.size,
        metrics=metrics,
        base_rate=base_rate,
        confidence=confidence,
        calibrated_on=calibration.windows,
        predictions_digest=predictions_digest,
    )


def score_estimate(found: Estimate, measured: Mapping[str, float]) -> dict[str, EstimateScore]:
    """Hold an estimate against the metrics that were measured later, by metric."""
    return {
        name: EstimateScore(
            metric=name,
            estimated=each.value,
            measured=measured[name],
            error=measured[name] - each.value,
            inside=each.low <= measured[name] <= each.high,
        )
        for name, each in found.metrics.items()
        if name in measured
    }


def _expected(values: Numbers, logits: Numbers, calibration: Calibration) -> dict[str, float]:
    p = calibration.chances(logits)
    positive = values >= ACCURACY_THRESHOLD
    return {
        "roc_auc": _expected_auc(values, p),
        "accuracy": float(np.where(positive, p, 1 - p).mean()),
        "brier": float((values**2 - 2 * values * p + p).mean()),
        "log_loss": float(_losses(values, p).mean()),
        "base_rate": float(p.mean()),
    }


def _expected_auc(values: Numbers, p: Numbers) -> float:
    """Chance that a positive row has a higher score than a negative one; scores ascend."""
    q = 1 - p
    starts = np.flatnonzero(np.concatenate([[True], np.diff(values) > 0]))
    p_of, q_of = np.add.reduceat(p, starts), np.add.reduceat(q, starts)
    below = np.concatenate([[0.0], np.cumsum(q_of)[:-1]])
    # A row is never a pair with itself.
    own = float((p * q).sum())
    won = float((p_of * (below + q_of / 2)).sum()) - own / 2
    return won / (float(p.sum() * q.sum()) - own)


def _ranks(values: Numbers) -> Numbers:
    """Rank of each value from 1, equal ones sharing their mean; the values ascend."""
    starts = np.flatnonzero(np.concatenate([[True], np.diff(values) > 0]))
    ends = np.append(starts[1:], values.size)
    return np.repeat((starts + 1 + ends) / 2, ends - starts)


def _measured(values: Numbers, ranks: Numbers, truth: NDArray[np.bool_]) -> dict[str, float]:
    """What would be measured if these were the outcomes."""
    positive, y = int(truth.sum()), truth.astype(np.float64)
    won = float(ranks[truth].sum()) - positive * (positive + 1) / 2
    return {
        "roc_auc": won / (positive * (truth.size - positive)),
        "accuracy": float(((values >= ACCURACY_THRESHOLD) == truth).mean()),
        "brier": float(((values - y) ** 2).mean()),
        "log_loss": float(_losses(values, y).mean()),
        "base_rate": float(y.mean()),
    }


def _losses(values: Numbers, p: Numbers) -> Numbers:
    clipped = np.clip(values, PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)
    return np.asarray(-(p * np.log(clipped) + (1 - p) * np.log1p(-clipped)))


def _logits(values: Numbers) -> Numbers:
    # Far from 0 and 1: one certain score must not decide the slope.
    clipped = np.clip(values, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _interval(value: float, draws: Numbers, tail: float) -> MetricEstimate:
    if not draws.size:
        raise MetricError(
            "Every draw of outcomes has one class only.", remedy="Wait for the labels."
        )
    low, high = np.quantile(draws, [tail, 1 - tail])
    return MetricEstimate(value=value, low=float(low), high=float(high))
