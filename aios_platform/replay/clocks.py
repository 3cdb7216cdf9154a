"""The moments at which a replay looks: when a window closes, and when its labels are complete."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from aios_platform.contracts.declaration import ModelDeclaration


@dataclass(frozen=True)
class Tick:
    """One moment of a replay.

    Attributes:
        clock: The moment, aware.
        closed: Windows that are over since just now.
        matured: Windows whose labels are complete since just now.
    """

    clock: datetime
    closed: tuple[str, ...]
    matured: tuple[str, ...]


def ticks(declaration: ModelDeclaration, first: str, last: str) -> list[Tick]:
    """The moments of a replay, in order.

    Args:
        declaration: The model.
        first: Key of the first window; what lies before is there when the replay begins.
        last: Key of the last window; the replay ends when its labels are complete.

    Raises:
        ValueError: A key is not one of the schedule's, or they are in the wrong order.
    """
    schedule = declaration.windows
    begin, end = schedule.window(first), schedule.window(last)
    if end.start < begin.start:
        raise ValueError(f"the last window {last} lies before the first, {first}")
    wait = timedelta(days=declaration.label.maturity_days)
    closed: dict[datetime, list[str]] = {}
    matured: dict[datetime, list[str]] = {}
    for window in schedule.windows(end.end):
        if window.start < begin.start:
            continue
        closed.setdefault(window.end, []).append(window.key)
        matured.setdefault(window.end + wait, []).append(window.key)
    return [
        Tick(clock, tuple(closed.get(clock, ())), tuple(matured.get(clock, ())))
        for clock in sorted({*closed, *matured})
    ]
