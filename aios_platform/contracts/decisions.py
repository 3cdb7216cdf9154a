"""Records of decisions: verdicts of the gate, champions, retraining."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import ConfigDict, Field

from aios_platform.contracts.record import Record, digest_of


class Outcome(StrEnum):
    """What one rule of the gate found."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"
    WAIVED = "waived"
    """Failed or unknown, and a waiver on the ledger says to let it pass."""
    NOTED = "noted"
    """Shown and not judged, e.g. a slice of too few rows."""


class Decision(StrEnum):
    """What the gate decided."""

    PROMOTE = "promote"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"


class RuleResult(Record):
    """One rule of the gate: what was observed, against which bound, and the outcome."""

    rule: str
    outcome: Outcome
    metric: str = Field(default="", description="Metric the rule looks at, if it does.")
    slice: str = Field(default="", description="Slice the rule looks at, e.g. 'origin=JFK'.")
    observed: float | None = None
    bound: float | None = None
    low: float | None = Field(default=None, description="Lower end of the interval.")
    high: float | None = Field(default=None, description="Upper end of the interval.")
    p_value: float | None = Field(default=None, description="Of the claim that it fails.")
    adjusted_p: float | None = Field(default=None, description="p_value after Holm's adjustment.")
    detectable: float | None = Field(
        default=None, description="Smallest difference that so many rows could have shown."
    )
    waiver: int | None = Field(default=None, description="Ledger row of the waiver that was used.")
    rows: int = 0
    reason: str


class CalibrationBin(Record):
    """Rows of similar score, and how often what was predicted came true among them."""

    score: float = Field(description="Mean probability.")
    share: float = Field(description="Share of positives.")
    low: float = Field(description="Lower end of the share's Wilson interval.")
    high: float = Field(description="Upper end of the share's Wilson interval.")
    rows: int


COMPARISONS = ("non_inferior", "beats_constant")
"""Rules that compare the candidate with the champion, or without one with a constant."""


class Verdict(Record):
    """The gate's decision on a candidate, with every reason."""

    model: str
    decision: Decision
    candidate_version: str
    champion_version: str | None = Field(description="None: there was no champion (bootstrap).")
    exam_digest: str = Field(description="SHA-256 over the exam's row ids and labels.")
    exam_windows: tuple[str, ...]
    rules: tuple[RuleResult, ...]
    candidate_metrics: dict[str, float]
    champion_metrics: dict[str, float]
    candidate_by_window: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="The candidate's metrics on each exam window by itself."
    )
    candidate_intervals: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="Interval of each metric that the policy names."
    )
    by_slice: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="Primary metric of candidate and champion on each slice, and its rows.",
    )
    calibration: tuple[CalibrationBin, ...] = Field(
        default=(), description="The candidate's reliability curve; binary classifiers only."
    )
    policy_digest: str = Field(default="", description="Digest of the gate's declared policy.")
    candidate_digest: str = Field(default="", description="SHA-256 of the candidate's ONNX bytes.")
    champion_digest: str = Field(default="", description="SHA-256 of the champion's ONNX bytes.")
    decided_at: datetime

    @property
    def evidence_digest(self) -> str:
        """SHA-256 over all that the decision rests on; an approval is bound to it."""
        return digest_of(self.model_dump(mode="json", exclude={"decided_at"}))

    @property
    def baseline(self) -> dict[str, float]:
        """What to expect of the candidate on a window: its mean over the exam's windows.

        Not its metrics over the pooled exam, which also reward telling the windows apart.
        """
        windows = list(self.candidate_by_window.values())
        if not windows:
            return self.candidate_metrics
        return {
            metric: sum(window[metric] for window in windows) / len(windows)
            for metric in windows[0]
        }

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons that decided: the failed rules, else the unknown ones.

        Where all passed: the comparison, what was waived, and how many rules there were.
        """
        for outcome in (Outcome.FAIL, Outcome.UNKNOWN):
            found = tuple(r.reason for r in self.rules if r.outcome is outcome)
            if found:
                return found
        compared = (r for r in self.rules if r.rule in COMPARISONS)
        waived = (r for r in self.rules if r.outcome is Outcome.WAIVED)
        passed = sum(r.outcome is Outcome.PASS for r in self.rules)
        return (*(r.reason for r in (*compared, *waived)), f"{passed} rules passed.")


class Waiver(Record):
    """Lets one rule pass for one model until it expires; it is a row of the ledger itself."""

    model: str
    rule: str = Field(description="Name of the rule, e.g. 'max_size'.")
    reason: str = Field(min_length=1)
    principal: str = Field(description="Who took the responsibility.")
    expires_at: datetime
    ledger_row: int = Field(ge=1)


class ApprovalRequest(Record):
    """A promotion that waits for a person who is not its author."""

    ledger_row: int = Field(ge=1, description="The request's row; its id everywhere.")
    model: str
    candidate_version: str
    author: str = Field(description="Principal that trained the candidate; may not approve it.")
    evidence_digest: str = Field(description="Of the verdict; an approval counts for it only.")
    requested_at: datetime
    expires_at: datetime
    state: str = Field(description="pending, approved, rejected, expired or void (overtaken).")
    decided_by: str = ""
    decided_at: datetime | None = None
    reason: str = ""
    promoted: bool = Field(default=False, description="The promotion it asked for took place.")
    verdict: Verdict | None = Field(default=None, description="The verdict it is about.")
    candidate: dict[str, Any] = Field(
        default_factory=dict, description="What the promotion needs, as the asker gave it."
    )


class Champion(Record):
    """The version of a model that is live."""

    model: str
    version: str = Field(description="MLflow's registered model version.")
    model_digest: str = Field(description="SHA-256 of the ONNX bytes.")
    run_id: str = Field(description="MLflow run that trained it.")
    training_set_digest: str
    trained_through: str = Field(description="Key of the last window it was trained on.")
    baseline: dict[str, float] = Field(
        description="Its mean metrics over the windows of the exam that promoted it."
    )
    promoted_at: datetime
    live_from: datetime | None = Field(
        default=None,
        description="The lifecycle's clock when it went live, which a replay has in the past; "
        "unset in old rows: promoted_at.",
    )
    revision: int = Field(ge=1, description="Counts the champions of this model; for the swap.")


class RetrainAction(StrEnum):
    """What the retrain decision asks for."""

    RETRAIN = "retrain"
    HOLD = "hold"


class RetrainDecision(Record):
    """Whether to train again, and the evidence it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    model: str
    window: str
    action: RetrainAction
    cause: str = Field(
        description="degradation, age or new_data retrain; data_fault, superseded, unconfirmed, "
        "cool_down, back_off, budget, season, harmless_shift, healthy and no_evidence hold."
    )
    reason: str
    evidence: dict[str, float]
    degraded: bool = Field(default=False, description="The window shows a degraded model.")
    alarm: bool = Field(default=False, description="A person should look at it.")
    faults: tuple[str, ...] = Field(default=(), description="Data faults of the window.")
    revision: int = Field(
        default=1, ge=1, description="Of the window's performance, on which it rests."
    )
    decided_at: datetime
