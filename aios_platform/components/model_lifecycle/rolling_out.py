"""Rolling out: what a person does with a rollout. `rollout_moves` has what is done by itself."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aios_platform.components.model_lifecycle.alarms import calm
from aios_platform.components.model_lifecycle.candidates import candidate_of
from aios_platform.components.model_lifecycle.carrying_out import asks_a_person
from aios_platform.components.model_lifecycle.handoff import Candidate
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.packaging import ensure_package
from aios_platform.components.model_lifecycle.rollout_moves import Moved, abort_with, move_on
from aios_platform.components.model_lifecycle.rollout_verdicts import ask_approval, passed
from aios_platform.contracts.alerts import AlertKind
from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.rollouts import Rollout, RolloutMode, RolloutState
from aios_platform.database import Database
from aios_platform.errors import RolloutError
from aios_platform.features.pinned_sets import recall
from aios_platform.ledger.rollouts import Standing, record, rows_of, standing

if TYPE_CHECKING:
    from aios_platform.resources.stores import Stores


def start(
    names: Names,
    stores: "Stores",
    *,
    version: str,
    mode: RolloutMode,
    reason: str,
    as_of: datetime | None = None,
) -> Moved:
    """Start a rollout of a registered version.

    A canary or blue/green candidate must have passed the gate against the live champion: a verdict
    on the ledger says so, or the gate is run now. Where the declaration wants a human, it waits for
    an approval before a caller sees anything of it. Starting what runs already changes nothing.

    Args:
        names: The model.
        stores: Where everything is.
        version: Registered version of the candidate.
        mode: How much callers see.
        reason: Why; goes into the ledger.
        as_of: The clock of the gate's exam, should it be run; unset, now.

    Raises:
        AccessDenied: Who acts is no operator.
        RolloutError: There is no champion, another rollout is open, the version is live or takes
            other features than the live one, or the gate did not let it pass.
        RegistryError: There is no such version.
        StoreError: Its bytes are gone or damaged, or its serving package cannot be kept.
        ScoringError: Its bytes are not a model, or cannot score their own rows.
        LifecycleError: No serving package can be made of it.
        DatabaseUnavailable: Nothing was started.
    """
    from aios_platform.access.principals import require
    from aios_platform.inference.session import Session
    from aios_platform.ledger.champions import champion_of

    require("operator", database=stores.database)
    _require_reason(reason)
    live = champion_of(stores.database, names.model)
    found = standing(stores.database, names.model)
    if found is not None and found.rollout.open:
        running = found.rollout
        if (running.version, running.mode) == (version, mode):
            return Moved(found, f"Rollout {running.number} is {running.state} already.", False)
        raise RolloutError(
            f"Rollout {running.number} of {names.model} version {running.version} is "
            f"{running.state}; one at a time.",
            remedy=f"Let it end, or `aios rollout {names.model} abort --reason ...`.",
        )
    if live is None or live.version == version:
        raise RolloutError(
            f"{names.model} has no champion to roll version {version} out against."
            if live is None
            else f"Version {version} of {names.model} is live already.",
            remedy=f"The first version goes live by `aios promote {names.model}`."
            if live is None
            else "Roll out another version.",
        )
    candidate = candidate_of(names, version, stores)
    Session(stores.artifacts.get(candidate.model_digest, ".onnx"), digest=candidate.model_digest)
    _require_same_features(names, candidate, live, stores)
    judged = None
    if mode is not RolloutMode.SHADOW:
        judged = passed(names, candidate, live, stores, as_of or datetime.now(UTC))
    # Before its row: gateways take the candidate up within seconds of it.
    ensure_package(names, stores.artifacts, candidate.model_digest, candidate.training_set)
    approval, state = None, RolloutState.RUNNING
    if judged is not None and asks_a_person(names, judged.verdict):
        approval, state = ask_approval(names, judged, stores.database)
    now = datetime.now(UTC)
    rollout = Rollout(
        model=names.model,
        number=(found.rollout.number if found else 0) + 1,
        mode=mode,
        state=state,
        version=version,
        model_digest=candidate.model_digest,
        training_set_digest=candidate.training_set_digest,
        live_version=live.version,
        live_revision=live.revision,
        step=0,
        steps=names.declaration.serving.rollout.steps,
        started_at=now,
        step_since=now,
        reason=reason.strip(),
        approval=approval,
    )
    beginning: dict[str, Any] = {"candidate": candidate.model_dump(mode="json")}
    beginning["verdict"] = judged.ledger_row if judged is not None else None
    with stores.database.begin() as connection:
        written = record(connection, rollout, after=found, beginning=beginning)
    if found is not None:
        calm(
            stores.database,
            names.model,
            AlertKind.ROLLOUT_ABORTED,
            str(found.rollout.number),
            f"rollout {rollout.number} was started",
        )
    waits = ""
    if state is RolloutState.PENDING:
        waits = (
            f" It waits for an approver: `aios approvals show {approval}`, then `aios approvals "
            f"approve {approval} --reason ...`."
        )
    return Moved(
        written,
        f"Rollout {rollout.number}: {mode.value.replace('_', '/')} of version {version} beside "
        f"{live.version}.{waits}",
        True,
    )


def pause(names: Names, stores: "Stores", *, reason: str) -> Moved:
    """Leave traffic as it is; nothing advances until `resume`. Guards go on watching.

    Raises:
        AccessDenied: Who acts is no operator.
        RolloutError: There is nothing to pause, or somebody else moved it.
    """
    return _switch(names, stores, reason, RolloutState.RUNNING, RolloutState.PAUSED)


def resume(names: Names, stores: "Stores", *, reason: str) -> Moved:
    """Go on with a paused rollout, at the step where it was.

    Raises:
        AccessDenied: Who acts is no operator.
        RolloutError: There is nothing to resume, or somebody else moved it.
    """
    return _switch(names, stores, reason, RolloutState.PAUSED, RolloutState.RUNNING)


def abort(names: Names, stores: "Stores", *, reason: str) -> Moved:
    """Take the candidate off traffic. An approval that it had is void. Safe to repeat.

    Raises:
        AccessDenied: Who acts is no operator.
        RolloutError: There never was a rollout, it was promoted, or somebody else moved it.
    """
    found = _operated(names, stores.database, reason)
    rollout = found.rollout
    if rollout.state is RolloutState.ABORTED:
        return Moved(found, f"Rollout {rollout.number} is aborted already.", False)
    if not rollout.open:
        raise RolloutError(
            f"Rollout {rollout.number} of {names.model} is {rollout.state}; it cannot be aborted.",
            remedy=f"Take a live version back: `aios rollback {names.model} --reason ...`.",
        )
    written = abort_with(stores.database, found, reason.strip(), {})
    return Moved(written, f"Rollout {rollout.number} is aborted.", True)


def advance(names: Names, stores: "Stores", *, reason: str, now: datetime | None = None) -> Moved:
    """Go to the next step without waiting for time and traffic; after the last one, promote.

    Guards still count. Repeating the call with the same reason, after a kill, does not advance a
    second time.

    Raises:
        AccessDenied: Who acts is no operator.
        RolloutError: There is nothing to advance, it waits for an approver, or it is paused.
        ChampionConflict: Somebody promoted meanwhile.
        DatabaseUnavailable: The same call finishes what was begun.
    """
    found = _operated(names, stores.database, reason)
    rollout = found.rollout
    said = f"by hand: {reason.strip()}"
    if any(row.payload["rollout"]["reason"] == said for row in rows_of(stores.database, rollout)):
        return Moved(found, f"It was advanced {said} already; it is {rollout.state}.", False)
    if rollout.state is not RolloutState.RUNNING:
        remedy = {
            RolloutState.PAUSED: f"`aios rollout {names.model} resume --reason ...` first.",
            RolloutState.PENDING: f"An approver decides: `aios approvals show {rollout.approval}`.",
        }.get(rollout.state, f"Start one: `aios rollout {names.model} start`.")
        raise RolloutError(
            f"Rollout {rollout.number} of {names.model} is {rollout.state}: there is nothing to "
            "advance.",
            remedy=remedy,
        )
    return move_on(names, stores, found, now or datetime.now(UTC), by_hand=said)


def _switch(
    names: Names, stores: "Stores", reason: str, before: RolloutState, after: RolloutState
) -> Moved:
    found = _operated(names, stores.database, reason)
    rollout = found.rollout
    if rollout.state is after:
        return Moved(found, f"Rollout {rollout.number} is {after} already.", False)
    if rollout.state is not before:
        raise RolloutError(
            f"Rollout {rollout.number} of {names.model} is {rollout.state}, not {before}.",
            remedy=f"`aios rollout {names.model} status` says what can be done.",
        )
    successor = rollout.model_copy(update={"state": after, "reason": reason.strip()})
    with stores.database.begin() as connection:
        written = record(connection, successor, after=found)
    return Moved(written, f"Rollout {rollout.number} is {after}.", True)


def _operated(names: Names, database: Database, reason: str) -> Standing:
    """The newest rollout, for an operator who gives a reason."""
    from aios_platform.access.principals import require

    require("operator", database=database)
    _require_reason(reason)
    found = standing(database, names.model)
    if found is None:
        raise RolloutError(
            f"{names.model} has no rollout.",
            remedy=f"Start one: `aios rollout {names.model} start --version V --mode canary`.",
        )
    return found


def _require_same_features(
    names: Names, candidate: Candidate, live: Champion, stores: "Stores"
) -> None:
    """Refuse a candidate that cannot answer what the live version is asked."""
    mine = candidate.training_set.service_digest
    theirs = recall(stores.artifacts, names.model, live.training_set_digest).service_digest
    if mine != theirs:
        raise RolloutError(
            f"Version {candidate.version} of {names.model} was trained on the feature service "
            f"{mine[:12]}, the live version {live.version} on {theirs[:12]}: one cannot answer "
            "what the other is asked.",
            remedy=f"`aios promote {names.model} --version {candidate.version}`; requests change "
            "with it.",
        )


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise RolloutError("A rollout is not moved without a reason.", remedy="Give --reason.")
