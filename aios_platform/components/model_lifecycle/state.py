"""Reads the state of a model's lifecycle from the artifact root and the ledger."""

from datetime import datetime, timedelta

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.plan import LifecycleState
from aios_platform.contracts.decisions import Champion, Decision, RetrainAction
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.database import Database
from aios_platform.ledger.approvals import requests
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import LedgerEntry, entries

VERDICT = "verdict"
RETRAIN_DECISION = "retrain_decision"
VOID = "approval_void"
# More rows than a model writes in decades of monthly windows.
MOST_ROWS = 10_000


def matured_keys(declaration: ModelDeclaration, as_of: datetime) -> list[str]:
    """Keys of the windows whose labels are complete at `as_of`, oldest first."""
    wait = timedelta(days=declaration.label.maturity_days)
    return [window.key for window in declaration.windows.windows(as_of - wait)]


def featured_keys(names: Names, store: ArtifactStore) -> frozenset[str]:
    """Keys of the windows that have validated rows and every feature table."""
    found = set(store.keys(names.raw_rows))
    for dataset in names.feature_tables:
        found &= set(store.keys(dataset))
    return frozenset(found)


def read_state(
    declaration: ModelDeclaration,
    names: Names,
    store: ArtifactStore,
    database: Database,
    as_of: datetime,
) -> LifecycleState:
    """Read what is there.

    Args:
        declaration: The model.
        names: Its datasets.
        store: The artifact root.
        database: Where the ledger lives.
        as_of: The clock of the lifecycle, aware.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
        ArtifactCorrupt: A list of versions cannot be read.
    """
    closed = tuple(window.key for window in declaration.windows.windows(as_of))
    champion = champion_of(database, declaration.name)
    decisions = entries(database, subject=declaration.name, kind=RETRAIN_DECISION, limit=MOST_ROWS)
    ours = [row for row in decisions if champion and row.payload["version"] == champion.version]
    return LifecycleState(
        closed=closed,
        matured=tuple(matured_keys(declaration, as_of)),
        featured=featured_keys(names, store),
        champion_version=champion.version if champion else None,
        trained_through=champion.trained_through if champion else None,
        scored=_scored(store, names, champion),
        judged=frozenset(row.payload["decision"]["window"] for row in ours),
        retrain_wanted=_wanted(ours),
        verdicts=_answered(database, declaration.name),
        approved=_approved(database, declaration.name),
    )


def _answered(database: Database, model: str) -> frozenset[str]:
    """Causes whose verdict was carried out: refused, promoted, or laid before an approver.

    A request counts whatever became of it: one that was rejected or expired is an answer, too.
    """
    verdicts = entries(database, subject=model, kind=VERDICT, limit=MOST_ROWS)
    promotions = entries(database, subject=model, kind="promotion", limit=MOST_ROWS)
    promoted = {row.payload["champion"]["version"] for row in promotions}
    asked = {request.candidate_version for request in requests(database, model=model)}
    return frozenset(
        row.payload["cause"]
        for row in verdicts
        if row.payload["verdict"]["decision"] != Decision.PROMOTE
        or row.payload["verdict"]["candidate_version"] in promoted | asked
    )


def void_requests(database: Database, model: str) -> frozenset[int]:
    """Approved requests whose approval turned out void when it was to be carried out."""
    rows = entries(database, subject=model, kind=VOID, limit=MOST_ROWS)
    return frozenset(int(row.payload["request"]) for row in rows)


def _approved(database: Database, model: str) -> int | None:
    """Oldest request whose approval was neither carried out nor found void."""
    void = void_requests(database, model)
    waiting = [
        request.ledger_row
        for request in requests(database, model=model, state="approved")
        if not request.promoted and request.ledger_row not in void
    ]
    return min(waiting, default=None)


def _scored(store: ArtifactStore, names: Names, champion: Champion | None) -> frozenset[str]:
    if champion is None:
        return frozenset()
    current = (
        (key, store.current(names.predictions, key)) for key in store.keys(names.predictions)
    )
    return frozenset(
        key
        for key, version in current
        if version and version.inputs.get("model_version") == champion.version
    )


def _wanted(decisions: list[LedgerEntry]) -> str | None:
    for row in decisions:
        decision = row.payload["decision"]
        if decision["action"] == RetrainAction.RETRAIN:
            return str(decision["window"])
    return None
