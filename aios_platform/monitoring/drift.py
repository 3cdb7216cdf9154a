"""Drift of a window against the rows the champion was trained on.

Every row of the window is looked at (`psi`); a report for people (`report`) samples. A window too
small to tell drift from chance gives "not enough data", never an alarm and never an all-clear.
"""

from collections.abc import Mapping
from enum import StrEnum

import numpy as np
import pyarrow as pa
from pydantic import Field

from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.contracts.record import Record
from aios_platform.contracts.surveillance import Monitoring
from aios_platform.errors import DataError
from aios_platform.monitoring.psi import (
    ColumnBins,
    ReferenceBins,
    chance_psi,
    counts_of,
    psi,
    reference_bins,
)

PREDICTION = FeatureField(name="probability", kind=FieldKind.NUMERICAL, origin="prediction")


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


def prediction_bins(probabilities: pa.ChunkedArray) -> ReferenceBins:
    """Bins of the champion's probabilities on its reference rows.

    Args:
        probabilities: Shape (n,), float.
    """
    return reference_bins(pa.table({PREDICTION.name: probabilities}), [PREDICTION])


def detect(
    *,
    model: str,
    window: str,
    frame: pa.Table,
    reference: ReferenceBins,
    monitoring: Monitoring,
    predictions: Mapping[str, pa.ChunkedArray] | pa.Table | None = None,
    prediction_reference: ReferenceBins | None = None,
) -> DriftReport:
    """Compare a window with a reference.

    Args:
        model: Name of the model.
        window: Key of the window.
        frame: The window's feature frame; needs every column of the reference.
        reference: Stored bins of the features.
        monitoring: The declared bounds.
        predictions: The window's predictions, with the column `probability`.
        prediction_reference: Stored bins of the champion's probabilities.

    Raises:
        DataError: The frame lacks a column of the reference.
    """
    absent = [bins.name for bins in reference.columns if bins.name not in frame.column_names]
    if absent:
        raise DataError(
            f"The frame of {model} for {window} lacks the columns {', '.join(absent)}, "
            "which the champion was trained on.",
            remedy="Build the window's features with the champion's feature service.",
        )
    bound = monitoring.drift_psi
    features = tuple(
        _judge(bins, frame[bins.name], reference.rows, bound) for bins in reference.columns
    )
    prediction = None
    if predictions is not None and prediction_reference is not None:
        bins = prediction_reference.columns[0]
        prediction = _judge(bins, predictions[bins.name], prediction_reference.rows, bound)
    judged = [f for f in features if f.status is not DriftStatus.NOT_ENOUGH_DATA]
    drifted = [f for f in judged if f.status is DriftStatus.DRIFTED]
    share = len(drifted) / len(judged) if judged else None
    status, reason = _overall(share, len(drifted), len(judged), monitoring, features)
    return DriftReport(
        model=model,
        window=window,
        status=status,
        rows=frame.num_rows,
        reference_rows=reference.rows,
        features=features,
        prediction=prediction,
        share=share,
        share_bound=monitoring.drift_share,
        reason=reason,
    )


def _overall(
    share: float | None,
    drifted: int,
    judged: int,
    monitoring: Monitoring,
    features: tuple[ColumnDrift, ...],
) -> tuple[DriftStatus, str]:
    if share is None:
        why = features[0].reason if features else "The reference has no column."
        return DriftStatus.NOT_ENOUGH_DATA, why
    text = f"{drifted} of {judged} features drifted ({share:.0%})"
    if share > monitoring.drift_share:
        return DriftStatus.DRIFTED, f"{text}; {monitoring.drift_share:.0%} is the bound."
    return DriftStatus.STABLE, f"{text}; at most {monitoring.drift_share:.0%} is in order."


def _judge(
    bins: ColumnBins, column: pa.ChunkedArray, reference_rows: int, bound: float
) -> ColumnDrift:
    reference = np.asarray(bins.counts, dtype=np.int64)
    current = counts_of(bins, column)
    rows = int(current.sum())
    found: float | None = None
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
        found = psi(reference, current)
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
        missing=float(current[-1] / rows) if rows else None,
        reference_missing=float(reference[-1] / reference_rows) if reference_rows else None,
        reason=reason,
    )
