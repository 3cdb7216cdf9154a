"""Metrics that installed packages add: they may be a policy's metric, a guard, or a floor.

A package names an `AddedMetric` in the group `aios_platform.metrics` (docs/how-to/extend.md). It
fails closed: that it cannot be imported, what it raises, or returns besides a number, is a
`MetricError`, and so never promotes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.policy import METRIC_NAMES, Task
from aios_platform.errors import ExtensionError, MetricError
from aios_platform.extensions import Kind, load, origin

Weighted = Callable[[NDArray[Any], NDArray[np.float64], NDArray[np.float64]], float]

TOLERANCE = 1e-6
TRIED_ROWS = 10_000


@dataclass(frozen=True)
class AddedMetric:
    """What the entry point of a metric names.

    Attributes:
        task: Kind of answer it judges.
        greater_is_better: Whether a greater value is the better one.
        compute: Called with labels (n,) (bool, class codes, or numbers), answers (n,) or
            (n, classes), and how often each row counts (n,), float64, whole numbers from 0; returns
            the metric. Rows of weight 0 count as if they were not there. The arrays cannot be
            written to; it is called from several threads at once.
    """

    task: Task
    greater_is_better: bool
    compute: Weighted


def is_added(name: str) -> bool:
    """Whether a metric is none of the platform's own; nothing is imported."""
    return name not in METRIC_NAMES


def shown(name: str) -> str:
    """A metric's name for people: of an added one, with the package that has it."""
    return origin(Kind.METRIC, name) if is_added(name) else name


def greater_is_better(name: str) -> bool:
    """Whether a greater value of an added metric is better.

    Raises:
        MetricError: There is none.
    """
    return _part(name).greater_is_better


def added_metric(name: str, task: Task) -> Callable[[Any, Any], float]:
    """An added metric as a function of checked labels and answers.

    Raises:
        MetricError: There is no such metric of this task.
    """
    part = _part(name, task)
    return lambda truth, answers: _ask(name, part, truth, answers, np.ones(truth.size))


def added_statistic(
    name: str, truth: NDArray[Any], answers: NDArray[np.float64], task: Task
) -> Callable[[NDArray[np.float64]], float]:
    """An added metric as a function of how often each row was drawn.

    It is tried first: rows that count twice must weigh as much as rows that are there twice.
    One that ignored its weights would have an interval of no width, which any candidate passes.

    Args:
        name: Of the metric.
        truth: Checked labels, shape (n,).
        answers: Checked answers, shape (n,) or (n, classes).
        task: Kind of answer the model gives.

    Raises:
        MetricError: There is no such metric of this task, or it does not heed weights.
    """
    part = _part(name, task)
    _check_weights(name, part, truth, answers)
    return lambda counts: _ask(name, part, truth, answers, counts)


def _part(name: str, task: Task | None = None) -> AddedMetric:
    try:
        part = load(Kind.METRIC, name)
    except ExtensionError as error:
        raise MetricError(error.what, remedy=error.remedy) from error
    if not isinstance(part, AddedMetric):
        raise MetricError(
            f"{origin(Kind.METRIC, name)} is a {type(part).__name__}, no AddedMetric.",
            remedy="Let the entry point name an aios_platform.metrics.AddedMetric.",
        )
    if task is not None and part.task != task:
        raise MetricError(
            f"{origin(Kind.METRIC, name)} is a metric of {part.task}; the task is {task}.",
            remedy="Take a metric of the model's task.",
        )
    return part


def _check_weights(
    name: str, part: AddedMetric, truth: NDArray[Any], answers: NDArray[np.float64]
) -> None:
    # Every n-th row where there are many, so that the trial costs little beside the resamples.
    step = -(-truth.size // TRIED_ROWS)
    truth, answers = truth[::step], answers[::step]
    times = np.random.default_rng(0).integers(0, 3, truth.size)
    if part.task != "regression":  # every class keeps a row
        times[np.unique(truth, return_index=True)[1]] = 2
    weighted = _ask(name, part, truth, answers, times.astype(np.float64))
    places = np.repeat(np.arange(truth.size), times)
    repeated = _ask(name, part, truth[places], answers[places], np.ones(places.size))
    if not np.isclose(weighted, repeated, rtol=TOLERANCE, atol=TOLERANCE):
        raise MetricError(
            f"{origin(Kind.METRIC, name)} does not heed its weights: it is {weighted:.6g} with "
            f"rows that count up to twice, and {repeated:.6g} with the same rows repeated.",
            remedy="Multiply what each row adds by its weight, in sums and in counts.",
        )


def _ask(name: str, part: AddedMetric, *arrays: NDArray[Any]) -> float:
    try:
        return float(part.compute(*map(_read_only, arrays)))
    except Exception as error:
        raise MetricError(
            f"{origin(Kind.METRIC, name)} has no value of {arrays[0].size:,} rows: "
            f"{type(error).__name__}: {error}",
            remedy="Mend the metric, or take another for this model.",
        ) from error


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
