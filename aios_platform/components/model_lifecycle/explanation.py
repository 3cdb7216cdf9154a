"""A row of the ledger in plain words: what was decided, by whom, and why."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from aios_platform.contracts.decisions import Decision, Outcome, RetrainDecision, Verdict
from aios_platform.contracts.rollouts import Rollout

if TYPE_CHECKING:
    from aios_platform.ledger.entries import LedgerEntry

Payload = dict[str, Any]


def explain(entry: "LedgerEntry") -> str:
    """What one row of the ledger says, as a paragraph or two.

    Args:
        entry: The row, of any kind.
    """
    says = _KINDS.get(entry.kind)
    lines = [
        f"Row {entry.seq}, {entry.recorded_at:%Y-%m-%d %H:%M:%S} UTC, by {entry.principal}: "
        f"{entry.kind.replace('_', ' ')} about {entry.subject}."
    ]
    if entry.clock is not None:
        lines.append(
            f"The server's clock said {entry.clock:%Y-%m-%d %H:%M:%S} then, which is before the "
            "row above; the order of the rows counts, not the clock."
        )
    lines += list(says(entry.payload) if says else _plain(entry.payload))
    if entry.evidence:
        lines.append("It rests on: " + ", ".join(digest[:12] for digest in entry.evidence) + ".")
    return "\n".join(lines)


def _verdict(payload: Payload) -> Iterable[str]:
    verdict = Verdict.model_validate(payload["verdict"])
    against = (
        f"the champion, version {verdict.champion_version}"
        if verdict.champion_version
        else "the best constant answer, since there was no champion"
    )
    yield (
        f"Version {verdict.candidate_version} was compared with {against}, on "
        f"{', '.join(verdict.exam_windows) or 'no window'} (asked because: {payload['cause']})."
    )
    ends = {
        Decision.PROMOTE: "It may become champion: every rule was satisfied.",
        Decision.REJECT: "It was rejected, because:",
        Decision.INCONCLUSIVE: "The gate could not decide, and so the champion stays, because:",
    }
    yield ends[verdict.decision]
    if verdict.decision is not Decision.PROMOTE:
        yield from (f"  - {reason}" for reason in verdict.reasons)
    waived = [rule for rule in verdict.rules if rule.outcome is Outcome.WAIVED]
    yield from (f"  Waived by row {rule.waiver}: {rule.rule}: {rule.reason}" for rule in waived)


def _promotion(payload: Payload) -> Iterable[str]:
    champion = payload["champion"]
    before = f"in place of version {payload['previous']}" if payload["previous"] else "the first"
    yield (
        f"Version {champion['version']}, trained through {champion['trained_through']}, became "
        f"champion, {before}."
    )
    if payload.get("approval"):
        yield f"A person approved it: request {payload['approval']}."
    verdict = Verdict.model_validate(payload["verdict"])
    yield "The gate's reasons:"
    yield from (f"  - {reason}" for reason in verdict.reasons)


def _rollback(payload: Payload) -> Iterable[str]:
    champion = payload["champion"]
    yield (
        f"Version {champion['version']} was made champion again, in place of version "
        f"{payload['previous']}, because: {payload['reason']}."
    )


def _request(payload: Payload) -> Iterable[str]:
    yield (
        f"Version {payload['version']} passed the gate and waits for an approver other than its "
        f"author, {payload['author']}, until {payload['expires_at'][:16]}. An approval counts for "
        f"the evidence {payload['evidence_digest'][:12]} only."
    )


def _approval(payload: Payload) -> Iterable[str]:
    word = "approved" if payload["approve"] else "rejected"
    yield (
        f"Request {payload['request']} (version {payload['version']}) was {word}: "
        f"{payload['reason']}."
    )


def _expired(payload: Payload) -> Iterable[str]:
    yield f"Nobody answered request {payload['request']} by {payload['expires_at'][:16]}."


def _void(payload: Payload) -> Iterable[str]:
    yield f"The approval of request {payload['request']} does not count: {payload['why']}."


def _waiver(payload: Payload) -> Iterable[str]:
    yield (
        f"The rule '{payload['rule']}' does not stop this model until "
        f"{str(payload['expires_at'])[:16]}: {payload['reason']}."
    )


def _waiver_revoked(payload: Payload) -> Iterable[str]:
    yield f"The waiver of row {payload.get('waiver')} has ended: {payload.get('reason')}."


def _principal(payload: Payload) -> Iterable[str]:
    roles = payload.get("roles") or payload.get("role")
    if roles:
        yield f"Roles: {', '.join([roles] if isinstance(roles, str) else roles)}."
    if payload.get("prefix"):
        yield f"The key begins with aios_{payload['prefix']}; the rest is stored nowhere."


def _calls(payload: Payload) -> Iterable[str]:
    models = "every model" if payload["model"] == "*" else f"the model {payload['model']}"
    if "requests_per_second" not in payload:
        yield f"Its keys may no longer call {models} through the gateway."
    elif payload["requests_per_second"] is None:
        yield f"Its keys may call {models} through the gateway, at any rate."
    else:
        yield (
            f"Its keys may call {models} through the gateway, at most "
            f"{payload['requests_per_second']:g} times a second."
        )


def _retrain(payload: Payload) -> Iterable[str]:
    decision = RetrainDecision.model_validate(payload["decision"])
    yield (
        f"Window {decision.window}, scored by version {payload['version']}: {decision.action} "
        f"({decision.cause.replace('_', ' ')}). {decision.reason}"
    )


def _candidate(payload: Payload) -> Iterable[str]:
    share = f"a sample of {payload['sample']:.0%} of " if payload["sample"] else ""
    yield (
        f"Version {payload['version']} was trained by {payload['author']} on {share}"
        f"{payload['rows']:,} labelled rows of {payload['windows'][0]} to "
        f"{payload['windows'][-1]}, and registered as MLflow run {payload['mlflow_run']}."
    )


def _projected(payload: Payload) -> Iterable[str]:
    yield f"MLflow's alias 'champion' was found at, or set to, version {payload['version']}."


def _tampered(payload: Payload) -> Iterable[str]:
    yield (
        f"MLflow's alias 'champion' pointed at {payload['found'] or 'nothing'}, although version "
        f"{payload['version']} is live. Somebody moved it by hand; it was put back."
    )


def _missing(payload: Payload) -> Iterable[str]:
    yield (
        f"Version {payload['version']} is live and MLflow does not have it any more: "
        f"{payload['why']} Its bytes are kept elsewhere; scoring goes on."
    )


def _rolled_out(payload: Payload) -> Iterable[str]:
    rollout = Rollout.model_validate(payload["rollout"])
    step = f" at step {rollout.step + 1} of {len(rollout.steps)}" if rollout.share else ""
    yield (
        f"Rollout {rollout.number}, {rollout.mode.replace('_', '/')} of version "
        f"{rollout.version} beside version {rollout.live_version}, is {rollout.state}{step}: "
        f"{rollout.reason}"
    )
    figures = (f"{name.replace('_', ' ')} {value:.6g}" for name, value in rollout.evidence.items())
    if rollout.evidence:
        yield f"Figures: {', '.join(figures)}."


def _reviewed(payload: Payload) -> Iterable[str]:
    row = payload["row_id"] or f"place {payload['place']} of request {payload['request_id']}"
    answer = "positive" if payload["positive"] else "negative"
    yield (
        f"Version {payload['version']} abstained on {row} ({payload['abstained_because']}); it "
        f"would have answered {payload['probability']:.4g}. A person decided that it is {answer}: "
        f"{payload['reason']}."
    )


def _reproduced(payload: Payload) -> Iterable[str]:
    outcome = "has the same training set and gives the same answers"
    if not payload["reproduced"]:
        outcome = "does not come out as it was"
    yield (
        f"Version {payload['version']}, trained again in {payload['seconds']:.0f} s, {outcome}: at "
        f"most {payload['largest_difference']:.3g} apart on {payload['rows']:,} rows."
    )
    for found in payload["differences"]:
        yield f"  {found['what']}: {str(found['recorded'])[:40]}, now {str(found['now'])[:40]}"


def _plain(payload: Payload) -> Iterable[str]:
    for key, value in payload.items():
        yield f"  {key.replace('_', ' ')}: {value}"


def _searched(payload: Payload) -> Iterable[str]:
    states = ", ".join(f"{count} {state}" for state, count in payload["states"].items())
    yield f"{payload['trials']} trials of training options were made ({states})."
    yield f"The declared values: {_values(payload['declared'], payload['declared_loss'])}."
    if payload["best"] is None:
        yield "No trial came to its end."
    elif payload["best_trial"] == 0:
        yield "Nothing was better."
    else:
        best = _values(payload["best"], payload["best_loss"])
        yield f"The best, trial {payload['best_trial']}: {best}."
    yield "The held-out loss is of training windows; no exam was looked at."


def _values(values: Payload, loss: float | None) -> str:
    said = ", ".join(f"{name} {value}" for name, value in values.items())
    return said if loss is None else f"{said}, with a held-out loss of {loss:.5f}"


_KINDS: dict[str, Callable[[Payload], Iterable[str]]] = {
    "verdict": _verdict,
    "promotion": _promotion,
    "rollback": _rollback,
    "approval_request": _request,
    "approval": _approval,
    "approval_expired": _expired,
    "approval_void": _void,
    "waiver": _waiver,
    "waiver_revoked": _waiver_revoked,
    "principal_added": _principal,
    "role_granted": _principal,
    "role_revoked": _principal,
    "key_issued": _principal,
    "key_revoked": _principal,
    "call_granted": _calls,
    "call_revoked": _calls,
    "rollout": _rolled_out,
    "review_decision": _reviewed,
    "retrain_decision": _retrain,
    "candidate": _candidate,
    "alias_projected": _projected,
    "alias_tampered": _tampered,
    "champion_missing": _missing,
    "reproduction": _reproduced,
    "search": _searched,
}
