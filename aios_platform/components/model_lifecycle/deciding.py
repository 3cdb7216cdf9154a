"""Gathers the evidence of a retrain decision, decides, and writes the row of the ledger."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.alarms import alarm, calm
from aios_platform.components.model_lifecycle.documents import as_json, find_document, read_document
from aios_platform.components.model_lifecycle.faults import search_faults
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.observations import EARLIER
from aios_platform.components.model_lifecycle.scorers import scorer_of
from aios_platform.components.model_lifecycle.state import (
    GAVE_UP,
    VERDICT,
    decision_cause,
    matured_keys,
)
from aios_platform.contracts.alerts import AlertKind
from aios_platform.contracts.decisions import Champion, RetrainDecision, Verdict
from aios_platform.contracts.windows import Window
from aios_platform.database import Database
from aios_platform.features.pinned_sets import recall
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import append, entries, payload_of
from aios_platform.ledger.health import MOST_ROWS, RETRAIN_DECISION

if TYPE_CHECKING:
    from aios_platform.monitoring.performance import Performance
    from aios_platform.monitoring.retraining import Attempt, RetrainEvidence

ALERTS = {
    AlertKind.DATA_FAULT: "data_fault",
    AlertKind.BUDGET_SPENT: "budget",
    AlertKind.DEGRADATION: "degradation",
}


def decide_on(
    names: Names,
    store: ArtifactStore,
    database: Database,
    window: Window,
    as_of: datetime,
    *,
    past: bool = False,
) -> RetrainDecision | None:
    """The decision on a matured window, as a row of the ledger; None while labels are missing.

    It is about the version that scored the window. It stands until the figures that it rests on
    are restated; then there is another.

    Args:
        names: The model.
        store: The artifact root.
        database: Where the ledger lives.
        window: The window.
        as_of: The lifecycle's clock, aware.
        past: Whether that clock looks at the past: nobody is told of an alert then.

    Raises:
        LifecycleError: The window was not watched.
        DatabaseUnavailable: The ledger cannot be read or written.
    """
    from aios_platform.monitoring.drift import DriftReport
    from aios_platform.monitoring.performance import Performance
    from aios_platform.monitoring.retraining import decide

    if window.key not in matured_keys(names.declaration, as_of):
        return None
    performance = read_document(names, store, "performance", window.key, Performance)
    drift = read_document(names, store, "drift", window.key, DriftReport)
    [version] = performance.model_versions
    rows = [
        row
        for row in entries(database, subject=names.model, kind=RETRAIN_DECISION, limit=MOST_ROWS)
        if (row.payload["version"], row.payload["decision"]["window"]) == (version, window.key)
    ]
    if rows and rows[0].payload["performance"]["revision"] == performance.revision:
        return RetrainDecision.model_validate(rows[0].payload["decision"])
    scorer = scorer_of(names, database, version)
    decision = decide(
        model=names.model,
        window=window.key,
        metric=names.declaration.gate.metric,
        policy=names.declaration.retrain,
        evidence=_evidence(names, store, database, window.key, scorer),
        decided_at=as_of,
        revision=len(rows) + 1,
    )
    documents = {
        "performance": store.put(as_json(performance), ".json")[0],
        "drift": store.put(as_json(drift), ".json")[0],
    }
    revision = f":{decision.revision}" if decision.revision > 1 else ""
    with database.begin() as connection:
        number = append(
            connection,
            kind=RETRAIN_DECISION,
            subject=names.model,
            payload={
                "version": version,
                "decision": decision.model_dump(mode="json"),
                "performance": performance.model_dump(mode="json"),
                "drifted": list(drift.drifted),
                "documents": documents,
            },
            key=f"{RETRAIN_DECISION}:{names.model}:{version}:{window.key}{revision}",
            evidence=list(documents.values()),
        )
        written = RetrainDecision.model_validate(payload_of(connection, number)["decision"])
    _tell(names, database, written, number, as_of, past=past)
    return written


def _tell(
    names: Names,
    database: Database,
    decision: RetrainDecision,
    row: int,
    now: datetime,
    *,
    past: bool,
) -> None:
    """Raise the alert that a decision calls for, and take back what it shows to be over."""
    for kind, cause in ALERTS.items():
        if decision.cause == cause:
            alarm(
                database, names.model, kind, decision.window,
                f"Window {decision.window}: {decision.reason}",
                now=now, past=past, evidence=decision.evidence, ledger_row=row,
            )  # fmt: skip
        else:
            calm(database, names.model, kind, decision.window, f"row {row} says otherwise")


def _evidence(
    names: Names, store: ArtifactStore, database: Database, key: str, champion: Champion
) -> "RetrainEvidence":
    from aios_platform.monitoring.drift import DriftReport
    from aios_platform.monitoring.performance import Performance
    from aios_platform.monitoring.retraining import RetrainEvidence

    metric = names.declaration.gate.metric
    performance = read_document(names, store, "performance", key, Performance)
    drift = read_document(names, store, "drift", key, DriftReport)
    live = champion_of(database, names.model)
    # The kept report, unless the window's tables have changed since.
    faults = search_faults(names, store, key).faults
    return RetrainEvidence(
        live=live is not None and live.version == champion.version,
        baseline=champion.baseline.get(metric),
        observed=performance.metrics.get(metric),
        low=performance.low,
        high=performance.high,
        expected=_expected(performance, metric),
        degraded_before=_degraded_before(names, database, key, champion),
        age_windows=_windows_between(names, champion.trained_through, key),
        **_new_data(names, store, key, champion),
        attempts=_attempts(names, database, key),
        drift_share=drift.share,
        weighted_drift_share=drift.weighted_share,
        drifted=drift.status == "drifted",
        seasonal=_seasonal(names, store, key),
        faults=tuple(fault.reason for fault in faults),
    )


def _expected(performance: "Performance", metric: str) -> float | None:
    promised = performance.estimate.metrics.get(metric) if performance.estimate else None
    return promised.value if promised else None


def _seasonal(names: Names, store: ArtifactStore, key: str) -> bool | None:
    """Whether the window is like the same season of a year before; None: unknown."""
    from aios_platform.monitoring.drift import DriftReport, DriftStatus

    if names.declaration.monitoring.reference != "season":
        return None
    earlier = find_document(names, store, EARLIER, key, DriftReport)
    if earlier is None or earlier.status is DriftStatus.NOT_ENOUGH_DATA:
        return None
    return earlier.status is DriftStatus.STABLE


def _degraded_before(names: Names, database: Database, key: str, champion: Champion) -> int:
    """Windows in a row before this one in which the same champion counted as degraded."""
    rows = entries(database, subject=names.model, kind=RETRAIN_DECISION, limit=MOST_ROWS)
    # Oldest first, so that of several decisions on a window the newest counts.
    decisions = {
        row.payload["decision"]["window"]: RetrainDecision.model_validate(row.payload["decision"])
        for row in reversed(rows)
        if row.payload["version"] == champion.version
    }
    count, earlier = 0, names.declaration.windows.shift(key, -1)
    while earlier is not None and earlier in decisions:
        # A window whose data were at fault says nothing, either way.
        if not decisions[earlier].faults:
            if not decisions[earlier].degraded:
                break
            count += 1
        earlier = names.declaration.windows.shift(earlier, -1)
    return count


def _attempts(names: Names, database: Database, key: str) -> "tuple[Attempt, ...]":
    """Trainings, newest first, each with what the first verdict on it says."""
    from aios_platform.metrics import gain
    from aios_platform.monitoring.retraining import Attempt

    metric = names.declaration.gate.metric
    found: dict[str, tuple[int, Attempt]] = {}
    for row in entries(database, subject=names.model, kind=VERDICT, limit=MOST_ROWS):
        verdict = Verdict.model_validate(row.payload["verdict"])
        if not verdict.exam_windows:
            continue
        helped = None
        if verdict.champion_version is not None:
            own, other = (
                metrics.get(metric)
                for metrics in (verdict.candidate_metrics, verdict.champion_metrics)
            )
            better = own is not None and other is not None and gain(metric, own, other) > 0
            helped = verdict.decision == "promote" and better
        since = _windows_between(names, verdict.exam_windows[-1], key)
        # Rows come newest first; that of the training itself is the version's oldest.
        found[verdict.candidate_version] = row.seq, Attempt(windows_since=since, helped=helped)
    given_up = _given_up(names, database, key)
    ordered = sorted([*found.values(), *given_up], key=lambda each: each[0], reverse=True)
    return tuple(attempt for _, attempt in ordered)


def _given_up(names: Names, database: Database, key: str) -> "list[tuple[int, Attempt]]":
    """Trainings whose runs failed until they were given up: they cost as much, and did not help."""
    from aios_platform.monitoring.retraining import Attempt

    rows = entries(database, subject=names.model, kind=GAVE_UP, limit=MOST_ROWS)
    causes = {str(row.payload["cause"]): row.seq for row in rows}
    if not causes:
        return []
    found = []
    for row in entries(database, subject=names.model, kind=RETRAIN_DECISION, limit=MOST_ROWS):
        decision = RetrainDecision.model_validate(row.payload["decision"])
        seq = causes.get(decision_cause(decision))
        if seq is not None:
            since = _windows_between(names, decision.window, key)
            found.append((seq, Attempt(windows_since=since, helped=False)))
    return found


def _new_data(names: Names, store: ArtifactStore, key: str, champion: Champion) -> dict[str, Any]:
    if names.declaration.retrain.new_data is None:
        return {}
    new, later = 0, names.declaration.windows.shift(champion.trained_through, 1)
    while later is not None and later <= key:
        version = store.current(names.raw_rows, later)
        # No model is trained on a window with a data fault.
        if version is not None and not search_faults(names, store, later).faults:
            new += version.rows
        later = names.declaration.windows.shift(later, 1)
    record = recall(store, names.model, champion.training_set_digest)
    return {"new_rows": new, "training_rows": record.rows}


def _windows_between(names: Names, earlier: str, later: str) -> int:
    count, key = 0, earlier
    while key < later:
        following = names.declaration.windows.shift(key, 1)
        if following is None:
            break
        key, count = following, count + 1
    return count
