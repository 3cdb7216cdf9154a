"""Runs Dagster's daemon in this process, as long as the process holds the daemon's lock."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from aios_platform.daemon.clock import Clock, tell_step, wake_sensors
from aios_platform.daemon.guard import Guard
from aios_platform.daemon.seat import Seat, taken
from aios_platform.database import Database, database
from aios_platform.errors import DatabaseUnavailable

if TYPE_CHECKING:
    import dagster as dg

logger = logging.getLogger(__name__)

AGAIN = "--again"
WAIT_SECONDS = 2.0


def schedule(workspace: Path) -> None:
    """Take the daemon's place when it is free, and schedule until interrupted.

    An outage of the server ends nothing: the process starts anew, and waits for it. The
    environment is that of Dagster's own commands (`services.environment`).

    Args:
        workspace: File that names the code locations.
    """
    opened = database()
    try:
        with taken(opened) as seat:
            _schedule(opened, seat, workspace)
    except DatabaseUnavailable as error:
        start_anew(workspace, error.what)


def _schedule(opened: Database, seat: Seat, workspace: Path) -> None:
    import dagster as dg
    from dagster._daemon.cli import run_command

    guard = Guard(
        seat.lock.still_held,
        Clock(),
        stepped=lambda seconds: tell_step(opened, seconds, []),
        start_anew=lambda reason: start_anew(workspace, reason),
    )
    guard.start()
    try:
        with dg.DagsterInstance.get() as instance:
            make_up_for_step(opened, instance)
        # The command `dagster-daemon run`, whose options are public; it returns on SIGTERM.
        run_command.main(["-w", str(workspace)], standalone_mode=False)
    except Exception:
        if guard.lost():
            start_anew(workspace, "it failed, and its lock is gone")
        raise
    finally:
        guard.stop()


def make_up_for_step(opened: Database, instance: "dg.DagsterInstance") -> None:
    """Let sensors tick whose last tick lies in the future, and alert a person if there are any."""
    silent = wake_sensors(instance, time.time())
    if silent:
        tell_step(opened, 0.0, silent)


def start_anew(workspace: Path, reason: str) -> NoReturn:
    """Replace this process by a fresh daemon: its threads and connections end at once."""
    logger.error("The daemon starts anew: %s.", reason)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, command(workspace, AGAIN))


def command(workspace: Path, *options: str) -> list[str]:
    """The command line of a daemon on a workspace."""
    return [sys.executable, "-m", "aios_platform", "daemon", "-w", str(workspace), *options]


def wait_for(limit: float = float("inf")) -> Database:
    """The database, as soon as it answers: a daemon that starts anew outlives a restart of it.

    Raises:
        DatabaseUnavailable: It did not answer within the limit, in seconds.
    """
    begun, said = time.monotonic(), False
    while True:
        try:
            return database()
        except DatabaseUnavailable as error:
            if time.monotonic() - begun > limit:
                raise
            if not said:
                logger.warning("The daemon waits for its database: %s", error.what)
                said = True
            time.sleep(WAIT_SECONDS)
