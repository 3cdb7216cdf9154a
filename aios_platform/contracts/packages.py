"""What a version brings along to be served, beside its ONNX bytes."""

from pydantic import Field

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.record import Record
from aios_platform.contracts.serving import TierModel


class TierFigures(Record):
    """One way to score with a version, measured on the exam's rows."""

    model: TierModel
    digest: str = Field(description="SHA-256 (hex) of its ONNX bytes in the artifact store.")
    bytes: int = Field(ge=1)
    metrics: dict[str, float] = Field(description="Metrics on the exam's labelled rows.")
    row_ms: float = Field(ge=0, description="Processor time of one row by itself, p50, ms.")
    batch_row_us: float = Field(ge=0, description="Processor time per row in a batch of 64, us.")
    largest_difference: float = Field(ge=0, description="From the full model, over those rows.")


class SimpleModel(Record):
    """A logistic model of the request's own columns: it needs no feature store."""

    digest: str = Field(description="SHA-256 (hex) of its ONNX bytes in the artifact store.")
    inputs: tuple[str, ...] = Field(description="Request columns it takes, in order.")
    metrics: dict[str, float]


class Conformal(Record):
    """Split conformal prediction sets, class by class (Mondrian).

    Label y is in the set of a row when its nonconformity, 1 - probability(y), is at most the
    quantile of its class. Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World (2005),
    section 4.5; Angelopoulos, Bates: A Gentle Introduction to Conformal Prediction (2021).
    """

    coverage: float = Field(gt=0, lt=1, description="Share that was asked for.")
    negative: float = Field(ge=0, le=1, description="Quantile of the nonconformity of negatives.")
    positive: float = Field(ge=0, le=1, description="Quantile of the nonconformity of positives.")
    calibrated_on: tuple[str, ...] = Field(description="Windows whose rows gave the quantiles.")
    measured_on: tuple[str, ...] = Field(description="Held-out windows that coverage is of.")
    measured: float = Field(ge=0, le=1, description="Coverage found on them.")
    by_class: tuple[float, float] = Field(description="The same of negatives, of positives.")
    rows: int = Field(ge=1, description="Rows that it was measured on.")
    ambiguous: float = Field(ge=0, le=1, description="Share of their sets with both labels.")
    empty: float = Field(ge=0, le=1, description="Share of their sets without a label.")


class ServingPackage(Record):
    """What the gateway loads with a version; kept as `serving/<model>/<model digest>.json`."""

    model: str
    model_digest: str
    service_digest: str = Field(description="Feature service that it was trained on.")
    features: FeatureSchema
    tiers: tuple[TierFigures, ...] = Field(min_length=1, description="The full model first.")
    simple: SimpleModel | None = None
    conformal: Conformal | None = None
    exam_windows: tuple[str, ...]

    def tier(self, model: TierModel) -> TierFigures | None:
        """The figures of one way to score, if it was built."""
        return next((tier for tier in self.tiers if tier.model is model), None)
