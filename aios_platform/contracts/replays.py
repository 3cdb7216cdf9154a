"""What a replay of the past found: the live model beside two yardsticks, window by window."""

from datetime import datetime

from pydantic import Field

from aios_platform.contracts.record import Record

NEVER = "never"
"""Yardstick: the first champion, never trained again."""
EVERY = "every"
"""Yardstick: trained again with every window that matures, and always taken, without a gate."""


class Figure(Record):
    """The primary metric of one model on one window."""

    version: str = Field(default="", description="Registered version; '' for a yardstick's own.")
    trained_through: str = Field(description="Last window the model was trained on.")
    value: float
    low: float = Field(description="Lower end of the interval.")
    high: float = Field(description="Upper end of the interval.")


class Gain(Record):
    """How much better the live model was than a yardstick on the same rows; positive: better."""

    value: float
    low: float = Field(description="Lower end of the interval of the paired difference.")
    high: float = Field(description="Upper end.")
    standard_error: float
    windows: int = Field(default=1, ge=1, description="Windows that it is the mean of.")

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


class Expectation(Record):
    """What the scores had promised before the labels came."""

    value: float
    low: float
    high: float
    inside: bool = Field(description="Whether what was measured lay between.")


class DriftSummary(Record):
    """Drift of a window against the training data of the version that scored it."""

    status: str = Field(description="stable, drifted or not_enough_data.")
    share: float | None = Field(description="Share of the features that drifted.")
    weighted_share: float | None = Field(
        description="The same, weighted by their importance to the model."
    )
    features: tuple[str, ...] = Field(description="Those that drifted, what the model uses first.")


class DecisionSummary(Record):
    """The decision on a window whether to train again."""

    action: str = Field(description="retrain or hold.")
    cause: str
    reason: str
    ledger_row: int


class TrainingSummary(Record):
    """A training and what the gate made of it."""

    cause: str
    version: str
    trained_through: str
    exam: tuple[str, ...] = Field(description="Windows of the exam.")
    verdict: str = Field(description="promote, reject or inconclusive.")
    reasons: tuple[str, ...]
    promoted: bool
    helped: bool | None = Field(
        description="Promoted, and better than the champion on the exam; None: there was none."
    )
    seconds: float = Field(ge=0, description="Of the training set and the training itself.")
    ledger_row: int = Field(description="Of the verdict.")


class ReplayedWindow(Record):
    """One window of a replay."""

    window: str
    rows: int = Field(ge=0, description="Rows that the window brought.")
    labelled: int = Field(ge=0, description="Predictions whose truth is known.")
    base_rate: float | None = Field(description="Share of positives.")
    missing: str = Field(default="", description="Why the window has no rows, if it has none.")
    live: Figure | None = Field(description="The version that was live when the window came.")
    afterwards: Figure | None = Field(
        default=None,
        description="No version was live yet: the first champion, which scored it afterwards.",
    )
    unmeasured: str = Field(
        default="",
        description="The version that was live, where its labels allow no figure, e.g. because "
        "all of them are of one class.",
    )
    never: Figure | None = Field(default=None, description="The yardstick `NEVER`.")
    every: Figure | None = Field(default=None, description="The yardstick `EVERY`.")
    against_never: Gain | None = None
    against_every: Gain | None = None
    expectation: Expectation | None = None
    drift: DriftSummary | None = None
    faults: tuple[str, ...] = Field(default=(), description="Data faults, in sentences.")
    decision: DecisionSummary | None = None
    trainings: tuple[TrainingSummary, ...] = Field(
        default=(), description="Those that the labels of this window led to."
    )
    alerts: tuple[str, ...] = Field(default=(), description="Alerts about it, in sentences.")
    seconds: float = Field(ge=0, description="What the window cost, its trainings included.")


class Replay(Record):
    """A replay, for its report. Windows are in order, oldest first."""

    model: str
    description: str
    metric: str = Field(description="Primary metric, e.g. roc_auc.")
    confidence: float
    first: str
    last: str
    windows: tuple[ReplayedWindow, ...]
    against_never: Gain | None = Field(description="Mean over the windows that a live model saw.")
    against_every: Gain | None = None
    trainings: int = Field(ge=0, description="Trainings after the first champion.")
    trainings_every: int = Field(ge=0, description="Trainings of the yardstick `EVERY`.")
    training_seconds: float = Field(ge=0)
    training_seconds_every: float = Field(ge=0)
    runs: int = Field(ge=0, description="Dagster runs.")
    seconds: float = Field(ge=0, description="Of the whole replay, without the yardsticks.")
    yardstick_seconds: float = Field(ge=0)
    digest: str = Field(
        description="SHA-256 over every decision, verdict and prediction: equal for equal replays."
    )
    declaration_digest: str
    finished_at: datetime
