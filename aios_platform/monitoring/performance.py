"""How well the live model did, once the truth about a window is known.

Predictions are joined with labels by row id. A window counts only when it has matured: its labels
are then complete, where earlier the quickly known outcomes would be all there is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from aios_platform.contracts.declaration import Label
from aios_platform.contracts.record import Record, digest_of, nearest
from aios_platform.contracts.windows import Window
from aios_platform.errors import DataError, MetricError
from aios_platform.metrics import evaluate
from aios_platform.resampling import metric_interval, seed_of

SCORE = "probability"
KNOWN_AT = pa.timestamp("us", tz="UTC")


class PerformanceStatus(StrEnum):
    """What could be said about a window."""

    MEASURED = "measured"
    NOT_MATURED = "not_matured"
    NOT_ENOUGH_DATA = "not_enough_data"


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
    predictions: int = Field(ge=0)
    labels: int = Field(ge=0, description="Rows whose truth is known by the time of asking.")
    matched: int = Field(ge=0)
    unlabelled_predictions: int = Field(
        ge=0, description="Predictions without a truth, e.g. because there will be none."
    )
    unpredicted_labels: int = Field(ge=0, description="Known truths nobody predicted.")
    repeated_labels: int = Field(ge=0, description="Deliveries of a truth beyond the last.")
    base_rate: float | None = Field(default=None, description="Share of positives.")
    mean_probability: float | None = None
    as_of: datetime
    reason: str


def matures_at(window: Window, label: Label) -> datetime:
    """When a window's labels count as complete."""
    return window.end + timedelta(days=label.maturity_days)


def matured(windows: Iterable[Window], label: Label, as_of: datetime) -> list[Window]:
    """The windows whose labels are complete at a time (aware), in the order given."""
    return [window for window in windows if matures_at(window, label) <= as_of]


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
) -> Performance:
    """Measure one window.

    A truth delivered more than once counts once: the one that became known last by `as_of`.

    Args:
        model: Name of the model.
        window: The window.
        predictions: Row id, `probability` and `model_version` of each prediction.
        truth: Row id, label (nullable) and its known-at time (UTC) of each row.
        row_id: Column that names a row, in both tables.
        label: The declared label.
        metric: Primary metric, reported with a bootstrap interval.
        as_of: Time of asking (aware); what became known later is not looked at.
        confidence: Two-sided confidence of the interval.
        resamples: Resamples of the interval.
        min_rows: Fewest matched rows of which metrics are computed.

    Raises:
        DataError: A column is missing, or a row was predicted twice.
    """
    matched = _match(window.key, predictions, truth, row_id, label, as_of)
    (made_by,) = _columns(
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
    try:
        metrics = evaluate(matched.labels, matched.scores)
    except MetricError as error:
        return report(PerformanceStatus.NOT_ENOUGH_DATA, error.what)
    interval = metric_interval(
        metric,
        matched.labels,
        matched.scores,
        seed=seed_of(digest_of([model, window.key])),
        confidence=confidence,
        resamples=resamples,
    )
    return report(
        PerformanceStatus.MEASURED,
        f"{metric} is {interval.estimate:.4f} ({confidence:.0%} interval {interval.low:.4f} to "
        f"{interval.high:.4f}) on {rows:,} rows.",
        metrics=metrics,
        low=interval.low,
        high=interval.high,
        base_rate=float(matched.labels.mean()),
        mean_probability=float(matched.scores.mean()),
    )


@dataclass(frozen=True)
class _Matched:
    labels: NDArray[np.bool_]
    scores: NDArray[np.float64]
    counts: dict[str, int]


def _match(
    window: str, predictions: pa.Table, truth: pa.Table, row_id: str, label: Label, as_of: datetime
) -> _Matched:
    import polars as pl

    made = _columns(f"predictions of {window}", predictions, {row_id: pa.string(), SCORE: None})
    facts = _columns(
        f"labels of {window}",
        truth,
        {row_id: pa.string(), label.column: pa.bool_(), label.known_at: KNOWN_AT},
    )
    answered = pl.DataFrame({"id": made[0], "score": made[1]})
    if answered["id"].n_unique() != answered.height or answered["id"].null_count():
        raise DataError(
            f"The predictions of {window} name a row twice, or not at all.",
            remedy="Score the window again; predictions have one row per row id.",
        )
    known = (
        pl.DataFrame({"id": facts[0], "label": facts[1], "known_at": facts[2]})
        .drop_nulls()
        .filter(pl.col("known_at") <= as_of)
        .sort("id", "known_at", "label")
    )
    unique = known.unique("id", keep="last", maintain_order=True)
    joined = answered.join(unique, on="id", how="inner").sort("id")
    return _Matched(
        labels=joined["label"].to_numpy(),
        scores=joined["score"].cast(pl.Float64).fill_null(float("nan")).to_numpy(),
        counts={
            "predictions": answered.height,
            "labels": unique.height,
            "matched": joined.height,
            "unlabelled_predictions": answered.height - joined.height,
            "unpredicted_labels": unique.height - joined.height,
            "repeated_labels": known.height - unique.height,
        },
    )


def _columns(
    what: str, table: pa.Table, types: dict[str, pa.DataType | None]
) -> list[pa.ChunkedArray]:
    found = []
    for name, kind in types.items():
        if name not in table.column_names:
            raise DataError(
                f"The {what} have no column '{name}'. {nearest(name, table.column_names)}",
                remedy="Hand over the table as it was written.",
            )
        column = table[name]
        found.append(column if kind is None else column.cast(kind))
    return found
