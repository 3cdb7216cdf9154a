"""Whether to train again: a pure function of evidence.

Drift says that the world has changed, not that the model got worse; alone it never retrains.
Evidence that is missing or not a number holds, and says so.
"""

import math
from datetime import UTC, datetime

from pydantic import ConfigDict, Field

from aios_platform.contracts.decisions import RetrainAction, RetrainDecision
from aios_platform.contracts.declaration import Retrain
from aios_platform.contracts.policy import Metric
from aios_platform.contracts.record import Record
from aios_platform.metrics import gain

_MEASURES = ("baseline", "observed", "low", "high")


class RetrainEvidence(Record):
    """What is known about a live model when the question is asked.

    Unset values are unknown; a value that is not a number counts as unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    baseline: float | None = Field(
        default=None, description="The primary metric on the exam that promoted the champion."
    )
    observed: float | None = Field(
        default=None, description="The primary metric on the newest matured window."
    )
    low: float | None = Field(default=None, description="Lower end of its interval.")
    high: float | None = Field(default=None, description="Upper end of its interval.")
    age_windows: int | None = Field(
        default=None, ge=0, description="Windows since the last one the champion was trained on."
    )
    windows_since_training: int | None = Field(
        default=None, ge=0, description="Windows since the last training, whatever came of it."
    )
    drift_share: float | None = Field(
        default=None, description="Share of drifted features in the newest window."
    )
    drifted: bool | None = Field(default=None, description="Whether the window counts as drifted.")


def decide(
    *,
    model: str,
    window: str,
    metric: Metric,
    policy: Retrain,
    evidence: RetrainEvidence,
    decided_at: datetime | None = None,
) -> RetrainDecision:
    """Decide whether to train again.

    Args:
        model: Name of the model.
        window: Key of the newest window.
        metric: Primary metric.
        policy: The declared policy.
        evidence: What is known.
        decided_at: Time of the decision; unset, now.

    Returns:
        RETRAIN for cause `degradation` or `age`; HOLD for `cool_down` (there was a cause, but the
        last training is too recent), `no_evidence`, `drift_only` or `healthy`.
    """
    cause, reason = _cause(metric, policy, evidence)
    action = RetrainAction.HOLD
    if cause in ("degradation", "age"):
        since = evidence.windows_since_training
        if since is None:
            cause, reason = (
                "no_evidence",
                f"{reason} But when the model was last trained is unknown.",
            )
        elif since < policy.cool_down_windows:
            cause, reason = (
                "cool_down",
                f"{reason} But the last training is {since} windows ago; "
                f"{policy.cool_down_windows} must pass.",
            )
        else:
            action = RetrainAction.RETRAIN
    known = evidence.model_dump(exclude_none=True)
    return RetrainDecision(
        model=model,
        window=window,
        action=action,
        cause=cause,
        reason=reason,
        # What is not a number has no place in the ledger's JSON; the reason names it.
        evidence={name: float(value) for name, value in known.items() if math.isfinite(value)},
        decided_at=decided_at or datetime.now(UTC),
    )


def _cause(metric: Metric, policy: Retrain, evidence: RetrainEvidence) -> tuple[str, str]:
    losses = _losses(metric, evidence)
    if losses is not None and losses[0] > policy.degradation:
        least, likely = losses
        return (
            "degradation",
            f"{metric} is {likely:.4f} worse than on the exam ({evidence.observed:.4f} after "
            f"{evidence.baseline:.4f}), with confidence at least {least:.4f}; "
            f"{policy.degradation:g} is tolerated.",
        )
    limit, age = policy.max_age_windows, evidence.age_windows
    if limit is not None and age is not None and age >= limit:
        return "age", f"The champion is {age} windows old; {limit} is the limit."
    if limit is not None and age is None:
        return "no_evidence", "The champion's age is unknown."
    if losses is None:
        broken = [name for name in _MEASURES if not _finite(getattr(evidence, name), absent=True)]
        why = f" ({', '.join(broken)}: not a number)" if broken else ""
        return "no_evidence", f"No matured window tells how well the champion does{why}."
    text = (
        f"{metric} is not shown to be more than {policy.degradation:g} worse than on the exam "
        f"({evidence.observed:.4f} after {evidence.baseline:.4f})."
    )
    if evidence.drifted:
        return "drift_only", f"The features drifted, but {text}"
    return "healthy", text


def _losses(metric: Metric, evidence: RetrainEvidence) -> tuple[float, float] | None:
    """By how much the metric got worse: with confidence at least, and most likely."""
    if not all(_finite(getattr(evidence, name)) for name in _MEASURES):
        return None
    losses = [gain(metric, evidence.baseline, value) for value in (evidence.low, evidence.high)]
    return min(losses), gain(metric, evidence.baseline, evidence.observed)


def _finite(value: float | None, *, absent: bool = False) -> bool:
    return absent if value is None else math.isfinite(value)
