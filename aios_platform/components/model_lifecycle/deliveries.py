"""Windows that did not come, or were refused: how often they were asked for, and when again."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.documents import (
    document_keys,
    find_document,
    write_document,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.record import Record

DELIVERIES = "deliveries"


class Missing(StrEnum):
    """Why a window is not there."""

    LATE = "late"
    REFUSED = "refused"


class Delivery(Record):
    """A window that was asked for in vain."""

    window: str
    missing: Missing
    asks: int = Field(ge=1, description="How often it was asked for.")
    first_asked: datetime
    last_asked: datetime
    reason: str


def note_missing(
    names: Names, store: ArtifactStore, key: str, missing: Missing, reason: str, now: datetime
) -> Delivery:
    """Write down that a window was asked for and is not there."""
    before = find_document(names, store, DELIVERIES, key, Delivery)
    delivery = Delivery(
        window=key,
        missing=missing,
        asks=before.asks + 1 if before else 1,
        first_asked=before.first_asked if before else now,
        last_asked=now,
        reason=reason,
    )
    write_document(names, store, DELIVERIES, key, delivery)
    return delivery


def missing_windows(names: Names, store: ArtifactStore) -> list[Delivery]:
    """The windows that were asked for and have no rows to this day, oldest first."""
    there = set(store.keys(names.raw_rows))
    found = (
        find_document(names, store, DELIVERIES, key, Delivery)
        for key in document_keys(names, store, DELIVERIES)
        if key not in there
    )
    return [delivery for delivery in found if delivery is not None]


def awaited(
    names: Names, store: ArtifactStore, as_of: datetime
) -> tuple[dict[str, int], frozenset[str]]:
    """The windows that were asked for in vain, with how often; and those to be left alone for now.

    Args:
        names: The model.
        store: The artifact root.
        as_of: The clock of the lifecycle, aware.
    """
    wait = timedelta(hours=names.declaration.source.ask_again_hours)
    deliveries = missing_windows(names, store)
    asked = {delivery.window: delivery.asks for delivery in deliveries}
    rest = frozenset(d.window for d in deliveries if not as_of >= d.last_asked + wait)
    return asked, rest
