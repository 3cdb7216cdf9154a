"""Versions of stored data, and the features they carry."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from aios_platform.contracts.record import Record, digest_of


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
    VECTOR = "vector"
    TEXT = "text"


class FeatureField(Record):
    """One input of a model: a column of the training set and of every scored frame."""

    name: str
    kind: FieldKind
    origin: str = Field(description="'request', or the feature view that delivers it.")
    length: int | None = Field(default=None, ge=1, description="Elements of a vector.")


class FeatureSchema(Record):
    """The ordered inputs of a model.

    Nullable float32 numericals, nullable string categoricals and texts, and vectors: lists of
    `length` float32 each, null where there is none.
    """

    fields: tuple[FeatureField, ...]

    @property
    def joined(self) -> tuple[FeatureField, ...]:
        """The inputs that feature views deliver, in order; the others come with the request."""
        return tuple(f for f in self.fields if f.origin != "request")

    @property
    def numerical(self) -> tuple[str, ...]:
        """Names of the numerical inputs, in order."""
        return tuple(f.name for f in self.fields if f.kind is FieldKind.NUMERICAL)

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the categorical inputs, in order."""
        return tuple(f.name for f in self.fields if f.kind is FieldKind.CATEGORICAL)

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the vector inputs, in order."""
        return tuple(f.name for f in self.fields if f.kind is FieldKind.VECTOR)

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the text inputs, in order."""
        return tuple(f.name for f in self.fields if f.kind is FieldKind.TEXT)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all inputs, in order."""
        return tuple(f.name for f in self.fields)


class TrainingSet(Record):
    """A pinned training set and the exam that goes with it: versions, not copies, of windows."""

    frames: tuple[DatasetVersion, ...]
    exam: tuple[DatasetVersion, ...]
    features: FeatureSchema
    service_digest: str
    as_of: str
    cells_replayed: int = Field(ge=0, description="Cells that the leakage check compared.")
    sample: float | None = Field(
        default=None, gt=0, lt=1, description="Share of the training rows taken; None: all."
    )

    @property
    def nothing_joined(self) -> bool:
        """Whether every input comes with the request, so that no feature can have looked ahead."""
        return not self.features.joined

    @property
    def windows(self) -> tuple[str, ...]:
        """Keys of the training windows, oldest first."""
        return tuple(frame.key for frame in self.frames)

    @property
    def exam_windows(self) -> tuple[str, ...]:
        """Keys of the exam's windows, oldest first."""
        return tuple(frame.key for frame in self.exam)

    @property
    def rows(self) -> int:
        """Rows of the training windows, those without a label included."""
        return sum(frame.rows for frame in self.frames)

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of the training windows, whose labels are cut at `as_of`."""
        frames = [[f.key, f.digest] for f in self.frames]
        # In the digest, so that a model of a sample can never pass for one of all rows.
        return digest_of(frames if self.sample is None else [frames, self.sample])
