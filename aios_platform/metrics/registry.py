"""Which metrics each task has, and how all of them are computed of some rows."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from aios_platform.contracts.policy import Task
from aios_platform.errors import MetricError
from aios_platform.metrics import binary, multiclass, regression
from aios_platform.metrics.added import added_metric, greater_is_better, is_added
from aios_platform.metrics.checks import (
    checked_binary,
    checked_distributions,
    checked_multiclass,
    checked_predictions,
    checked_regression,
    checked_scores,
)

BINARY: Task = "binary_classification"
METRICS_OF: dict[Task, dict[str, Callable[[Any, Any], float]]] = {
    "binary_classification": binary.METRICS,
    "multiclass_classification": multiclass.METRICS,
    "regression": regression.METRICS,
}
METRICS = METRICS_OF[BINARY]
ON_REQUEST = frozenset(binary.ALERT_BUDGETS)
"""Metrics that are computed where a policy names them, and not otherwise."""
NEED_EVERY_CLASS = frozenset({"roc_auc", "macro_f1"})
"""Metrics of a multiclass task that are undefined where a class has no row."""
LESS_IS_BETTER = frozenset(
    {"log_loss", "brier", "ece", "ece_debiased", "reliability", "mae", "rmse"}
)

_CHECKS: dict[Task, Callable[[ArrayLike, ArrayLike], tuple[Any, Any]]] = {
    "binary_classification": checked_binary,
    "multiclass_classification": checked_multiclass,
    "regression": checked_regression,
}


def checked(labels: ArrayLike, scores: ArrayLike, *, task: Task = BINARY) -> tuple[Any, Any]:
    """Labels and scores of a task, checked against each other.

    Args:
        labels: Shape (n,): bool or 0 and 1, class codes from 0, or finite numbers.
        scores: Shape (n,): probabilities of the positive class, or predictions; shape
            (n, classes) for several classes.
        task: Kind of answer the model gives.

    Returns:
        Labels (bool, intp or float64) and scores (float64).

    Raises:
        MetricError: No metric can be computed from them.
    """
    return _CHECKS[task](labels, scores)


def checked_answers(scores: ArrayLike, truth: Any, *, task: Task = BINARY) -> Any:
    """Scores of a further model for labels that were checked already, float64.

    Args:
        scores: Shape as in `checked`.
        truth: Checked labels.
        task: Kind of answer the model gives.

    Raises:
        MetricError: The shape is wrong or a value is impossible.
    """
    if task == "multiclass_classification":
        return checked_distributions(scores, truth)
    if task == "regression":
        return checked_predictions(scores, truth.size)
    return checked_scores(scores, truth.size)


def metric_of(name: str, *, task: Task = BINARY) -> Callable[[Any, Any], float]:
    """A metric by its name, as a function of checked labels and scores.

    Raises:
        MetricError: The task has no such metric.
    """
    if is_added(name):
        return added_metric(name, task)
    known = METRICS_OF[task]
    if name not in known:
        raise MetricError(
            f"There is no metric '{name}' for the task {task}.",
            remedy=f"Take one of {', '.join(known)}.",
        )
    return known[name]


def evaluate(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Iterable[str] | None = None,
    *,
    task: Task = BINARY,
) -> dict[str, float]:
    """Several metrics of the same rows; all of them finite.

    Args:
        labels: Shape (n,), see `checked`.
        scores: Shape (n,) or (n, classes), see `checked`.
        names: Metrics to compute; unset, those of the task that need not be asked for.
        task: Kind of answer the model gives.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    wanted = {
        name: metric_of(name, task=task) for name in (usual(task) if names is None else names)
    }
    truth, values = checked(labels, scores, task=task)
    found = {name: metric(truth, values) for name, metric in wanted.items()}
    for name, value in found.items():
        if not np.isfinite(value):
            raise MetricError(
                f"{name} of {truth.size:,} rows is {value}.",
                remedy="Labels or predictions are too large for float64; scale them down.",
            )
    return found


def usual(task: Task, also: Iterable[str] = ()) -> list[str]:
    """Names of a task's metrics, without those on request, then further ones."""
    names = [name for name in METRICS_OF[task] if name not in ON_REQUEST]
    return list(dict.fromkeys([*names, *also]))


def computable(
    labels: ArrayLike, scores: ArrayLike, *, task: Task = BINARY, also: Iterable[str] = ()
) -> list[str]:
    """Names of the metrics that some rows allow: where a class lacks, not all of them.

    Args:
        labels: Shape (n,), see `checked`.
        scores: Shape (n,) or (n, classes), see `checked`.
        task: Kind of answer the model gives.
        also: Metrics on request to compute besides.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    truth, values = checked(labels, scores, task=task)
    names = usual(task, also)
    if task == "multiclass_classification" and not judgeable(truth, values, task=task):
        return [name for name in names if name not in NEED_EVERY_CLASS]
    return names


def evaluate_by(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    names: Iterable[str] | None = None,
    *,
    task: Task = BINARY,
) -> dict[str, dict[str, float]]:
    """All metrics of each group of rows by itself; groups that allow none are left out.

    Those are groups that lack a class, or whose labels are all equal.

    A metric over pooled groups is another quantity: ranking rows of a bad month above those of a
    good one raises a pooled ROC AUC, and says nothing about any month.

    Args:
        labels: Shape (n,), see `checked`.
        scores: Shape (n,) or (n, classes), see `checked`.
        groups: Shape (n,), name of each row's group.
        names: Metrics to compute, as in `evaluate`.
        task: Kind of answer the model gives.

    Returns:
        Metrics by group, in order of the groups' names.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    truth, values = checked(labels, scores, task=task)
    wanted = None if names is None else list(names)
    group_of = np.asarray(groups).astype(str)
    if group_of.shape != truth.shape:
        raise MetricError(
            f"The groups have the shape {group_of.shape}; the labels have {truth.shape}.",
            remedy="Give each row one group.",
        )
    found = {}
    for name in np.unique(group_of):
        inside = group_of == name
        if judgeable(truth[inside], values, task=task):
            found[str(name)] = evaluate(truth[inside], values[inside], wanted, task=task)
    return found


def judgeable(truth: Any, scores: Any, *, task: Task = BINARY, metric: str | None = None) -> bool:
    """Whether rows with these checked labels allow a metric, or every metric of the task.

    Args:
        truth: Checked labels of the rows, shape (n,).
        scores: Checked scores of any rows; only their number of classes is looked at.
        task: Kind of answer the model gives.
        metric: The metric; unset, every metric of the task.
    """
    if not truth.size:
        return False
    every = metric is None or metric in NEED_EVERY_CLASS
    if task == "multiclass_classification" and every:
        return bool(np.bincount(truth, minlength=scores.shape[1]).all())
    return bool((truth != truth[0]).any())


def less_is_better(metric: str) -> bool:
    """Whether a smaller value of a metric, the platform's own or an added one, is better.

    Raises:
        MetricError: An added one cannot be imported.
    """
    if is_added(metric):
        return not greater_is_better(metric)
    return metric in LESS_IS_BETTER


def gain(metric: str, value: Any, reference: Any) -> Any:
    """How much better `value` is than `reference`: positive is better, whatever the metric."""
    return reference - value if less_is_better(metric) else value - reference
