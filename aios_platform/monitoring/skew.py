"""Skew between serving and training: do callers get what the models were trained on?

What was served for a row is held against what the offline store gives for the same row at the same
moment, cell by cell. A feature that differs too often is skewed: the gate judged the model on other
values than it gets.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.record import Record
from aios_platform.errors import DataError
from aios_platform.monitoring.psi import chance_psi, counts_of, psi, reference_bins

TOLERANCE = 1e-5
"""In multiples of the value, or of the column's standard deviation: both sides are float32."""
MIN_ROWS = 30


class FeatureSkew(Record):
    """One feature, served and offline."""

    name: str
    origin: str = Field(description="'request', or the feature view that delivers it.")
    cells: int = Field(ge=0)
    different: int = Field(ge=0)
    share: float = Field(ge=0, le=1, description="Share of cells that differ.")
    missing: int = Field(ge=0, description="Cells missing on one side only.")
    psi: float | None = Field(
        description="Of the served values against the offline ones; None: chance can reach it."
    )
    skewed: bool
    example: str = Field(default="", description="The first cell that differs.")


class SkewReport(Record):
    """Skew of one version in one window."""

    model: str
    window: str
    version: str
    rows: int = Field(ge=0, description="Rows compared.")
    bound: float = Field(description="Share of differing cells above which a feature is skewed.")
    features: tuple[FeatureSkew, ...]
    enough: bool = Field(description="Whether there were rows enough to call a feature skewed.")

    @property
    def skewed(self) -> tuple[FeatureSkew, ...]:
        """The skewed features, the most different first."""
        found = [feature for feature in self.features if feature.skewed]
        return tuple(sorted(found, key=lambda feature: -feature.share))

    @property
    def reason(self) -> str:
        """What was found, in a sentence."""
        if not self.enough:
            return f"{self.rows:,} rows can be compared; {MIN_ROWS} are needed."
        worst = ", ".join(f"{f.name} in {f.share:.0%}" for f in self.skewed[:3])
        if not worst:
            return (
                f"On {self.rows:,} rows no feature differs from its offline value in more than "
                f"{self.bound:.0%}."
            )
        return (
            f"{len(self.skewed)} of {len(self.features)} features differ from their offline "
            f"values in more than {self.bound:.0%} of {self.rows:,} rows: {worst}."
        )


def compare(
    *,
    model: str,
    window: str,
    version: str,
    served: pa.Table,
    offline: pa.Table,
    features: FeatureSchema,
    bound: float,
) -> SkewReport:
    """Hold served features against offline ones.

    Args:
        model: Name of the model.
        window: Key of the window.
        version: The version that was served.
        served: The inputs as they were served, a row per row of `offline` and in its order:
            numericals float32, categoricals string, missing values null.
        offline: The same of the offline store.
        features: The inputs.
        bound: Share of differing cells above which a feature is skewed.

    Raises:
        DataError: The tables do not have the same rows, or lack an input.
    """
    absent = [n for n in features.names for t in (served, offline) if n not in t.column_names]
    if served.num_rows != offline.num_rows or absent:
        raise DataError(
            f"Served and offline features of {model} for {window} cannot be compared: "
            f"{served.num_rows:,} and {offline.num_rows:,} rows, without {absent or 'nothing'}.",
            remedy="Give the same rows and the version's own inputs.",
        )
    enough = served.num_rows >= MIN_ROWS
    return SkewReport(
        model=model,
        window=window,
        version=version,
        rows=served.num_rows,
        bound=bound,
        features=tuple(
            _feature(field, served[field.name], offline[field.name], bound, enough)
            for field in features.fields
        ),
        enough=enough,
    )


def _feature(
    field: FeatureField,
    served: pa.ChunkedArray,
    offline: pa.ChunkedArray,
    bound: float,
    enough: bool,
) -> FeatureSkew:
    kind = pa.float32() if field.kind is FieldKind.NUMERICAL else pa.string()
    left, right = served.cast(kind), offline.cast(kind)
    one_sided = _missing(left) != _missing(right)
    different = one_sided | (~_missing(left) & ~_missing(right) & ~_alike(left, right))
    count, cells = int(different.sum()), len(left)
    share = count / cells if cells else 0.0
    example = ""
    if count:
        place = int(np.flatnonzero(different)[0])
        example = f"served {left[place].as_py()!r}, offline {right[place].as_py()!r}"
    return FeatureSkew(
        name=field.name,
        origin=field.origin,
        cells=cells,
        different=count,
        share=share,
        missing=int(one_sided.sum()),
        psi=_psi(field, left, right),
        skewed=enough and share > bound,
        example=example,
    )


def _missing(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(column.is_null(nan_is_null=True).to_numpy(), dtype=bool)


def _alike(left: pa.ChunkedArray, right: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which cells are equal, where both have a value."""
    one, other = (column.to_numpy(zero_copy_only=False) for column in (left, right))
    if not pa.types.is_floating(right.type):
        return np.asarray(one == other, dtype=bool)
    values = other[np.isfinite(other)]
    scale = np.maximum(np.abs(other), values.std() if values.size else 0.0)
    return np.asarray(np.abs(one - other) <= TOLERANCE * scale, dtype=bool)


def _psi(field: FeatureField, served: pa.ChunkedArray, offline: pa.ChunkedArray) -> float | None:
    [bins] = reference_bins(pa.table({field.name: offline}), [field]).columns
    reference = np.asarray(bins.counts, dtype=np.int64)
    current = counts_of(bins, served)
    used = int(((reference + current) > 0).sum())
    found = psi(reference, current)
    return found if found > chance_psi(used, len(offline), len(served)) else None
