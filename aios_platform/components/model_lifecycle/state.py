"""Reads the state of a model's lifecycle from the artifact root and the ledger."""

from datetime import datetime, timedelta

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.deliveries import awaited, settled
from aios_platform.components.model_lifecycle.documents import document_keys
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.plan import LifecycleState, approval_cause
from aios_platform.contracts.decisions import Decision, RetrainAction, RetrainDecision
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.database import Database
from aios_platform.ledger.approvals import requests
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import LedgerEntry, entries
from aios_platform.ledger.health import MOST_ROWS, RETRAIN_DECISION
from aios_platform.ledger.rollouts import newest

VERDICT = "verdict"
VOID = "approval_void"
GAVE_UP = "gave_up"


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
    *,
    patient: bool = False,
) -> LifecycleState:
    """Read what is there.

    Args:
        declaration: The model.
        names: Its datasets.
        store: The artifact root.
        database: Where the ledger lives.
        as_of: The clock of the lifecycle, aware.
        patient: Whether to try again what was given up, or is not yet to be asked for again: for
            a person's command, which is given when a cause was mended.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
        ArtifactCorrupt: A list of versions cannot be read.
    """
    closed = tuple(window.key for window in declaration.windows.windows(as_of))
    champion = champion_of(database, declaration.name)
    decisions = entries(database, subject=declaration.name, kind=RETRAIN_DECISION, limit=MOST_ROWS)
    ours = [row for row in decisions if champion and row.payload["version"] == champion.version]
    matured = tuple(matured_keys(declaration, as_of))
    featured = featured_keys(names, store)
    asked, passed_over = awaited(names, store, as_of, patient=patient)
    given_up = frozenset() if patient else _given_up(database, declaration.name)
    return LifecycleState(
        closed=closed,
        matured=matured,
        featured=featured,
        settled=settled(names, store, [key for key in matured if key in featured]),
        asked=asked,
        passed_over=passed_over,
        champion_version=champion.version if champion else None,
        trained_through=champion.trained_through if champion else None,
        scored=_scored(names, store),
        judged=frozenset(row.payload["decision"]["window"] for row in decisions),
        retrain_wanted=_wanted(ours),
        verdicts=_answered(database, declaration.name),
        given_up=given_up,
        approved=_approved(database, declaration.name, given_up),
    )


def _scored(names: Names, store: ArtifactStore) -> frozenset[str]:
    """Windows with predictions that were watched: after a kill in between, both are made up for."""
    return frozenset(store.keys(names.predictions)) & frozenset(
        document_keys(names, store, "drift")
    )


def decision_cause(decision: RetrainDecision) -> str:
    """The cause of a training that a decision asks for."""
    restated = f", restated ({decision.revision})" if decision.revision > 1 else ""
    return f"decision on window {decision.window}{restated}"


def _given_up(database: Database, model: str) -> frozenset[str]:
    rows = entries(database, subject=model, kind=GAVE_UP, limit=MOST_ROWS)
    return frozenset(str(row.payload["cause"]) for row in rows)


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


def _approved(database: Database, model: str, given_up: frozenset[str]) -> int | None:
    """Oldest request whose approval was neither carried out, nor found void, nor given up."""
    void = void_requests(database, model)
    rollout = newest(database, model)
    # Its approval lets the rollout begin, which promotes the candidate at its end.
    rolled_out = rollout.approval if rollout is not None and rollout.open else None
    waiting = [
        request.ledger_row
        for request in requests(database, model=model, state="approved")
        if not request.promoted
        and request.ledger_row not in void
        and request.ledger_row != rolled_out
        and approval_cause(request.ledger_row) not in given_up
    ]
    return min(waiting, default=None)


def _wanted(decisions: list[LedgerEntry]) -> str | None:
    """The newest decision to train again, unless a newer look at the same window took it back."""
    seen: set[str] = set()
    for row in decisions:
        decision = RetrainDecision.model_validate(row.payload["decision"])
        if decision.window in seen:
            continue
        seen.add(decision.window)
        if decision.action is RetrainAction.RETRAIN:
            return decision_cause(decision)
    return None
