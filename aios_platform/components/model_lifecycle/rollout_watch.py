"""The half minute's look at a model's rollout, and at a version that has just gone live."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from aios_platform.access.principals import acting_as
from aios_platform.components.model_lifecycle.alarms import alarm
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.rollout_moves import move_on
from aios_platform.contracts.alerts import AlertKind
from aios_platform.contracts.rollouts import Action, RolloutMode, RolloutState, Traffic
from aios_platform.database import Database
from aios_platform.errors import AiosError
from aios_platform.ledger.health import ROLLBACK, healthy
from aios_platform.ledger.identity import SCHEDULER
from aios_platform.ledger.rollouts import newest, standing
from aios_platform.resources.stores import Artifacts, Stores

if TYPE_CHECKING:
    from aios_platform.contracts.decisions import Champion
    from aios_platform.promotion.rollout import Move

LOOK_SECONDS = 30
REFERENCE = timedelta(hours=1)
"""Time before a swap whose traffic says how the version before it answered."""


def rollout_sensor(names: Names) -> dg.SensorDefinition:
    """`<model>__rollout`: moves an open rollout, or takes back a version that fails its callers."""

    @dg.sensor(
        name=names.job("rollout"),
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus(names.automation),
        description="Advances, promotes or aborts the model's rollout, and rolls back a version "
        "that went live within the last day and fails too many requests.",
    )
    def rollout(artifacts: Artifacts) -> dg.SkipReason:
        stores = Stores(artifacts.open())
        with acting_as(SCHEDULER):
            try:
                return dg.SkipReason(look_at_rollout(names, stores, datetime.now(UTC)))
            except AiosError as error:
                # Nothing was moved, or somebody else was faster: the next look finds out.
                return dg.SkipReason(f"Nothing was moved: {error}")

    return rollout


def look_at_rollout(names: Names, stores: Stores, now: datetime) -> str:
    """Move the open rollout, or else watch the live version.

    Args:
        names: The model.
        stores: Where everything is.
        now: The clock, aware.

    Returns:
        What was found, for people.

    Raises:
        RolloutError: Somebody else moved the rollout.
        DatabaseUnavailable: A store does not answer; the next look does the rest.
    """
    found = standing(stores.database, names.model)
    if found is not None and found.rollout.open:
        return move_on(names, stores, found, now).message
    return watch_live(names, stores, now)


def watch_live(names: Names, stores: Stores, now: datetime) -> str:
    """Roll the live version back if its callers get too many errors, once.

    A version that came by a rollback itself is not taken back: what makes every version fail is
    no fault of theirs.

    Raises:
        DatabaseUnavailable: A store does not answer; the next look does the rest.
    """
    from aios_platform.components.model_lifecycle.rollback import roll_back
    from aios_platform.ledger.champions import champion_of, history
    from aios_platform.promotion.rollout import LIVE_WATCH, watch
    from aios_platform.promotion.traffic import traffic_of

    database, model = stores.database, names.model
    live = champion_of(database, model)
    if live is None:
        return f"{model} has no champion."
    blue_green = _blue_green(database, live)
    if not blue_green and now - live.promoted_at > LIVE_WATCH:
        return f"Version {live.version} has been live for long enough."
    champions = history(database, model)
    previous = champions[1] if len(champions) > 1 else None
    move = watch(
        live.promoted_at,
        names.declaration.serving.rollout,
        traffic_of(database, model, live.version, "live", live.promoted_at),
        traffic_of(
            database,
            model,
            previous.version,
            "live",
            live.promoted_at - REFERENCE,
            live.promoted_at,
        )
        if previous is not None
        else Traffic(),
        now,
        blue_green=blue_green,
    )
    if move.action is not Action.ABORT:
        return f"Version {live.version}: {move.reason}"
    said = f"Version {live.version} of {model} fails its callers: {move.reason}"
    # First the alert, which told twice is told once: after the rollback nobody looks at it again.
    _tell(database, live, move, f"{said} It is rolled back.", now)
    why = ""
    if _came_by_rollback(database, live):
        why = "it came by a rollback itself."
    elif not healthy(database, model, champions):
        why = "no healthy earlier version is left."
    else:
        try:
            return roll_back(
                names, stores, reason=f"automatic: {move.reason}", expected=live.revision
            ).message
        except AiosError as error:
            why = str(error)
    _tell(database, live, move, f"{said} It stays live: {why}", now)
    return f"{said} It stays live: {why}"


def _tell(database: Database, live: "Champion", move: "Move", said: str, now: datetime) -> None:
    alarm(
        database,
        live.model,
        AlertKind.ROLLED_BACK,
        str(live.revision),
        said,
        now=now,
        past=False,
        evidence={"version": live.version, **move.evidence},
    )


def _blue_green(database: Database, live: "Champion") -> bool:
    """Whether the live version was brought to traffic all at once by a rollout."""
    rollout = newest(database, live.model)
    return (
        rollout is not None
        and rollout.mode is RolloutMode.BLUE_GREEN
        and rollout.state is RolloutState.PROMOTED
        and (rollout.version, rollout.live_revision + 1) == (live.version, live.revision)
    )


def _came_by_rollback(database: Database, live: "Champion") -> bool:
    from aios_platform.ledger.entries import entries

    rows = entries(database, subject=live.model, kind=ROLLBACK, limit=1)
    return bool(rows and rows[0].payload["champion"]["revision"] == live.revision)
