"""Versions of stored data, and the features they carry."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from aios_platform.contracts.record import Record


class DatasetVersion(Record):
    """One immutable version of one window (or other key) of one dataset."""

    dataset: str = Field(description="Path-like name, e.g. 'flight_delay/raw/flights'.")
    key: str = Field(description="Window key, or another name of the slice.")
    version: int = Field(ge=1)
    digest: str = Field(description="SHA-256 (hex) of the Parquet bytes.")
    uri: str
    rows: int = Field(ge=0)
    bytes: int = Field(ge=0)
    inputs: dict[str, str] = Field(
        default_factory=dict, description="Digest of everything this version was made from."
    )
    created_at: datetime


class FieldKind(StrEnum):
    """How a model treats a feature."""

    NUMERICAL = "numerical"
    CATEGORICAL = "categorical"


class FeatureField(Record):
    """One input of a model: a column of the training set and of every scored frame."""

    name: str
    kind: FieldKind
    origin: str = Field(description="'request', or the feature view that delivers it.")


class FeatureSchema(Record):
    """The ordered inputs of a model: nullable float32 numericals, nullable string categoricals."""

    fields: tuple[FeatureField, ...]

    @property
    def numerical(self) -> tuple[str, ...]:
        """Names of the numerical inputs, in order."""
        return tuple(f.name for f in self.fields if f.kind is FieldKind.NUMERICAL)

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the categorical inputs, in order."""
        return tuple(f.name for f in self.fields if f.kind is FieldKind.CATEGORICAL)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all inputs, in order."""
        return tuple(f.name for f in self.fields)
