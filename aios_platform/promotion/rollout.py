"""What a rollout does next: a pure function of its state, the traffic's figures and the clock.

`docs/rollouts.md` has the states and the guards.
"""

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from pydantic import Field

from aios_platform.contracts.record import Record
from aios_platform.contracts.rollouts import (
    Action,
    Pairs,
    Rollout,
    RolloutMode,
    RolloutState,
    Sample,
    Traffic,
)
from aios_platform.contracts.serving import RolloutPolicy
from aios_platform.promotion.sequential import (
    LEAST,
    mean_exceeds,
    means_differ,
    rate_bounds,
    rate_exceeds,
)

GUARDS = 3
WARM_UP = timedelta(seconds=10)
"""Time that gateways are given to load a blue/green candidate before it is promoted."""
LAST_LOOK = timedelta(minutes=2)
"""Added to a time of watching, so that what came at its end is looked at, too."""
LIVE_WATCH = timedelta(days=1)
"""For how long after a swap the error rate of the live version may take it back."""


class Seen(Record):
    """What a decision rests on, read at one moment."""

    at: datetime = Field(description="The clock, aware.")
    live_version: str | None = Field(description="Champion now.")
    live_revision: int = Field(default=0, description="Its revision.")
    candidate: Traffic = Field(default=Traffic(), description="Since the step began.")
    live: Traffic = Field(default=Traffic(), description="Of the live version meanwhile.")
    pairs: Pairs = Field(default=Pairs(), description="Of a shadow, since it started.")
    request: str = Field(default="", description="State of the request for approval.")
    refused: str = Field(default="", description="Newer verdict on the candidate that refuses it.")


class Move(Record):
    """What to do next, why, and the figures that say so."""

    action: Action
    reason: str
    evidence: dict[str, float] = Field(default_factory=dict)


def next_move(
    rollout: Rollout, policy: RolloutPolicy, seen: Seen, *, impatient: bool = False
) -> Move:
    """What the rollout does next.

    Guards count also while it is paused; nothing else happens then.

    Args:
        rollout: An open rollout.
        policy: The declared limits.
        seen: The ledger, the traffic and the clock.
        impatient: A person has decided not to wait for minimum time and traffic; a guard or
            another champion still stops it.
    """
    changed = _overtaken(rollout, seen)
    if changed is not None:
        return changed
    if rollout.state is RolloutState.PENDING:
        return _approval(rollout, seen)
    if rollout.mode is RolloutMode.SHADOW:
        return _shadow(rollout, policy, seen, impatient)
    if rollout.mode is RolloutMode.BLUE_GREEN:
        if rollout.state is RolloutState.PAUSED:
            return Move(action=Action.WAIT, reason="It is paused.")
        if not (impatient or seen.at - rollout.step_since >= WARM_UP):
            return Move(action=Action.WAIT, reason="Gateways load the candidate.")
        return Move(action=Action.PROMOTE, reason="Gateways had time to load the candidate.")
    return _canary(rollout, policy, seen, impatient)


def watch(
    champion_since: datetime,
    policy: RolloutPolicy,
    live: Traffic,
    previous: Traffic,
    at: datetime,
    *,
    blue_green: bool,
) -> Move:
    """Whether a version that went live is to be taken back.

    Args:
        champion_since: When it went live, aware.
        policy: The declared limits.
        live: What it answered since then.
        previous: What the version before it answered in the time before.
        at: The clock, aware.
        blue_green: Whether nobody saw it before, so that latency and predictions are watched too,
            for the time and the requests of the first step.

    Returns:
        WAIT while it is watched, CLOSE when that is over, ABORT when it is to be taken back.
    """
    first = policy.steps[0]
    waited = at - champion_since
    new = blue_green and (
        waited <= timedelta(minutes=first.minutes) + LAST_LOOK or live.requests < first.requests
    )
    if not new and waited > LIVE_WATCH:
        return Move(action=Action.CLOSE, reason="It has been live for long enough.")
    alpha = policy.alpha / GUARDS
    # Of few requests, long past, nothing more will be known: they excuse nobody.
    known = previous if previous.requests >= LEAST else Traffic()
    tripped = list(_errors(live, known, policy, alpha))
    if new:
        tripped += _shifts(live, previous, policy, alpha, first.requests)
    evidence = _figures(live, previous)
    if tripped:
        return Move(action=Action.ABORT, reason=" ".join(tripped), evidence=evidence)
    return Move(action=Action.WAIT, reason="Nothing speaks against it.", evidence=evidence)


def _overtaken(rollout: Rollout, seen: Seen) -> Move | None:
    if seen.live_version == rollout.version:
        return Move(action=Action.CLOSE, reason=f"Version {rollout.version} is live.")
    if (seen.live_version, seen.live_revision) != (rollout.live_version, rollout.live_revision):
        return Move(
            action=Action.ABORT,
            reason=f"The champion is version {seen.live_version or 'none'} now; it was "
            f"{rollout.live_version} when the rollout started.",
        )
    if seen.refused:
        return Move(action=Action.ABORT, reason=seen.refused)
    return None


def _approval(rollout: Rollout, seen: Seen) -> Move:
    if seen.request == "approved":
        return Move(action=Action.BEGIN, reason=f"Request {rollout.approval} was approved.")
    if seen.request == "pending":
        return Move(action=Action.WAIT, reason=f"Request {rollout.approval} waits for an approver.")
    return Move(action=Action.ABORT, reason=f"Request {rollout.approval} is {seen.request}.")


def _shadow(rollout: Rollout, policy: RolloutPolicy, seen: Seen, impatient: bool) -> Move:
    pairs, alpha = seen.pairs, policy.alpha / GUARDS
    planned = policy.shadow_rows
    evidence = {
        "rows": float(pairs.rows),
        "failures": float(pairs.failures),
        "mean_difference": pairs.difference.mean,
        "latency_excess_seconds": pairs.excess.mean,
    }
    tripped = []
    low, _ = rate_bounds(pairs.failures, pairs.rows, alpha)
    if low > policy.max_error_rate:
        tripped.append(
            f"It failed on {pairs.failures} of {pairs.rows} rows, where {policy.max_error_rate:.2%}"
            " are tolerated."
        )
    if not _finite(pairs.excess, pairs.difference):
        tripped.append("Its figures are not numbers.")
    if mean_exceeds(pairs.excess, 0.0, alpha, planned=planned):
        tripped.append(
            f"It takes more than {policy.max_latency_ratio:g} times as long as the live version, "
            f"by {1000 * pairs.excess.mean:.2g} ms a row."
        )
    difference = pairs.difference
    mirrored = Sample(count=difference.count, total=-difference.total, squares=difference.squares)
    if any(
        mean_exceeds(side, policy.max_difference, alpha, planned=planned)
        for side in (difference, mirrored)
    ):
        tripped.append(
            f"Its mean prediction is {difference.mean:+.3f} off the live one's, where "
            f"{policy.max_difference:g} is tolerated."
        )
    evidence = {name: value for name, value in evidence.items() if math.isfinite(value)}
    if tripped:
        return Move(action=Action.ABORT, reason=" ".join(tripped), evidence=evidence)
    missing = _missing(rollout, [(pairs.rows, planned, "mirrored rows")], impatient)
    if missing:
        return Move(action=Action.WAIT, reason=missing, evidence=evidence)
    reason = f"No guard spoke against it on {pairs.rows} mirrored rows."
    return Move(action=Action.FINISH, reason=reason, evidence=evidence)


def _canary(rollout: Rollout, policy: RolloutPolicy, seen: Seen, impatient: bool) -> Move:
    step = rollout.steps[rollout.step]
    alpha = policy.alpha / (GUARDS * len(rollout.steps))
    evidence = _figures(seen.candidate, seen.live)
    tripped = [
        *_errors(seen.candidate, seen.live, policy, alpha),
        *_shifts(seen.candidate, seen.live, policy, alpha, step.requests),
    ]
    if tripped:
        return Move(action=Action.ABORT, reason=" ".join(tripped), evidence=evidence)
    minutes = (seen.at - rollout.step_since) / timedelta(minutes=1)
    wanted: list[tuple[float, float, str]] = [
        (minutes, step.minutes, "minutes"),
        (seen.candidate.requests, step.requests, "candidate requests"),
    ]
    missing = _missing(rollout, wanted, impatient)
    place = f"step {rollout.step + 1} of {len(rollout.steps)} ({step.share:.2%} of entities)"
    if missing:
        return Move(action=Action.WAIT, reason=f"At {place}: {missing}", evidence=evidence)
    reason = f"No guard tripped at {place}."
    last = rollout.step + 1 == len(rollout.steps)
    return Move(action=Action.PROMOTE if last else Action.ADVANCE, reason=reason, evidence=evidence)


def _missing(rollout: Rollout, wanted: Iterable[tuple[float, float, str]], impatient: bool) -> str:
    if rollout.state is RolloutState.PAUSED:
        return "it is paused."
    if impatient:
        return ""
    # Written so that a figure that is not a number is missing.
    short = [(have, want, what) for have, want, what in wanted if not have >= want]
    return (
        "still to come: "
        + ", ".join(f"{want - have:.4g} of {want:.4g} {what}" for have, want, what in short)
        + "."
        if short
        else ""
    )


def _errors(
    candidate: Traffic, live: Traffic, policy: RolloutPolicy, alpha: float
) -> Iterable[str]:
    if rate_exceeds(
        (candidate.errors, candidate.requests),
        (live.errors, live.requests),
        policy.max_error_rate,
        alpha,
    ):
        yield (
            f"{candidate.errors} of its {candidate.requests} requests failed, {live.errors} of "
            f"{live.requests} of the other version; {policy.max_error_rate:.2%} more is tolerated."
        )


def _shifts(
    candidate: Traffic, live: Traffic, policy: RolloutPolicy, alpha: float, planned: int
) -> Iterable[str]:
    planned = max(planned, LEAST)
    if not _finite(candidate.latency, candidate.prediction):
        yield "Its figures are not numbers."
        return
    if means_differ(
        candidate.latency,
        live.latency,
        alpha,
        planned=planned,
        ratio=policy.max_latency_ratio,
    ):
        yield (
            f"It takes {1000 * candidate.latency.mean:.3g} ms on average, the other version "
            f"{1000 * live.latency.mean:.3g}; {policy.max_latency_ratio:g} times as long is "
            "tolerated."
        )
    for one, other in (
        (candidate.prediction, live.prediction),
        (live.prediction, candidate.prediction),
    ):
        if means_differ(one, other, alpha, planned=planned, margin=policy.max_difference):
            yield (
                f"Its mean prediction is {candidate.prediction.mean:.3f}, the other version's "
                f"{live.prediction.mean:.3f}; a difference of {policy.max_difference:g} is "
                "tolerated."
            )


def _finite(*samples: Sample) -> bool:
    return all(math.isfinite(sample.total) and math.isfinite(sample.squares) for sample in samples)


def _figures(candidate: Traffic, live: Traffic) -> dict[str, float]:
    found = {
        "requests": float(candidate.requests),
        "errors": float(candidate.errors),
        "latency_seconds": candidate.latency.mean,
        "prediction": candidate.prediction.mean,
        "live_requests": float(live.requests),
        "live_errors": float(live.errors),
        "live_latency_seconds": live.latency.mean,
        "live_prediction": live.prediction.mean,
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}
