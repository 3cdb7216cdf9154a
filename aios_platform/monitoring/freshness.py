"""What should be here by now and is not: windows, predictions, labels. A pure function."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.record import Record
from aios_platform.contracts.windows import Window
from aios_platform.monitoring.performance import Performance, PerformanceStatus, matures_at


class Late(StrEnum):
    """What of a window is late."""

    WINDOW = "window"
    PREDICTIONS = "predictions"
    LABELS = "labels"


class Lateness(Record):
    """Something of a window that is late."""

    window: str
    what: Late
    due: datetime = Field(description="When it should have been here.")
    reason: str


def find_late(
    declaration: ModelDeclaration,
    *,
    closed: Iterable[Window],
    delivered: Collection[str],
    scored: Collection[str],
    to_score: Collection[str],
    performance: Mapping[str, Performance],
    missing: Mapping[str, str],
    now: datetime,
) -> list[Lateness]:
    """What is late at a moment, oldest window first.

    Args:
        declaration: The model, which says how late is late.
        closed: Windows that are over.
        delivered: Those that have rows.
        scored: Those that have predictions.
        to_score: Those that ought to have some, since there is a champion to make them.
        performance: What is known of the predictions of a window.
        missing: Why a window did not come, where somebody said so.
        now: The moment, aware.
    """
    patience = timedelta(hours=declaration.source.max_delay_hours)
    found = []
    for window in closed:
        due = window.end + patience
        if window.key not in delivered:
            if now > due:
                why = missing.get(window.key, "nobody asked for it yet")
                found.append(_late(window, Late.WINDOW, due, f"did not come: {why}"))
        elif window.key in to_score and window.key not in scored:
            if now > due:
                found.append(_late(window, Late.PREDICTIONS, due, "came, and was not scored"))
        elif window.key in scored and matures_at(window, declaration.label) <= now:
            lacking = lacking_labels(declaration, performance.get(window.key))
            if lacking:
                due = matures_at(window, declaration.label)
                found.append(_late(window, Late.LABELS, due, lacking))
    return found


def lacking_labels(declaration: ModelDeclaration, found: Performance | None) -> str:
    """What labels a matured window lacks, in words; empty: it has enough.

    Args:
        declaration: The model.
        found: What is known of the window's predictions; None: they were never measured.
    """
    if found is None or found.status is PerformanceStatus.NOT_MATURED:
        return "has matured, and was not measured"
    if not found.predictions:
        return ""
    # What never gets a label is among those that are missing, so a share is asked for, not all.
    share = (found.predictions - found.unlabelled_predictions) / found.predictions
    if share >= declaration.label.min_share:
        return ""
    return (
        f"has matured, and {share:.0%} of its predictions have a label; "
        f"{declaration.label.min_share:.0%} are expected"
    )


def _late(window: Window, what: Late, due: datetime, reason: str) -> Lateness:
    text = f"{window.key} {reason} (due {due:%Y-%m-%d %H:%M} UTC)."
    return Lateness(window=window.key, what=what, due=due, reason=text)
