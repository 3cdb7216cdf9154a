"""When windows came; which did not, or were refused, how often they were asked for, when again."""

from collections.abc import Sequence
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
from aios_platform.errors import LifecycleError

DELIVERIES = "deliveries"
READINGS = "readings"


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


class Reading(Record):
    """A window was read from its source, and was good."""

    window: str
    read_at: datetime = Field(description="By the lifecycle's clock.")


def note_read(names: Names, store: ArtifactStore, key: str, now: datetime) -> None:
    """Write down that a window was read; labels that come later are not in it yet."""
    write_document(names, store, READINGS, key, Reading(window=key, read_at=now))


def read_again(names: Names, store: ArtifactStore, key: str, now: datetime) -> None:
    """Have a window read from its source again, when the plan is carried out next.

    Raises:
        LifecycleError: It is not the schedule's, was never read, or is going to be read anyway.
    """
    schedule = names.declaration.windows
    try:
        window = schedule.window(key)
    except ValueError as error:
        raise LifecycleError(
            f"{names.model} has no such window: {error}.", remedy="Give the key of a window."
        ) from error
    reading = find_document(names, store, READINGS, key, Reading)
    due = window.end + timedelta(days=names.declaration.label.maturity_days)
    if reading is None or due > now:
        when = "when it comes" if reading is None else f"on {due:%Y-%m-%d}, for its labels"
        raise LifecycleError(
            f"{key} of {names.model} is read by itself {when}.",
            remedy="Leave out --read-again.",
        )
    if reading.read_at >= due:
        write_document(
            names, store, READINGS, key, reading.model_copy(update={"read_at": window.end})
        )


def settled(names: Names, store: ArtifactStore, keys: Sequence[str]) -> frozenset[str]:
    """Those of these windows that were read since their labels are complete."""
    declaration, found = names.declaration, set()
    wait = timedelta(days=declaration.label.maturity_days)
    for key in keys:
        reading = find_document(names, store, READINGS, key, Reading)
        if reading is not None and reading.read_at >= declaration.windows.window(key).end + wait:
            found.add(key)
    return frozenset(found)


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
    """The windows that were last asked for in vain, oldest first.

    One that has rows is among them when its repetition was refused: the last good version stays.
    """
    found = []
    for key in document_keys(names, store, DELIVERIES):
        delivery = find_document(names, store, DELIVERIES, key, Delivery)
        reading = find_document(names, store, READINGS, key, Reading)
        if delivery and (reading is None or reading.read_at < delivery.last_asked):
            found.append(delivery)
    return found


def awaited(
    names: Names, store: ArtifactStore, as_of: datetime, *, patient: bool = False
) -> tuple[dict[str, int], frozenset[str]]:
    """The windows that were asked for in vain, with how often; and those to be left alone for now.

    Args:
        names: The model.
        store: The artifact root.
        as_of: The clock of the lifecycle, aware.
        patient: For a person's command: what was refused and is not there is asked for again at
            once, and the rest once more, unless it was asked for at this very clock.
    """
    deliveries = missing_windows(names, store)
    asked = {delivery.window: delivery.asks for delivery in deliveries}
    if patient:
        there = set(store.keys(names.raw_rows))
        rest = [
            d
            for d in deliveries
            if (d.missing is Missing.LATE or d.window in there) and not as_of > d.last_asked
        ]
    else:
        wait = timedelta(hours=names.declaration.source.ask_again_hours)
        rest = [d for d in deliveries if not as_of >= d.last_asked + wait]
    return asked, frozenset(delivery.window for delivery in rest)
