"""Metrics of binary and multiclass classifiers and of regressions.

Training, the gate and monitoring all compute their figures here, so that a value on an exam and
a value in production mean the same thing. Every function refuses input from which no honest
figure can be had (`MetricError`): no metric is ever NaN.
"""

from aios_platform.metrics.added import AddedMetric, added_statistic, is_added, shown
from aios_platform.metrics.binary import (
    ACCURACY_THRESHOLD,
    PROBABILITY_EPSILON,
    accuracy,
    brier,
    ece,
    ece_debiased,
    log_loss,
    log_losses,
    pr_auc,
    reliability,
    roc_auc,
    squared_errors,
)
from aios_platform.metrics.binning import ECE_BINS, calibration_bins
from aios_platform.metrics.calibration import (
    BrierDecomposition,
    ReliabilityCurve,
    brier_decomposition,
    reliability_curve,
)
from aios_platform.metrics.checks import Codes, Labels, Scores, checked_labels, checked_scores
from aios_platform.metrics.registry import (
    BINARY,
    LESS_IS_BETTER,
    METRICS,
    METRICS_OF,
    ON_REQUEST,
    checked,
    checked_answers,
    computable,
    evaluate,
    evaluate_by,
    gain,
    judgeable,
    less_is_better,
    metric_of,
)

__all__ = [
    "ACCURACY_THRESHOLD",
    "BINARY",
    "ECE_BINS",
    "LESS_IS_BETTER",
    "METRICS",
    "METRICS_OF",
    "ON_REQUEST",
    "PROBABILITY_EPSILON",
    "AddedMetric",
    "BrierDecomposition",
    "Codes",
    "Labels",
    "ReliabilityCurve",
    "Scores",
    "accuracy",
    "added_statistic",
    "brier",
    "brier_decomposition",
    "calibration_bins",
    "checked",
    "checked_answers",
    "checked_labels",
    "checked_scores",
    "computable",
    "ece",
    "ece_debiased",
    "evaluate",
    "evaluate_by",
    "gain",
    "is_added",
    "judgeable",
    "less_is_better",
    "log_loss",
    "log_losses",
    "metric_of",
    "pr_auc",
    "reliability",
    "reliability_curve",
    "roc_auc",
    "shown",
    "squared_errors",
]
