"""Metrics of classifiers that give a probability of each of several classes.

All functions take checked input: class codes, shape (n,), and rows of probabilities, shape
(n, classes). Of equally likely classes the first is the model's answer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios_platform.errors import MetricError
from aios_platform.metrics.binary import PROBABILITY_EPSILON, mann_whitney
from aios_platform.metrics.binning import binned_ece, binned_ece_debiased, binned_reliability
from aios_platform.metrics.checks import Codes, Labels, Scores


def require_every_class(codes: Codes, scores: Scores) -> None:
    """Refuse rows in which a class lacks: averages over classes are undefined then.

    Raises:
        MetricError: A column of the scores has no row of its class.
    """
    missing = np.flatnonzero(np.bincount(codes, minlength=scores.shape[1]) == 0)
    if missing.size:
        raise MetricError(
            f"No row is of class {missing[0]} ({missing.size:,} of {scores.shape[1]} classes have "
            "no row); roc_auc and macro_f1 need every class.",
            remedy="Take more rows, or windows in which every class occurs.",
        )


def log_losses(codes: Codes, scores: Scores) -> Scores:
    """Negative log-likelihood of each row, shape (n,), nats; bounded as in the binary case."""
    of_truth = scores[np.arange(codes.size), codes]
    losses: Scores = -np.log(np.clip(of_truth, PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON))
    return losses


def squared_errors(codes: Codes, scores: Scores) -> Scores:
    """Sum over classes of the squared error of each row, shape (n,), from 0 to 2 (Brier 1950)."""
    of_truth = scores[np.arange(codes.size), codes]
    errors: Scores = (scores**2).sum(axis=1) - 2 * of_truth + 1
    return errors


def correct(codes: Codes, scores: Scores) -> Labels:
    """Whether the likeliest class is the true one, shape (n,)."""
    right: Labels = scores.argmax(axis=1) == codes
    return right


def accuracy(codes: Codes, scores: Scores) -> float:
    """Share of rows whose likeliest class is the true one."""
    return float(correct(codes, scores).mean())


def macro_f1(codes: Codes, scores: Scores) -> float:
    """Unweighted mean over classes of F1; a class that is never answered has 0.

    The mean of the classes' F1, not the F1 of mean precision and recall (Opitz and Burst 2019).

    Raises:
        MetricError: A class has no row.
    """
    require_every_class(codes, scores)
    classes = scores.shape[1]
    answered = scores.argmax(axis=1)
    return f1_of_counts(
        np.bincount(codes[answered == codes], minlength=classes),
        np.bincount(codes, minlength=classes),
        np.bincount(answered, minlength=classes),
    )


def f1_of_counts(hits: NDArray[Any], actual: NDArray[Any], answered: NDArray[Any]) -> float:
    """Mean F1 from rows found, rows there and rows answered of each class, shape (classes,)."""
    return float((2 * hits / (actual + answered)).mean())


def roc_auc(codes: Codes, scores: Scores) -> float:
    """Unweighted mean over classes of the ROC AUC of that class against all others.

    Source: Provost and Domingos (2000), here without weights, as in scikit-learn's
    `roc_auc_score(multi_class="ovr", average="macro")`.

    Raises:
        MetricError: A class has no row.
    """
    require_every_class(codes, scores)
    classes = range(scores.shape[1])
    return float(np.mean([mann_whitney(codes == each, scores[:, each]) for each in classes]))


def ece(codes: Codes, scores: Scores) -> float:
    """Calibration error of the top label: its probability against how often it is right.

    Source: Guo et al. (2017), with equal-mass bins.
    """
    return binned_ece(correct(codes, scores), scores.max(axis=1))


def ece_debiased(codes: Codes, scores: Scores) -> float:
    """Calibration error of the top label, less its bias; see `metrics.binning.debiased`."""
    return binned_ece_debiased(correct(codes, scores), scores.max(axis=1))


def reliability(codes: Codes, scores: Scores) -> float:
    """Squared calibration error of the top label, debiased; see `binary.reliability`."""
    return binned_reliability(correct(codes, scores), scores.max(axis=1))


METRICS: dict[str, Callable[[Codes, Scores], float]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "roc_auc": roc_auc,
    "log_loss": lambda codes, scores: float(log_losses(codes, scores).mean()),
    "brier": lambda codes, scores: float(squared_errors(codes, scores).mean()),
    "ece": ece,
    "ece_debiased": ece_debiased,
    "reliability": reliability,
}
