"""Rollouts: how a candidate version is brought to real traffic, step by step."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

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

    @property
    def active(self) -> bool:
        """Whether the gateway has anything to do with it."""
        return self.state in ACTIVE

    @property
    def share(self) -> float:
        """Share of entities that the candidate answers now."""
        if not self.active or self.mode is RolloutMode.SHADOW:
            return 0.0
        return self.steps[self.step].share
