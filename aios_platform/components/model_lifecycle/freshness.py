"""Freshness of a model's windows, predictions and labels: looked at, shown, and told."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from aios_platform.components.model_lifecycle.alarms import alarm, calm
from aios_platform.components.model_lifecycle.deliveries import missing_windows
from aios_platform.components.model_lifecycle.documents import find_document
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.alerts import AlertKind
from aios_platform.resources.stores import Artifacts, Ledger

if TYPE_CHECKING:
    from aios_platform.artifacts import ArtifactStore
    from aios_platform.database import Database
    from aios_platform.monitoring.freshness import Lateness

ON_TIME = "on_time"
LABELS_COMPLETE = "labels_complete"
KINDS = {
    "window": AlertKind.WINDOW_LATE,
    "predictions": AlertKind.PREDICTIONS_LATE,
    "labels": AlertKind.LABELS_LATE,
}


def look_at_freshness(
    names: Names, store: "ArtifactStore", database: "Database", now: datetime, *, past: bool
) -> "list[Lateness]":
    """What is late, with an alert for each; alerts whose cause is gone are taken back.

    Args:
        names: The model.
        store: The artifact root.
        database: Where ledger and alerts are.
        now: The lifecycle's clock, aware.
        past: Whether it looks at the past: nobody is told then.

    Raises:
        DatabaseUnavailable: The ledger or the alerts cannot be read.
    """
    from aios_platform.alerts.outbox import alerts
    from aios_platform.ledger.champions import champion_of
    from aios_platform.monitoring.freshness import find_late
    from aios_platform.monitoring.performance import Performance

    closed = names.declaration.windows.windows(now)
    champion = champion_of(database, names.model)
    scored = set(store.keys(names.predictions))
    performance = {
        window.key: found
        for window in closed
        if window.key in scored
        and (found := find_document(names, store, "performance", window.key, Performance))
    }
    late = find_late(
        names.declaration,
        closed=closed,
        delivered=set(store.keys(names.raw_rows)),
        scored=scored,
        to_score={w.key for w in closed if champion and w.key > champion.trained_through},
        performance=performance,
        missing={d.window: d.reason for d in missing_windows(names, store)},
        now=now,
    )
    for each in late:
        alarm(
            database, names.model, KINDS[each.what], each.window, each.reason,
            now=now, past=past, evidence={"due": each.due.isoformat()},
        )  # fmt: skip
    still = {(KINDS[each.what], each.window) for each in late}
    for raised in alerts(database, subject=names.model, open_only=True, limit=1000):
        kind, about = raised.alert.kind, raised.alert.key.rsplit(":", 1)[-1]
        if kind in KINDS.values() and (kind, about) not in still:
            calm(database, names.model, kind, about, "it is here now")
    return late


def freshness_sensor(names: Names) -> dg.SensorDefinition:
    """`<model>__freshness`: what is late becomes an alert and fails a check of its asset."""

    @dg.sensor(
        name=names.job("freshness"),
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus(names.automation),
        description="Windows that did not come, windows that were not scored, labels that are "
        "missing: alerts, and the checks on_time and labels_complete.",
    )
    def freshness(
        context: dg.SensorEvaluationContext, artifacts: Artifacts, ledger: Ledger
    ) -> dg.SensorResult | dg.SkipReason:
        now = datetime.now(UTC)
        late = look_at_freshness(names, artifacts.open(), ledger.open(), now, past=False)
        found = "; ".join(sorted(f"{each.what} {each.window}" for each in late))
        if found == (context.cursor or ""):
            return dg.SkipReason(found or "Nothing is late.")
        # Only a change is an event: a look that finds nothing new is not.
        return dg.SensorResult(asset_events=_evaluations(names, late), cursor=found)

    return freshness


def _evaluations(names: Names, late: "list[Lateness]") -> list[dg.AssetCheckEvaluation]:
    by_check = {
        ("predictions", ON_TIME): [each for each in late if each.what != "labels"],
        ("performance", LABELS_COMPLETE): [each for each in late if each.what == "labels"],
    }
    return [
        dg.AssetCheckEvaluation(
            asset_key=names.asset(asset),
            check_name=check,
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={each.window: dg.MetadataValue.text(each.reason) for each in found},
        )
        for (asset, check), found in by_check.items()
    ]
