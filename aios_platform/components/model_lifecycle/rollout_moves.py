"""The moves of an open rollout: read what there is, decide, carry out, write the row.

A rollout is promoted by `carry_out` and nothing else. Each move is one row of the ledger; whoever
is killed finds it there, or not, and does the rest.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aios_platform.components.model_lifecycle.alarms import alarm
from aios_platform.components.model_lifecycle.carrying_out import Status, carry_out, write_void
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.rollout_verdicts import judged_at_start, refusal
from aios_platform.contracts.alerts import AlertKind
from aios_platform.contracts.rollouts import Action, Rollout, RolloutMode, RolloutState
from aios_platform.database import Database
from aios_platform.ledger.rollouts import Standing, record

if TYPE_CHECKING:
    from aios_platform.promotion.rollout import Move, Seen
    from aios_platform.resources.stores import Stores


@dataclass(frozen=True)
class Moved:
    """Where a rollout stands after a call.

    Attributes:
        standing: Its newest row.
        message: For people.
        changed: Whether this call wrote that row.
    """

    standing: Standing
    message: str
    changed: bool


def move_on(
    names: Names, stores: "Stores", found: Standing, now: datetime, *, by_hand: str = ""
) -> Moved:
    """Do what an open rollout is to do next, if anything.

    Args:
        names: The model.
        stores: Where everything is.
        found: The rollout as it was read.
        now: The clock, aware.
        by_hand: Why a person does not wait for minimum time and traffic.

    Raises:
        RolloutError: Somebody else moved it.
        ChampionConflict: Somebody promoted meanwhile.
        DatabaseUnavailable: The same call finishes what was begun.
    """
    from aios_platform.promotion.rollout import next_move

    policy = names.declaration.serving.rollout
    seen = look(names, stores.database, found.rollout, now)
    move = next_move(found.rollout, policy, seen, impatient=bool(by_hand))
    return _carry(names, stores, found, move, now, by_hand)


def look(names: Names, database: Database, rollout: Rollout, now: datetime) -> "Seen":
    """What the next move of an open rollout rests on.

    Raises:
        DatabaseUnavailable: It cannot be read.
    """
    from aios_platform.ledger.approvals import request_of
    from aios_platform.ledger.champions import champion_of
    from aios_platform.promotion.rollout import Seen
    from aios_platform.promotion.traffic import pairs_of, traffic_of

    live = champion_of(database, names.model)
    found: dict[str, Any] = {}
    if rollout.approval is not None:
        found["request"] = request_of(database, rollout.approval).state
    if rollout.mode is RolloutMode.SHADOW:
        ratio = names.declaration.serving.rollout.max_latency_ratio
        found["pairs"] = pairs_of(database, names.model, rollout.number, rollout.version, ratio)
    else:
        found["refused"] = refusal(database, rollout)
    if rollout.mode is RolloutMode.CANARY:
        found["candidate"] = traffic_of(
            database, names.model, rollout.version, "canary", rollout.step_since
        )
        found["live"] = traffic_of(
            database, names.model, rollout.live_version, "live", rollout.step_since
        )
    return Seen(
        at=now,
        live_version=live.version if live else None,
        live_revision=live.revision if live else 0,
        **found,
    )


def _carry(
    names: Names, stores: "Stores", found: Standing, move: "Move", now: datetime, by_hand: str
) -> Moved:
    rollout, database = found.rollout, stores.database
    if move.action is Action.WAIT:
        return Moved(found, f"Rollout {rollout.number} waits. {move.reason}", False)
    if move.action is Action.ABORT:
        # First the alert, which told twice is told once; then the row, after which nobody looks.
        alarm(
            database,
            names.model,
            AlertKind.ROLLOUT_ABORTED,
            str(rollout.number),
            f"Rollout {rollout.number} of {names.model} version {rollout.version} was aborted: "
            f"{move.reason}",
            now=now,
            past=False,
            evidence={"version": rollout.version, "step": rollout.step + 1, **move.evidence},
            ledger_row=found.ledger_row,
        )
        written = abort_with(database, found, move.reason, move.evidence)
        return Moved(written, f"Rollout {rollout.number} is aborted. {move.reason}", True)
    if move.action is Action.PROMOTE:
        carried = carry_out(names, judged_at_start(database, rollout), stores)
        if carried.status is Status.PENDING:
            return Moved(found, f"Rollout {rollout.number} waits. {carried.message}", False)
        if carried.status is not Status.PROMOTED:
            written = abort_with(database, found, carried.message, move.evidence)
            return Moved(written, f"Rollout {rollout.number} is aborted. {carried.message}", True)
    changes: dict[Action, dict[str, Any]] = {
        Action.BEGIN: {"state": RolloutState.RUNNING},
        Action.ADVANCE: {"step": rollout.step + 1},
        Action.PROMOTE: {"state": RolloutState.PROMOTED},
        Action.CLOSE: {"state": RolloutState.PROMOTED},
        Action.FINISH: {"state": RolloutState.FINISHED},
    }
    change = changes[move.action]
    successor = rollout.model_copy(
        update={
            "step_since": now,
            "reason": by_hand or move.reason,
            "evidence": move.evidence,
            **change,
        }
    )
    with database.begin() as connection:
        written = record(connection, successor, after=found)
    where = f"at step {successor.step + 1}" if successor.active else str(successor.state)
    return Moved(written, f"Rollout {rollout.number} is {where}. {move.reason}", True)


def abort_with(
    database: Database, found: Standing, reason: str, evidence: dict[str, float]
) -> Standing:
    """Take the candidate off traffic; an approval that it had is void.

    Raises:
        RolloutError: Somebody else moved the rollout.
        DatabaseUnavailable: Nothing was written.
    """
    from aios_platform.ledger.approvals import request_of

    rollout = found.rollout
    asked = None if rollout.approval is None else request_of(database, rollout.approval)
    ended = rollout.model_copy(
        update={"state": RolloutState.ABORTED, "reason": reason, "evidence": evidence}
    )
    with database.begin() as connection:
        written = record(connection, ended, after=found)
        if asked is not None:
            # With the row: an approval that outlived its rollout would promote the candidate.
            write_void(connection, asked, f"its rollout was aborted: {reason}")
    return written
