"""Rollouts: how a candidate version is brought to real traffic, step by step."""

import math
from datetime import datetime
from enum import StrEnum

from pydantic import ConfigDict, Field

from aios_platform.contracts.record import Record
from aios_platform.contracts.serving import RolloutStep


class RolloutMode(StrEnum):
    """How much of its answers callers see."""

    SHADOW = "shadow"
    """None: it scores mirrored traffic beside the live version."""
    CANARY = "canary"
    """A rising share of entities, always the same ones at a step."""
    BLUE_GREEN = "blue_green"
    """All at once, after it was warmed beside the live version; taken back at the first fault."""


class RolloutState(StrEnum):
    """Where a rollout stands."""

    PENDING = "pending"
    """It waits for an approver; callers see nothing of it."""
    RUNNING = "running"
    PAUSED = "paused"
    """Traffic stays as it is; nothing advances."""
    PROMOTED = "promoted"
    """The candidate is champion."""
    FINISHED = "finished"
    """A shadow has been judged; callers never saw it."""
    ABORTED = "aborted"
    """The candidate gets no traffic any more."""


ACTIVE = (RolloutState.RUNNING, RolloutState.PAUSED)
OPEN = (RolloutState.PENDING, *ACTIVE)


class Action(StrEnum):
    """What a rollout is to do next."""

    WAIT = "wait"
    BEGIN = "begin"
    """An approver agreed: the first step."""
    ADVANCE = "advance"
    """The next step."""
    PROMOTE = "promote"
    """The candidate becomes champion, through the gate's verdict."""
    CLOSE = "close"
    """It is champion already; only the row that says so is missing."""
    FINISH = "finish"
    """A shadow has been judged, and nothing speaks against it."""
    ABORT = "abort"


class Rollout(Record):
    """One rollout, as its newest row of the ledger (kind `rollout`) has it."""

    model: str
    number: int = Field(ge=1, description="Counts the model's rollouts.")
    mode: RolloutMode
    state: RolloutState
    version: str = Field(description="Registered version of the candidate.")
    model_digest: str = Field(description="SHA-256 (hex) of its ONNX bytes.")
    training_set_digest: str
    live_version: str = Field(description="Champion when it started; another one aborts it.")
    live_revision: int
    step: int = Field(ge=0, description="Place in `steps`.")
    steps: tuple[RolloutStep, ...]
    started_at: datetime
    step_since: datetime = Field(description="When this step began.")
    reason: str = Field(description="Why it stands where it stands.")
    evidence: dict[str, float] = Field(default_factory=dict)
    approval: int | None = Field(default=None, description="Request that it waited for.")

    @property
    def open(self) -> bool:
        """Whether it stands in the way of another rollout of the model."""
        return self.state in OPEN

    @property
    def active(self) -> bool:
        """Whether the gateway has anything to do with it."""
        return self.state in ACTIVE

    @property
    def share(self) -> float:
        """Share of entities that the candidate answers now.

        0 in a blue/green rollout too: its candidate answers everybody once it is champion.
        """
        if not self.active or self.mode is not RolloutMode.CANARY:
            return 0.0
        return self.steps[self.step].share


class Sample(Record):
    """Sums over independent observations; what is compared by their mean."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    count: int = Field(default=0, ge=0)
    total: float = Field(default=0.0, description="Sum.")
    squares: float = Field(default=0.0, description="Sum of squares.")

    @property
    def mean(self) -> float:
        """Their mean; NaN of none."""
        return self.total / self.count if self.count else math.nan

    @property
    def variance(self) -> float:
        """Their unbiased variance; NaN of fewer than two."""
        if self.count < 2:
            return math.nan
        return max(self.squares - self.total * self.mean, 0.0) / (self.count - 1)


class Traffic(Record):
    """What one version answered, in one role, over some time."""

    requests: int = Field(default=0, ge=0)
    errors: int = Field(
        default=0,
        ge=0,
        description="Those that the version failed on, also where another hop answered instead.",
    )
    latency: Sample = Field(default=Sample(), description="Seconds, a request each.")
    prediction: Sample = Field(default=Sample(), description="Probability, a row each.")


class Pairs(Record):
    """What a shadow answered, beside the live version's answers to the same rows."""

    rows: int = Field(default=0, ge=0)
    failures: int = Field(default=0, ge=0, description="Rows on which the candidate failed.")
    excess: Sample = Field(
        default=Sample(),
        description="Seconds of the candidate less `max_latency_ratio` times the live one's.",
    )
    difference: Sample = Field(
        default=Sample(), description="Candidate's probability less the live one's."
    )
