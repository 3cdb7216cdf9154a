"""One daemon per installation: a lock in Postgres that dies with its holder, and a term.

Dagster lets any number of daemons run, and two of them launch the same work twice. Ours takes a
lock first; a second one stands by, says so, and takes over when the lock is free.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from socket import gethostname

from aios_platform.alerts.outbox import resolve, try_raise
from aios_platform.contracts.alerts import PLATFORM, Alert, AlertKind, Severity
from aios_platform.database import Database, Lock
from aios_platform.ledger.claims import DAEMON_LOCK, new_term, term_now

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
# A daemon that starts anew leaves its lock for seconds; another that stays is worth an alert.
ALERT_AFTER_SECONDS = 10.0


@dataclass(frozen=True)
class Seat:
    """The lock of the one daemon that schedules, and its term."""

    lock: Lock
    term: int


@contextmanager
def taken(database: Database) -> Iterator[Seat]:
    """Wait until no other daemon schedules, then take its place.

    Raises:
        DatabaseUnavailable: The server does not answer.
    """
    begun, said, alerted = time.monotonic(), False, False
    while True:
        with database.exclusive(DAEMON_LOCK) as lock:
            if lock.held:
                before = term_now(database)
                term = new_term(database)
                resolve(database, _alert_key(before), reason="the second daemon took over")
                logger.info("This daemon (process %d) schedules; term %d.", os.getpid(), term)
                yield Seat(lock, term)
                return
        if not said:
            logger.warning(
                "Another daemon is scheduling on this database. This one stands by, and takes "
                "over when the other ends."
            )
            said = True
        if not alerted and time.monotonic() - begun > ALERT_AFTER_SECONDS:
            _tell(database)
            alerted = True
        time.sleep(LOOK_SECONDS)


def _tell(database: Database) -> None:
    alert = Alert(
        kind=AlertKind.SECOND_DAEMON,
        subject=PLATFORM,
        key=_alert_key(term_now(database)),
        severity=Severity.WARNING,
        summary="A second scheduler daemon was started on this database; it stands by.",
        evidence={"host": gethostname(), "process": os.getpid()},
        raised_at=datetime.now(UTC),
    )
    try_raise(database, alert)


def _alert_key(term: int) -> str:
    return f"{AlertKind.SECOND_DAEMON}:{term}"
