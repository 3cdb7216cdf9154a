"""MLflow's alias `champion`, kept in step with the ledger.

The ledger says which version is live; the alias is for people and tools that look at MLflow. What
was projected is a row of the ledger too, and so a process that died before it set the alias can
be told from a hand that moved it afterwards.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.alarms import alarm
from aios_platform.contracts.alerts import AlertKind
from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.record import Record
from aios_platform.database import Database
from aios_platform.errors import RegistryError

if TYPE_CHECKING:
    from aios_platform.ledger.entries import LedgerEntry
    from aios_platform.registry.store import ModelRegistry

logger = logging.getLogger(__name__)

PROJECTED = "alias_projected"
TAMPERED = "alias_tampered"
MISSING = "champion_missing"


class AliasState(StrEnum):
    """What a look at the alias found."""

    IN_STEP = "in_step"
    PUT_RIGHT = "put_right"
    """It was behind a promotion or a rollback, and was set."""
    TAMPERED = "tampered"
    """Somebody had moved it; it was put back."""
    MISSING = "missing"
    """The champion's version is not in MLflow any more."""


class AliasReport(Record):
    """What a look at the alias found, in words."""

    state: AliasState
    champion: str | None
    found: str | None
    message: str

    @property
    def alarming(self) -> bool:
        """Whether a person should look at it."""
        return self.state in (AliasState.TAMPERED, AliasState.MISSING)


def reconcile(model: str, database: Database, registry: "ModelRegistry") -> AliasReport:
    """Bring the alias in step with the ledger, and say what was wrong.

    Safe to repeat and to run in several processes at once: they take turns.

    Args:
        model: Name of the model.
        database: Where the ledger lives.
        registry: The MLflow registry.

    Raises:
        DatabaseUnavailable: The ledger or MLflow does not answer.
    """
    from aios_platform.ledger.champions import champion_of

    with database.lock(f"alias {model}"):
        champion = champion_of(database, model)
        last = _last(database, model)
        try:
            found = registry.champion_alias(model)
        except RegistryError as error:
            if champion is None:
                # Before the first training there is no model in MLflow at all.
                return _report(AliasState.IN_STEP, None, None, "There is no champion yet.")
            return _missing(model, database, champion, None, error)
        wanted = champion.version if champion else None
        if found == wanted:
            if champion is not None:
                _note(database, model, PROJECTED, champion, found, last)
            return _report(AliasState.IN_STEP, wanted, found, "The alias is in step.")
        tampered = _by_hand(last, champion, found)
        if tampered:
            # First the alert, which told twice is told once; then the row: whoever dies after it
            # finds the alias still wrong, and sets it.
            _raise(
                database,
                model,
                AlertKind.ALIAS_TAMPERED,
                f"{champion.revision if champion else 0}:{last.seq if last else 0}",
                _tampered(model, found, wanted),
                {"found": found, "champion": wanted},
            )
            last = _note(database, model, TAMPERED, champion, found, last)
        try:
            if wanted is None:
                registry.remove_champion_alias(model)
            else:
                registry.set_champion_alias(model, wanted)
        except RegistryError as error:
            return _missing(model, database, champion, found, error)
        if champion is not None:
            _note(database, model, PROJECTED, champion, wanted, last)
    if tampered:
        message = _tampered(model, found, wanted)
        logger.warning(message)
        return _report(AliasState.TAMPERED, wanted, found, message)
    return _report(
        AliasState.PUT_RIGHT,
        wanted,
        found,
        f"The alias was behind ({found or 'not set'}) and now points at version {wanted}.",
    )


def look(
    model: str, database: Database, open_registry: Callable[[], "ModelRegistry"]
) -> AliasReport:
    """What `reconcile` does, without MLflow as long as everything is as it should be.

    Args:
        model: Name of the model.
        database: Where the ledger lives, and MLflow's tables beside it.
        open_registry: Opens the MLflow registry, which takes seconds the first time.

    Raises:
        DatabaseUnavailable: The ledger or MLflow does not answer.
    """
    from aios_platform.ledger.champions import champion_of
    from aios_platform.registry.backend import glance

    champion, last = champion_of(database, model), _last(database, model)
    if champion is None and last is None:
        return _report(AliasState.IN_STEP, None, None, "There is no champion yet.")
    if champion is not None and last is not None and last.kind == PROJECTED:
        found = glance(database.url("mlflow"), model, "champion")
        if found == champion.version and last.payload["revision"] == champion.revision:
            return _report(AliasState.IN_STEP, found, found, "The alias is in step.")
    return reconcile(model, database, open_registry())


def alarm_row(database: Database, model: str) -> "LedgerEntry | None":
    """The ledger's newest row about an alias that was moved, or a champion that is gone."""
    from aios_platform.ledger.entries import entries

    rows = [
        row
        for kind in (TAMPERED, MISSING)
        for row in entries(database, subject=model, kind=kind, limit=1)
    ]
    return max(rows, key=lambda row: row.seq, default=None)


def report_of(row: "LedgerEntry") -> AliasReport:
    """What the look that wrote an alarm's row reported."""
    version = row.payload["version"]
    if row.kind == MISSING:
        message = _gone(row.subject, version, row.payload["why"])
        return _report(AliasState.MISSING, version, None, message)
    found = row.payload["found"]
    return _report(AliasState.TAMPERED, version, found, _tampered(row.subject, found, version))


def _tampered(model: str, found: str | None, wanted: str | None) -> str:
    return (
        f"The alias 'champion' of {model} in MLflow pointed at version {found}; the ledger "
        f"says {wanted}. Nobody may move it by hand: it was put back."
    )


def _gone(model: str, version: str | None, why: str) -> str:
    return (
        f"Version {version} of {model} is live and MLflow does not have it: {why} Its bytes are "
        "still in the artifact root, and scoring goes on."
    )


def _by_hand(last: "LedgerEntry | None", champion: Champion | None, found: str | None) -> bool:
    """Whether the wrong alias is somebody's doing, and not noticed before."""
    if last is None:
        return found is not None
    if last.kind == TAMPERED:
        return bool(found != last.payload["found"])
    if champion is not None and last.payload["revision"] == champion.revision:
        return True
    return bool(found != last.payload["version"])


def _last(database: Database, model: str) -> "LedgerEntry | None":
    from aios_platform.ledger.entries import entries

    rows = [
        row
        for kind in (PROJECTED, TAMPERED)
        for row in entries(database, subject=model, kind=kind, limit=1)
    ]
    return max(rows, key=lambda row: row.seq, default=None)


def _note(
    database: Database,
    model: str,
    kind: str,
    champion: Champion | None,
    found: str | None,
    last: "LedgerEntry | None",
) -> "LedgerEntry | None":
    """Write a row unless the last one says the same already."""
    from aios_platform.ledger.entries import append, entry

    revision = champion.revision if champion else 0
    if last is not None and last.kind == kind == PROJECTED and last.payload["revision"] == revision:
        return last
    with database.begin() as connection:
        row = append(
            connection,
            kind=kind,
            subject=model,
            payload={
                "version": champion.version if champion else None,
                "revision": revision,
                "found": found,
            },
            key=f"{kind}:{model}:{revision}:{last.seq if last else 0}",
            evidence=[champion.model_digest] if champion else [],
        )
    return entry(database, row)


def _missing(
    model: str,
    database: Database,
    champion: Champion | None,
    found: str | None,
    error: RegistryError,
) -> AliasReport:
    from aios_platform.ledger.entries import append

    version = champion.version if champion else None
    message = _gone(model, version, error.what)
    logger.error(message)
    if champion is not None:
        _raise(
            database,
            model,
            AlertKind.CHAMPION_MISSING,
            str(champion.revision),
            message,
            {"champion": version, "why": error.what},
        )
        with database.begin() as connection:
            append(
                connection,
                kind=MISSING,
                subject=model,
                payload={"version": version, "revision": champion.revision, "why": error.what},
                key=f"{MISSING}:{model}:{champion.revision}",
                evidence=[champion.model_digest],
            )
    return _report(AliasState.MISSING, version, found, message)


def _raise(
    database: Database,
    model: str,
    kind: AlertKind,
    about: str,
    message: str,
    evidence: dict[str, str | None],
) -> None:
    now = datetime.now(UTC)
    alarm(database, model, kind, about, message, now=now, past=False, evidence=evidence)


def _report(
    state: AliasState, champion: str | None, found: str | None, message: str
) -> AliasReport:
    return AliasReport(state=state, champion=champion, found=found, message=message)
