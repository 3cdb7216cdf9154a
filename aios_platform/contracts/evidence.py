"""What is measured about a candidate besides its answers to the exam.

Other stages measure, the gate judges: a measurement that is missing (None) is unknown, and an
unknown never promotes.
"""

from pydantic import Field

from aios_platform.contracts.record import Record


class Operation(Record):
    """What one version costs to run."""

    latency_p95_ms: float = Field(gt=0, description="95th percentile for one row, milliseconds.")
    size_bytes: int = Field(gt=0, description="Size of the ONNX artifact.")


class OnlineParity(Record):
    """Online reads held against the offline values for the same entities and time."""

    cells: int = Field(ge=0, description="Values compared.")
    different: int = Field(ge=0, description="Values that were not the same.")
    example: str = Field(default="", description="The first difference, in words.")
    nothing_online: bool = Field(
        default=False, description="Whether the model's inputs all come with the request."
    )


class Evidence(Record):
    """Everything measured about one candidate that the gate's policy has a rule for."""

    candidate: Operation | None = Field(default=None, description="Measured beside `champion`.")
    champion: Operation | None = Field(
        default=None, description="None: no champion, or unloadable."
    )
    onnx_parity: float | None = Field(
        default=None, ge=0, description="Largest |ONNX - torch| over real rows, probability."
    )
    online_parity: OnlineParity | None = None
    provenance_missing: tuple[str, ...] | None = Field(
        default=None, description="What the registered version does not say about its origin."
    )
    exam_drift: dict[str, float] | None = Field(
        default=None, description="PSI of each feature, exam against training."
    )
    nothing_joined: bool = Field(
        default=False, description="Whether every input comes with the request."
    )
    leakage_cells: int | None = Field(
        default=None, ge=0, description="Feature values made again from what was known, and equal."
    )
    shared_rows: tuple[str, ...] | None = Field(
        default=None, description="Ids (at most 20) of exam rows that the candidate was trained on."
    )
    sampled: bool = Field(
        default=False, description="Trained on a sample of the training rows: never promoted."
    )
