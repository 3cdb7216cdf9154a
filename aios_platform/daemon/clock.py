"""A clock that stepped back, and the sensors that it would silence.

Dagster evaluates a sensor when so much time has passed since its last tick. After a step back by
an hour no time has passed for an hour, and no sensor is evaluated, without an error anywhere. Its
daemons that sleep until a moment (the queue of runs, run monitoring) do the same in memory.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import SensorInstigatorData

from aios_platform.alerts.outbox import try_raise
from aios_platform.contracts.alerts import PLATFORM, Alert, AlertKind, Severity
from aios_platform.database import Database

logger = logging.getLogger(__name__)

# Less is a correction as time servers make them, and delays a sensor by no more.
STEP_SECONDS = 20.0
TICK_SECONDS = 1.0


class Clock:
    """The wall clock, compared with one that cannot be set."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._steady = wall, steady
        self._ahead = wall() - steady()

    def stepped_back(self) -> float:
        """By how many seconds the wall clock was set back since the last look; 0: by none."""
        ahead = self._wall() - self._steady()
        step, self._ahead = self._ahead - ahead, ahead
        return step if step > STEP_SECONDS else 0.0


def wake_sensors(instance: dg.DagsterInstance, now: float) -> list[str]:
    """Set back the last ticks that lie in the future, so that their sensors tick again.

    To be called while no daemon of ours evaluates them.

    Args:
        instance: Dagster's records.
        now: The present, in seconds since 1970.

    Returns:
        Names of the sensors that would have been silent.
    """
    silent = []
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        data = state.instigator_data
        if not isinstance(data, SensorInstigatorData):
            continue
        ticks = (data.last_tick_timestamp or 0.0, data.last_tick_start_timestamp or 0.0)
        if max(ticks) > now + TICK_SECONDS:
            earlier = now - (data.min_interval or 0)
            ended, begun = (min(tick, earlier) if tick else None for tick in ticks)
            instance.update_instigator_state(
                state.with_data(
                    data._replace(last_tick_timestamp=ended, last_tick_start_timestamp=begun)
                )
            )
            silent.append(state.instigator_name)
    return sorted(silent)


def tell_step(database: Database, seconds: float, silent: list[str]) -> None:
    """Log a step back of the clock and alert a person, once a day at most."""
    now = datetime.now(UTC)
    logger.error(
        "The clock was set back%s. Sensors whose last tick lay in the future: %s.",
        f" by {seconds:.0f} s" if seconds else "",
        ", ".join(silent) or "none",
    )
    alert = Alert(
        kind=AlertKind.CLOCK_STEPPED_BACK,
        subject=PLATFORM,
        key=f"{AlertKind.CLOCK_STEPPED_BACK}:{now.date()}",
        severity=Severity.WARNING,
        summary="The machine's clock was set back. Sensors were set to tick again; schedules "
        "come when the clock is where it was.",
        evidence={"seconds": seconds, "sensors": silent},
        raised_at=now,
    )
    try_raise(database, alert)
