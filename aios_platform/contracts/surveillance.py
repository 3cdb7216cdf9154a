"""What is watched once a model is live, and when the platform trains again by itself."""

from typing import Literal

from pydantic import Field

from aios_platform.contracts.policy import Share
from aios_platform.contracts.record import Record


class Monitoring(Record):
    """What is watched once the model is live."""

    drift_psi: float = Field(default=0.2, gt=0, description="PSI above which a feature drifted.")
    drift_share: Share = Field(
        default=0.5,
        description="Share of drifted features, weighted by their importance to the champion, "
        "above which the window is flagged.",
    )
    false_discovery: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Expected share of features that are called drifted by chance alone.",
    )
    test_rows: int = Field(
        default=5_000, ge=100, description="Rows sampled from each side for the tests."
    )
    reference: Literal["training", "previous", "season"] = Field(
        default="training",
        description="What a window is compared with besides the champion's training rows: "
        "the previous window, or the same season a year earlier, where there is data of it.",
    )
    report_rows: int = Field(
        default=10_000, ge=100, description="Rows sampled from each side for the drift report."
    )
    fault_exempt: tuple[str, ...] = Field(
        default=(),
        description="What is not searched for data faults: `table.column`, or `table.rows` for "
        "the number of rows. For what truly changed at its source.",
    )


class Retrain(Record):
    """When the platform trains again by itself."""

    degradation: float = Field(
        default=0.02,
        gt=0,
        description="Drop of the primary metric on a matured window against the exam's value, "
        "beyond which (with confidence) the model counts as degraded.",
    )
    recovery: Share = Field(
        default=0.5,
        description="Hysteresis: a model that counts as degraded does so until its drop is below "
        "this share of `degradation`.",
    )
    confirm_windows: int = Field(
        default=1, ge=1, description="Degraded windows in a row that confirm a degradation."
    )
    max_age_windows: int | None = Field(
        default=None, ge=1, description="Retrain when the champion is this many windows old."
    )
    new_data: float | None = Field(
        default=None,
        gt=0,
        description="Retrain when this many times the champion's training rows have matured "
        "since, e.g. 0.5.",
    )
    cool_down_windows: int = Field(
        default=1, ge=0, description="Windows that must pass between two retrainings."
    )
    back_off: float = Field(
        default=2.0,
        ge=1,
        description="Each retraining in a row that did not help makes the cool-down this many "
        "times longer.",
    )
    max_cool_down_windows: int = Field(
        default=12, ge=0, description="The longest that a cool-down can become by that."
    )
    budget: int = Field(
        default=4, ge=0, description="Most retrainings within `budget_windows`; 0: none."
    )
    budget_windows: int = Field(
        default=12, ge=1, description="Windows over which retrainings are counted."
    )
