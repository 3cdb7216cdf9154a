"""Whether to train again: a pure function of evidence.

Four things look alike from afar. A *data fault* is a broken feed: training on it would teach the
model the fault. A *season or harmless shift* is a changed world in which the model still holds. A
*confirmed degradation* is a model that got worse, with confidence. A *stale* model is one that the
policy calls too old. Only the last two retrain; evidence that is missing or not a number holds,
and says so.
"""

import math
from datetime import UTC, datetime

from pydantic import ConfigDict, Field

from aios_platform.contracts.decisions import RetrainAction, RetrainDecision
from aios_platform.contracts.policy import Metric
from aios_platform.contracts.record import Record
from aios_platform.contracts.surveillance import Retrain
from aios_platform.metrics import gain

_MEASURES = ("baseline", "observed", "low", "high")
WANTS_TRAINING = ("degradation", "age", "new_data")


class Attempt(Record):
    """One earlier training that was judged against a champion."""

    windows_since: int = Field(ge=0, description="Windows since the newest one it could look at.")
    helped: bool | None = Field(
        description="It was promoted and better on the exam; None: the first, with none to beat."
    )


class RetrainEvidence(Record):
    """What is known about a live model when the question is asked.

    Unset values are unknown; a value that is not a number counts as unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    live: bool = Field(
        default=True, description="Whether the version that scored the window still is live."
    )
    baseline: float | None = Field(
        default=None, description="The primary metric on the exam that promoted the champion."
    )
    observed: float | None = Field(
        default=None, description="The primary metric on the newest matured window."
    )
    low: float | None = Field(default=None, description="Lower end of its interval.")
    high: float | None = Field(default=None, description="Upper end of its interval.")
    expected: float | None = Field(
        default=None,
        description="What the scores promised before the labels came (`estimation`). A metric "
        "that fell with it met harder rows; one that fell alone met a changed world.",
    )
    degraded_before: int = Field(
        default=0, ge=0, description="Windows in a row, up to this one, that showed degradation."
    )
    age_windows: int | None = Field(
        default=None, ge=0, description="Windows since the last one the champion was trained on."
    )
    training_rows: int | None = Field(
        default=None, ge=0, description="Rows the champion was trained on."
    )
    new_rows: int | None = Field(default=None, ge=0, description="Rows that have matured since.")
    attempts: tuple[Attempt, ...] | None = Field(
        default=None, description="Earlier trainings, newest first."
    )
    drift_share: float | None = Field(
        default=None, description="Share of drifted features in the newest window."
    )
    weighted_drift_share: float | None = Field(
        default=None, description="The same, weighted by the features' importance."
    )
    drifted: bool | None = Field(default=None, description="Whether the window counts as drifted.")
    seasonal: bool | None = Field(
        default=None, description="Whether it is like the same season of earlier data."
    )
    faults: tuple[str, ...] = Field(
        default=(), description="Data faults of the window, in sentences."
    )


def decide(
    *,
    model: str,
    window: str,
    metric: Metric,
    policy: Retrain,
    evidence: RetrainEvidence,
    decided_at: datetime | None = None,
    revision: int = 1,
) -> RetrainDecision:
    """Decide whether to train again.

    Args:
        model: Name of the model.
        window: Key of the newest window.
        metric: Primary metric.
        policy: The declared policy.
        evidence: What is known.
        decided_at: Time of the decision; unset, now.
        revision: Counts the decisions on this window and version.

    Returns:
        RETRAIN for the causes `degradation`, `age` or `new_data`. HOLD for `data_fault` (with an
        alarm), for `superseded` (another version is live by now), for `unconfirmed`, `cool_down`,
        `back_off` or `budget` (there was a cause, but), and for `no_evidence`, `season`,
        `harmless_shift` or `healthy`.
    """
    degraded, losses = _degraded(metric, policy, evidence)
    if evidence.faults:
        # The figures of such a window are those of the fault.
        degraded = False
        cause, reason = "data_fault", "The data are at fault: " + " ".join(evidence.faults)
    elif not evidence.live:
        cause = "superseded"
        reason = "Another version is live by now; the window says nothing about that one."
    else:
        cause, reason = _cause(metric, policy, evidence, losses, degraded=degraded)
    if cause in WANTS_TRAINING:
        stop = _restraint(policy, evidence)
        if stop is not None:
            cause, reason = stop[0], f"{reason} But {stop[1]}"
    known = evidence.model_dump(exclude_none=True, exclude={"live", "attempts", "faults"})
    known |= _of_attempts(evidence)
    return RetrainDecision(
        model=model,
        window=window,
        action=RetrainAction.RETRAIN if cause in WANTS_TRAINING else RetrainAction.HOLD,
        cause=cause,
        reason=reason,
        # What is not a number has no place in the ledger's JSON; the reason names it.
        evidence={name: float(value) for name, value in known.items() if math.isfinite(value)},
        degraded=degraded,
        alarm=cause in ("data_fault", "budget"),
        faults=evidence.faults,
        revision=revision,
        decided_at=decided_at or datetime.now(UTC),
    )


def cool_down(policy: Retrain, attempts: tuple[Attempt, ...]) -> int:
    """Windows that must pass after the last training: longer after each that did not help.

    Args:
        policy: The declared policy.
        attempts: Earlier trainings, newest first.
    """
    in_vain = _in_vain(attempts)
    # An exponent without bound would overflow long before it mattered.
    factor = policy.back_off ** min(in_vain, 64)
    longest = max(policy.max_cool_down_windows, policy.cool_down_windows)
    return int(min(math.ceil(max(policy.cool_down_windows, in_vain > 0) * factor), longest))


def _in_vain(attempts: tuple[Attempt, ...]) -> int:
    """Trainings in a row that did not help, the newest first."""
    count = 0
    for attempt in attempts:
        if attempt.helped is not False:
            break
        count += 1
    return count


def _of_attempts(evidence: RetrainEvidence) -> dict[str, float]:
    attempts = evidence.attempts
    if not attempts:
        return {}
    found: dict[str, float] = {"windows_since_training": attempts[0].windows_since}
    if attempts[0].helped is not None:
        found["last_training_helped"] = float(attempts[0].helped)
    return {**found, "trainings_in_vain": _in_vain(attempts), "trainings": len(attempts)}


def _degraded(
    metric: Metric, policy: Retrain, evidence: RetrainEvidence
) -> tuple[bool, tuple[float, float] | None]:
    """Whether the window shows degradation, and by how much the metric got worse.

    It takes confidence to count as degraded: that the loss is beyond the bound or, where what the
    model uses has drifted as well, that there is a loss at all and the bound is most likely passed.
    Hysteresis: it takes a real recovery to stop counting as degraded.
    """
    losses = _losses(metric, evidence)
    if losses is None:
        return False, None
    least, likely = losses
    if evidence.degraded_before and likely > policy.recovery * policy.degradation:
        return True, losses
    both = bool(evidence.drifted) and least > 0 and likely > policy.degradation
    return least > policy.degradation or both, losses


def _cause(
    metric: Metric,
    policy: Retrain,
    evidence: RetrainEvidence,
    losses: tuple[float, float] | None,
    *,
    degraded: bool,
) -> tuple[str, str]:
    if losses is not None and degraded:
        least, likely = losses
        text = (
            f"{metric} is {likely:.4f} worse than on the exam ({evidence.observed:.4f} after "
            f"{evidence.baseline:.4f}), with confidence at least {least:.4f}; "
            f"{policy.degradation:g} is tolerated."
            f"{_besides(policy, evidence, least)}{_promised(evidence)}"
        )
        windows = evidence.degraded_before + 1
        if windows >= policy.confirm_windows:
            return "degradation", text
        return (
            "unconfirmed",
            f"{text} But so far {windows} of {policy.confirm_windows} windows in a row say so.",
        )
    limit, age = policy.max_age_windows, evidence.age_windows
    if limit is not None and age is not None and age >= limit:
        return "age", f"The champion is {age} windows old; {limit} is the limit."
    if limit is not None and age is None:
        return "no_evidence", "The champion's age is unknown."
    if policy.new_data is not None:
        new, old = evidence.new_rows, evidence.training_rows
        if new is None or old is None:
            return "no_evidence", "How many rows have matured since the training is unknown."
        if new >= policy.new_data * old:
            return (
                "new_data",
                f"{new:,} rows have matured since the training on {old:,}; from "
                f"{policy.new_data * old:,.0f} on it is repeated.",
            )
    return _quiet(metric, policy, evidence, losses)


def _quiet(
    metric: Metric,
    policy: Retrain,
    evidence: RetrainEvidence,
    losses: tuple[float, float] | None,
) -> tuple[str, str]:
    """The cause where nothing asks for a training."""
    if losses is None:
        broken = [name for name in _MEASURES if not _finite(getattr(evidence, name), absent=True)]
        why = f" ({', '.join(broken)}: not a number)" if broken else ""
        return "no_evidence", f"No matured window tells how well the champion does{why}."
    text = (
        f"{metric} is not shown to be more than {policy.degradation:g} worse than on the exam "
        f"({evidence.observed:.4f} after {evidence.baseline:.4f})."
    )
    if evidence.drifted and evidence.seasonal:
        return "season", f"The features drifted as they do in this season, and {text}"
    if evidence.drifted:
        return "harmless_shift", f"The features drifted, but {text}"
    return "healthy", text


def _besides(policy: Retrain, evidence: RetrainEvidence, least: float) -> str:
    """What else speaks for a degradation, where the loss alone would not be enough."""
    if least > policy.degradation:
        return ""
    if evidence.drifted and least > 0:
        return " What the model uses has drifted, too."
    return " It counted as degraded before and has not recovered."


def _promised(evidence: RetrainEvidence) -> str:
    if not _finite(evidence.expected):
        return ""
    return f" The scores of these rows had promised {evidence.expected:.4f}."


def _restraint(policy: Retrain, evidence: RetrainEvidence) -> tuple[str, str] | None:
    """Why a wanted training must not be, if it must not."""
    attempts = evidence.attempts
    if not attempts:
        return "no_evidence", "when the model was last trained is unknown."
    since, wait = attempts[0].windows_since, cool_down(policy, attempts)
    if since < policy.cool_down_windows:
        return (
            "cool_down",
            f"the last training is {since} windows ago; {policy.cool_down_windows} must pass.",
        )
    if since < wait:
        return (
            "back_off",
            f"the last {_in_vain(attempts)} trainings did not help, the newest {since} windows "
            f"ago; {wait} must pass.",
        )
    spent = sum(a.helped is not None and a.windows_since < policy.budget_windows for a in attempts)
    if spent >= policy.budget:
        return (
            "budget",
            f"{spent} trainings within {policy.budget_windows} windows have spent the budget of "
            f"{policy.budget}: somebody should look at why they are wanted.",
        )
    return None


def _losses(metric: Metric, evidence: RetrainEvidence) -> tuple[float, float] | None:
    """By how much the metric got worse: with confidence at least, and most likely."""
    if not all(_finite(getattr(evidence, name)) for name in _MEASURES):
        return None
    losses = [gain(metric, evidence.baseline, value) for value in (evidence.low, evidence.high)]
    return min(losses), gain(metric, evidence.baseline, evidence.observed)


def _finite(value: float | None, *, absent: bool = False) -> bool:
    return absent if value is None else math.isfinite(value)
