"""Records of trained and registered models."""

from datetime import datetime
from statistics import median

from pydantic import Field

from aios_platform.contracts.datasets import DatasetVersion, FeatureSchema
from aios_platform.contracts.record import Record


class Epoch(Record):
    """One pass over the training rows, as it is reported while training runs."""

    member: int = Field(ge=0, description="Which network of the ensemble.")
    epoch: int = Field(ge=0)
    seconds: float = Field(ge=0, description="Wall time of the epoch with its validation.")
    train_loss: float = Field(description="Mean loss of the task over the epoch.")
    validation: dict[str, float] = Field(description="Metrics of the validation rows.")


class Calibration(Record):
    """From a network's outputs to answers.

    Binary: probability = sigmoid(slope · logit + intercept). Multiclass: probabilities =
    softmax(slope · logits). Regression: value = slope · output + intercept, and each quantile so,
    plus its offset.
    """

    slope: float = Field(gt=0)
    intercept: float
    offsets: tuple[float, ...] = Field(default=(), description="Of each quantile.")


class NetworkCheck(Record):
    """A check of the trained network (`training.soundness`), and what it observed."""

    name: str
    held: bool
    observed: float
    bound: float
    says: str = Field(description="One sentence.")


class TrainedModel(Record):
    """A trained, calibrated, exported network, and how it came about."""

    onnx: bytes = Field(exclude=True, repr=False, description="The single-file ONNX model.")
    digest: str = Field(description="SHA-256 (hex) of the ONNX bytes.")
    metrics: dict[str, float] = Field(description="Metrics of held-out rows, after calibration.")
    parameters: dict[str, float | int | str] = Field(description="What the training settled on.")
    calibration: Calibration
    epochs: tuple[Epoch, ...]
    checks: tuple[NetworkCheck, ...] = ()
    train_windows: tuple[str, ...]
    validation_windows: tuple[str, ...]
    rows: int = Field(ge=1, description="Labelled rows, those of validation included.")
    parity: float = Field(
        ge=0,
        description="Largest |ONNX - torch| over real rows, of a regression in units of the "
        "largest answer where that is above 1.",
    )
    seconds: float = Field(ge=0)
    resumed: bool = Field(description="Whether a killed training was taken up again.")

    @property
    def rows_per_second(self) -> float:
        """Speed of the median epoch, rows per second of wall time; 0 where none took any."""
        seconds = median(epoch.seconds for epoch in self.epochs) if self.epochs else 0.0
        return self.rows / seconds if seconds else 0.0


class ModelVersion(Record):
    """A registered version of a model."""

    model: str
    version: str = Field(description="Number that the registry gave, as text.")
    run_id: str
    digest: str = Field(description="SHA-256 (hex) of the ONNX bytes.")
    training_set_digest: str
    created_at: datetime
    tags: dict[str, str] = Field(default_factory=dict)


class Provenance(Record):
    """What a registered version was made from; enough to find every row again."""

    version: ModelVersion
    declaration_fingerprint: str
    feature_service_digest: str
    training_frames: tuple[DatasetVersion, ...] = Field(
        description="The stored windows of its rows, each with the digests it was made from."
    )
    features: FeatureSchema
    train_windows: tuple[str, ...]
    validation_windows: tuple[str, ...]
    git_commit: str
    sources: dict[str, str] = Field(
        default_factory=dict, description="Digests of the source files that made it, by part."
    )
    libraries: dict[str, str]
    parameters: dict[str, str]
    metrics: dict[str, float]
