"""The moment as of which online features are read; it decides which are too old."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_moment: ContextVar[datetime | None] = ContextVar("aios_reading_time", default=None)


def reading_time() -> datetime:
    """The moment set by `reading_as_of`, else now."""
    return _moment.get() or datetime.now(UTC)


@contextmanager
def reading_as_of(moment: datetime | None) -> Iterator[None]:
    """Let online reads judge ages as of this moment; None: now.

    A replay of past windows needs this: by the clock on the wall all its features are too old.
    """
    if moment is not None and moment.tzinfo is None:
        raise ValueError(f"the reading time {moment} has no time zone")
    token = _moment.set(moment)
    try:
        yield
    finally:
        _moment.reset(token)
