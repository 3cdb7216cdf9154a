"""How well the live model did, once the truth about a window is known.

Predictions are joined with labels by row id, by the labels' own clock. A window counts only when it
has matured: its labels are then complete, where earlier the quickly known outcomes would be all
there is. Labels that come or are corrected later restate the figures as a new revision.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.declaration import Label
from aios_platform.contracts.policy import Task
from aios_platform.contracts.record import Record, digest_of
from aios_platform.contracts.windows import Window
from aios_platform.errors import MetricError
from aios_platform.metrics import BINARY, computable, evaluate, judgeable
from aios_platform.metrics.quantiles import quantile_metrics
from aios_platform.metrics.truth import judged
from aios_platform.monitoring.estimation import Estimate, EstimateScore, score_estimate
from aios_platform.monitoring.labels import COUNTS, Matched, match_labels, table_columns
from aios_platform.resampling import metric_interval, seed_of

# Enough for an interval to look at; the one that decides has more.
SLICE_RESAMPLES = 200


class PerformanceStatus(StrEnum):
    """What could be said about a window."""

    MEASURED = "measured"
    NOT_MATURED = "not_matured"
    NOT_ENOUGH_DATA = "not_enough_data"


class SliceFigures(Record):
    """The primary metric on one group of rows."""

    rows: int = Field(ge=0)
    base_rate: float | None = Field(
        default=None, description="Share of positives, of a regression the mean label."
    )
    value: float
    low: float
    high: float


class Performance(Record):
    """Metrics of the predictions of one window against the truth."""

    model: str
    window: str
    status: PerformanceStatus
    metric: str = Field(description="Primary metric, the one with an interval.")
    metrics: dict[str, float] = Field(description="Empty unless measured.")
    low: float | None = Field(default=None, description="Lower end of the primary's interval.")
    high: float | None = Field(default=None, description="Upper end of the primary's interval.")
    confidence: float
    model_versions: tuple[str, ...] = Field(description="Versions that made the predictions.")
    trained_on: bool = Field(
        default=False,
        description="The version was trained on this very window: the figures flatter it.",
    )
    predictions: int = Field(ge=0)
    labels: int = Field(ge=0, description="Rows whose truth is known by the time of asking.")
    matched: int = Field(ge=0)
    unlabelled_predictions: int = Field(
        ge=0, description="Predictions without a truth, e.g. because there will be none."
    )
    unpredicted_labels: int = Field(ge=0, description="Known truths nobody predicted.")
    repeated_labels: int = Field(ge=0, description="Deliveries of a truth beyond the last.")
    corrected_labels: int = Field(
        default=0, ge=0, description="Rows whose truth was first told otherwise."
    )
    contradictory_labels: int = Field(
        default=0, ge=0, description="Rows told two truths at the same time; left out."
    )
    premature_labels: int = Field(
        default=0,
        ge=0,
        description="Rows whose truth was known before they were predicted; left out.",
    )
    by_slice: dict[str, SliceFigures] = Field(
        default_factory=dict, description="The primary metric of groups of rows, 'column=value'."
    )
    estimate: Estimate | None = Field(
        default=None, description="What was expected of the window before its labels came."
    )
    estimate_scores: dict[str, EstimateScore] = Field(
        default_factory=dict, description="How good the estimate turned out, by metric."
    )
    predictions_digest: str = Field(default="", description="Of the predictions' Parquet bytes.")
    truth_digest: str = Field(default="", description="Of the delivered rows' Parquet bytes.")
    revision: int = Field(default=1, ge=1, description="Counts the statements on this window.")
    restated: str = Field(default="", description="Why the revision before does not hold.")
    base_rate: float | None = Field(default=None, description="Share of positives.")
    mean_probability: float | None = None
    mean_labels: dict[str, float] = Field(
        default_factory=dict,
        description="By answer column: share of rows of the class, or the mean label of a "
        "regression; empty for a binary classifier, which has base_rate.",
    )
    mean_answers: dict[str, float] = Field(
        default_factory=dict, description="Mean of each answer column; empty likewise."
    )
    as_of: datetime
    reason: str


def matures_at(window: Window, label: Label) -> datetime:
    """When a window's labels count as complete."""
    return window.end + timedelta(days=label.maturity_days)


def matured(windows: Iterable[Window], label: Label, as_of: datetime) -> list[Window]:
    """The windows whose labels are complete at a time (aware), in the order given."""
    return [window for window in windows if matures_at(window, label) <= as_of]


def restate(before: Performance, now: Performance) -> Performance:
    """The next revision of a window's performance, or the one before where nothing changed.

    Args:
        before: The newest revision.
        now: A fresh measurement.
    """
    told = {"as_of", "revision", "restated"}
    if now.model_dump(exclude=told) == before.model_dump(exclude=told):
        return before
    changes = [
        f"{name.replace('_', ' ')} {getattr(before, name)} -> {getattr(now, name)}"
        for name in ("status", *COUNTS)
        if getattr(before, name) != getattr(now, name)
    ]
    if before.model_versions != now.model_versions:
        versions = (", ".join(p.model_versions) for p in (before, now))
        changes.insert(0, "version {} -> {}".format(*versions))
    return now.model_copy(
        update={
            "revision": before.revision + 1,
            "restated": "; ".join(changes) or "other predictions or labels of the same rows",
        }
    )


def measure(
    *,
    model: str,
    window: Window,
    predictions: pa.Table,
    truth: pa.Table,
    row_id: str,
    label: Label,
    metric: str,
    as_of: datetime,
    confidence: float = 0.95,
    resamples: int = 1000,
    min_rows: int = 100,
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
    min_slice_rows: int = 500,
    estimate: Estimate | None = None,
    predictions_digest: str = "",
    truth_digest: str = "",
    answers: AnswerSchema | None = None,
    also: Iterable[str] = (),
) -> Performance:
    """Measure one window.

    A truth delivered more than once counts once: the one that became known last by `as_of`. A truth
    that contradicts itself, or that was known before it was predicted, does not count.

    Args:
        model: Name of the model.
        window: The window.
        predictions: Row id, answer columns and `model_version` of each prediction; with
            `prediction_time`, what was known by then is no truth to be measured by.
        truth: Row id, label (nullable) and its known-at time (UTC) of each row.
        row_id: Column that names a row, in both tables.
        label: The declared label.
        metric: Primary metric, reported with a bootstrap interval.
        as_of: Time of asking (aware); what became known later is not looked at.
        confidence: Two-sided confidence of the interval.
        resamples: Resamples of the interval.
        min_rows: Fewest matched rows of which metrics are computed.
        slices: Which predictions belong to each group, in their order, shape (predictions,).
        min_slice_rows: Fewest matched rows of a group that is shown.
        estimate: What was expected of the window; it is scored by what is measured.
        predictions_digest: Digest of the predictions.
        truth_digest: Digest of the delivered truth.
        answers: What the model answers; unset, a probability.
        also: Metrics to compute besides the task's usual ones.

    Raises:
        DataError: A column is missing, a row was predicted twice, or a label is none of the task.
    """
    answers = answers or AnswerSchema()
    task = answers.task
    matched = match_labels(window.key, predictions, truth, row_id, label, as_of, answers)
    (made_by,) = table_columns(
        f"predictions of {window.key}", predictions, {"model_version": pa.string()}
    )
    versions = tuple(sorted(pc.unique(made_by).to_pylist()))

    def report(status: PerformanceStatus, reason: str, **found: object) -> Performance:
        return Performance.model_validate(
            {
                "model": model,
                "window": window.key,
                "status": status,
                "metric": metric,
                "metrics": {},
                "confidence": confidence,
                "model_versions": versions,
                "as_of": as_of,
                "reason": reason,
                "estimate": estimate,
                "predictions_digest": predictions_digest,
                "truth_digest": truth_digest,
                **matched.counts,
                **found,
            }
        )

    if not matures_at(window, label) <= as_of:
        return report(
            PerformanceStatus.NOT_MATURED,
            f"The labels of {window.key} are complete on {matures_at(window, label):%Y-%m-%d}.",
        )
    rows = matched.counts["matched"]
    if rows < min_rows:
        return report(
            PerformanceStatus.NOT_ENOUGH_DATA,
            f"{rows:,} predictions have a known truth; {min_rows:,} are needed.",
        )
    scores = judged(matched.scores, task)
    try:
        names = computable(matched.labels, scores, task=task, also=(metric, *also))
        metrics = evaluate(matched.labels, scores, names, task=task)
        interval = metric_interval(
            metric,
            matched.labels,
            scores,
            seed=seed_of(digest_of([model, window.key])),
            confidence=confidence,
            resamples=resamples,
            task=task,
        )
    except MetricError as error:
        return report(PerformanceStatus.NOT_ENOUGH_DATA, error.what)
    if answers.quantiles:
        metrics |= quantile_metrics(matched.labels, matched.scores[:, 1:], answers.quantiles)
    return report(
        PerformanceStatus.MEASURED,
        f"{metric} is {interval.estimate:.4f} ({confidence:.0%} interval {interval.low:.4f} to "
        f"{interval.high:.4f}) on {rows:,} rows.",
        metrics=metrics,
        low=interval.low,
        high=interval.high,
        **_means(matched, answers),
        estimate_scores=score_estimate(estimate, metrics) if estimate else {},
        by_slice=_by_slice(
            matched, task, slices or {}, metric, confidence, max(min_slice_rows, min_rows)
        ),
    )


def _means(matched: Matched, answers: AnswerSchema) -> dict[str, object]:
    if answers.task == BINARY:
        return {
            "base_rate": float(matched.labels.mean()),
            "mean_probability": float(matched.scores.mean()),
        }
    answered = matched.scores.reshape(matched.labels.size, -1).mean(axis=0).tolist()
    if answers.task == "regression":
        labels = {answers.columns[0]: float(matched.labels.mean())}
    else:
        counts = np.bincount(matched.labels, minlength=len(answers.classes))
        labels = dict(zip(answers.columns, (counts / counts.sum()).tolist(), strict=True))
    return {
        "mean_labels": labels,
        "mean_answers": dict(zip(answers.columns, answered, strict=True)),
    }


def _by_slice(
    matched: Matched,
    task: Task,
    slices: Mapping[str, NDArray[np.bool_]],
    metric: str,
    confidence: float,
    min_rows: int,
) -> dict[str, SliceFigures]:
    found = {}
    for name, members in slices.items():
        inside = members[matched.places]
        labels, scores = matched.labels[inside], judged(matched.scores[inside], task)
        if labels.size < min_rows or not judgeable(labels, scores, task=task, metric=metric):
            continue
        try:
            interval = metric_interval(
                metric,
                labels,
                scores,
                seed=seed_of(digest_of(name)),
                confidence=confidence,
                resamples=SLICE_RESAMPLES,
                task=task,
            )
        except MetricError:
            # So few of one outcome that a resample lacks it: nothing to show.
            continue
        found[name] = SliceFigures(
            rows=labels.size,
            base_rate=None if task == "multiclass_classification" else float(labels.mean()),
            value=interval.estimate,
            low=interval.low,
            high=interval.high,
        )
    return found
