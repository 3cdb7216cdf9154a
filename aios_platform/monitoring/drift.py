"""Drift of a window against the rows the champion was trained on.

Every row of the window is looked at (`psi`); a report for people (`report`) samples. A window too
small to tell drift from chance gives "not enough data", never an alarm and never an all-clear.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from aios_platform.contracts.answers import PREDICTED, AnswerSchema
from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.contracts.record import Record
from aios_platform.contracts.surveillance import Monitoring
from aios_platform.errors import DataError
from aios_platform.metrics.truth import judged, likeliest
from aios_platform.monitoring.psi import (
    ColumnBins,
    ReferenceBins,
    chance_psi,
    counts_of,
    psi,
    reference_bins,
)
from aios_platform.monitoring.sampling import sample
from aios_platform.monitoring.significance import (
    MIN_ROWS,
    benjamini_hochberg,
    chi_squared,
    jensen_shannon,
    kolmogorov_smirnov,
    wasserstein,
)
from aios_platform.monitoring.statistics import (
    measured_column,
    measured_importance,
    source_of,
)


def prediction_field(answers: AnswerSchema) -> FeatureField:
    """The column of stored predictions whose drift is looked at.

    The probability of a binary model, the likeliest class of several, the value of a regression.
    """
    classes = answers.task == "multiclass_classification"
    return FeatureField(
        name=PREDICTED if classes else answers.columns[0],
        kind=FieldKind.CATEGORICAL if classes else FieldKind.NUMERICAL,
        origin="prediction",
    )


class DriftStatus(StrEnum):
    """What was found out about a column."""

    STABLE = "stable"
    DRIFTED = "drifted"
    NOT_ENOUGH_DATA = "not_enough_data"


class ColumnDrift(Record):
    """Drift of one column."""

    name: str
    kind: FieldKind
    status: DriftStatus
    psi: float | None = Field(description="None where there is not enough data.")
    bound: float = Field(description="PSI above which the column counts as drifted.")
    rows: int = Field(ge=0)
    jensen_shannon: float | None = Field(
        default=None, description="Distance of the binned distributions, 0 to 1."
    )
    wasserstein: float | None = Field(
        default=None, description="Distance in standard deviations of the reference; numbers only."
    )
    p_value: float | None = Field(
        default=None, description="Of the claim that nothing changed; None: too few rows."
    )
    adjusted_p: float | None = Field(
        default=None, description="p_value after Benjamini and Hochberg, over all features."
    )
    importance: float | None = Field(
        default=None, description="The feature's part of what the model uses; None: unknown."
    )
    missing: float | None = Field(description="Share of missing values in the window.")
    reference_missing: float | None = Field(description="Share of them in the reference.")
    reason: str


class DriftReport(Record):
    """Drift of one window: every feature, the predictions, and what follows."""

    model: str
    window: str
    status: DriftStatus = Field(description="Of the window as a whole.")
    rows: int = Field(ge=0)
    reference_rows: int = Field(ge=0)
    features: tuple[ColumnDrift, ...]
    prediction: ColumnDrift | None = Field(description="None: no predictions were compared.")
    share: float | None = Field(description="Share of drifted features among those judged.")
    weighted_share: float | None = Field(
        default=None, description="The same, each feature weighted by its importance."
    )
    reference: str = Field(default="training", description="What it was compared with.")
    model_version: str = Field(default="", description="The champion then.")
    share_bound: float
    reason: str

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of the drifted features, the most drifted first."""
        found = [f for f in self.features if f.status is DriftStatus.DRIFTED]
        return tuple(f.name for f in sorted(found, key=lambda f: -(f.psi or 0.0)))

    @property
    def columns(self) -> tuple[ColumnDrift, ...]:
        """The features, and the predictions where they were compared."""
        return (*self.features, *([self.prediction] if self.prediction else []))

    @property
    def figures(self) -> dict[str, float]:
        """PSI by column, the judged ones only, the predictions among them."""
        return {column.name: column.psi for column in self.columns if column.psi is not None}


def prediction_bins(
    scores: NDArray[np.float32], answers: AnswerSchema | None = None
) -> ReferenceBins:
    """Bins of what the champion answered on its reference rows.

    Args:
        scores: Shape (n,) or (n, answer columns).
        answers: What it answers; unset, a probability.
    """
    answers = answers or AnswerSchema()
    field = prediction_field(answers)
    if answers.classes:
        column = likeliest(scores, answers.classes)
    else:
        column = pa.array(judged(scores, answers.task))
    return reference_bins(pa.table({field.name: column}), [field])


def detect(
    *,
    model: str,
    window: str,
    frame: pa.Table,
    reference: ReferenceBins,
    monitoring: Monitoring,
    predictions: Mapping[str, pa.ChunkedArray] | pa.Table | None = None,
    prediction_reference: ReferenceBins | None = None,
    reference_sample: pa.Table | None = None,
    importance: Mapping[str, float] | None = None,
    model_version: str = "",
    compared_with: str = "training",
) -> DriftReport:
    """Compare a window with a reference.

    A feature drifted when the effect is large (PSI over all rows) and, where a sample of the
    reference is given, a test says that it is no chance at the declared rate of false discoveries.

    Args:
        model: Name of the model.
        window: Key of the window.
        frame: The window's feature frame; needs every column of the reference.
        reference: Stored bins of the features.
        monitoring: The declared bounds.
        predictions: The window's predictions, with the column of `prediction_field`.
        prediction_reference: Stored bins of what the champion answered.
        reference_sample: Rows of the reference, for the tests, which look at the same
            `test_rows` of either side every time.
        importance: Part of each feature in what the model uses.
        model_version: The champion.
        compared_with: What the reference is.

    Raises:
        DataError: The frame lacks a column of the reference.
    """
    present = frame.column_names
    absent = sorted({source_of(b.name, present) for b in reference.columns} - set(present))
    if absent:
        raise DataError(
            f"The frame of {model} for {window} lacks the columns {', '.join(absent)}, "
            "which the champion was trained on.",
            remedy="Build the window's features with the champion's feature service.",
        )
    names = [bins.name for bins in reference.columns]
    frame = pa.table({name: measured_column(frame, name) for name in names})
    found = [_judge(bins, frame[bins.name], reference.rows, monitoring) for bins in
             reference.columns]  # fmt: skip
    if reference_sample is not None:
        # No more than the tests look at: statistics of texts cost more than a column.
        sampled = sample(reference_sample, monitoring.test_rows)
        past = pa.table({name: measured_column(sampled, name) for name in names})
        found = _tested(found, frame, past, reference, monitoring)
    weights = measured_importance(importance or {}, names)
    features = tuple(
        column.model_copy(update={"importance": weights.get(column.name)}) for column in found
    )
    prediction = None
    if predictions is not None and prediction_reference is not None:
        bins = prediction_reference.columns[0]
        prediction = _judge(bins, predictions[bins.name], prediction_reference.rows, monitoring)
    decided = [f for f in features if f.status is not DriftStatus.NOT_ENOUGH_DATA]
    drifted = [f for f in decided if f.status is DriftStatus.DRIFTED]
    share = len(drifted) / len(decided) if decided else None
    weighted = _weighted(decided, drifted) if importance else None
    status, reason = _overall(share, weighted, len(drifted), len(decided), monitoring, features)
    return DriftReport(
        model=model,
        window=window,
        status=status,
        rows=frame.num_rows,
        reference_rows=reference.rows,
        features=features,
        prediction=prediction,
        share=share,
        weighted_share=weighted,
        share_bound=monitoring.drift_share,
        reference=compared_with,
        model_version=model_version,
        reason=reason,
    )


def _weighted(judged: Sequence[ColumnDrift], drifted: Sequence[ColumnDrift]) -> float | None:
    total = sum(column.importance or 0.0 for column in judged)
    return sum(column.importance or 0.0 for column in drifted) / total if total > 0 else None


def _tested(
    found: Sequence[ColumnDrift],
    frame: pa.Table,
    past: pa.Table,
    reference: ReferenceBins,
    monitoring: Monitoring,
) -> list[ColumnDrift]:
    """The columns with their tests; what chance explains has not drifted."""
    current = sample(frame, monitoring.test_rows)
    tested = [
        _test(column, bins, current[bins.name], past[bins.name])
        for column, bins in zip(found, reference.columns, strict=True)
    ]
    adjusted = benjamini_hochberg({c.name: c.p_value for c in tested if c.p_value is not None})
    rate = monitoring.false_discovery
    return [
        column
        if column.name not in adjusted
        else _adjusted(column, adjusted[column.name], adjusted[column.name] < rate, rate)
        for column in tested
    ]


def _adjusted(column: ColumnDrift, p: float, significant: bool, rate: float) -> ColumnDrift:
    update: dict[str, object] = {"adjusted_p": p}
    if column.status is DriftStatus.DRIFTED and not significant:
        update["status"] = DriftStatus.STABLE
        update["reason"] = f"{column.reason} But chance explains it (p {p:.2g}; {rate:g})."
    return column.model_copy(update=update)


def _test(
    column: ColumnDrift, bins: ColumnBins, current: pa.ChunkedArray, past: pa.ChunkedArray
) -> ColumnDrift:
    if column.status is DriftStatus.NOT_ENOUGH_DATA or min(len(current), len(past)) < MIN_ROWS:
        return column
    counts, before = counts_of(bins, current), counts_of(bins, past)
    if bins.kind is FieldKind.CATEGORICAL:
        return column.model_copy(update={"p_value": chi_squared(counts, before)})
    numbers, reference = _finite(current), _finite(past)
    _, p = kolmogorov_smirnov(numbers, reference)
    missing = chi_squared(_present(counts), _present(before))
    return column.model_copy(
        update={
            # Either may have changed, the values or whether there is one (Bonferroni).
            "p_value": min(1.0, 2 * min(p, missing)),
            "wasserstein": wasserstein(numbers, reference),
        }
    )


def _finite(column: pa.ChunkedArray) -> NDArray[np.float64]:
    numbers = column.cast(pa.float64(), safe=False).to_numpy()
    return np.asarray(numbers[np.isfinite(numbers)], dtype=np.float64)


def _present(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array([counts[:-1].sum(), counts[-1]])


def _overall(
    share: float | None,
    weighted: float | None,
    drifted: int,
    judged: int,
    monitoring: Monitoring,
    features: Sequence[ColumnDrift],
) -> tuple[DriftStatus, str]:
    if share is None:
        why = features[0].reason if features else "The reference has no column."
        return DriftStatus.NOT_ENOUGH_DATA, why
    text = f"{drifted} of {judged} features drifted ({share:.0%})"
    decisive = share
    if weighted is not None:
        text += f", with {weighted:.0%} of what the model uses"
        decisive = weighted
    if decisive > monitoring.drift_share:
        return DriftStatus.DRIFTED, f"{text}; {monitoring.drift_share:.0%} is the bound."
    return DriftStatus.STABLE, f"{text}; at most {monitoring.drift_share:.0%} is in order."


def _judge(
    bins: ColumnBins, column: pa.ChunkedArray, reference_rows: int, monitoring: Monitoring
) -> ColumnDrift:
    bound = monitoring.drift_psi
    reference = np.asarray(bins.counts, dtype=np.int64)
    current = counts_of(bins, column)
    rows = int(current.sum())
    found: float | None = None
    distance: float | None = None
    used = int(((reference + current) > 0).sum())
    if not bins.values:
        status, reason = DriftStatus.NOT_ENOUGH_DATA, "The reference has no value to compare with."
    elif not chance_psi(used, reference_rows, rows) < bound:
        status = DriftStatus.NOT_ENOUGH_DATA
        reason = (
            f"With {rows:,} rows against {reference_rows:,}, chance alone can reach a PSI of "
            f"{bound:g}."
        )
    else:
        found, distance = psi(reference, current), jensen_shannon(reference, current)
        status = DriftStatus.DRIFTED if found > bound else DriftStatus.STABLE
        reason = f"PSI {found:.3f}; {bound:g} is the bound."
        if current[-1] == rows:
            reason += " Every value is missing."
    return ColumnDrift(
        name=bins.name,
        kind=bins.kind,
        status=status,
        psi=found,
        bound=bound,
        rows=rows,
        jensen_shannon=distance,
        missing=float(current[-1] / rows) if rows else None,
        reference_missing=float(reference[-1] / reference_rows) if reference_rows else None,
        reason=reason,
    )
