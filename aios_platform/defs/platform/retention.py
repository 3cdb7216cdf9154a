"""The sensor that deletes what was kept long enough."""

import logging
from datetime import UTC, datetime, timedelta

import dagster as dg

from aios_platform.components.model_lifecycle.discovery import declared_models
from aios_platform.errors import AiosError
from aios_platform.resources.stores import Ledger
from aios_platform.retention import prune, undecided_since
from aios_platform.settings import settings

logger = logging.getLogger(__name__)


@dg.sensor(
    name="platform__retention",
    minimum_interval_seconds=6 * 3600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Deletes records of served traffic and resolved alerts that are older than "
    "AIOS_RETENTION_DAYS, but for those that a window without decision or an open rollout needs.",
)
def retention(ledger: Ledger) -> dg.SkipReason:
    """One look: a bounded number of rows."""
    now = datetime.now(UTC)
    try:
        database = ledger.open()
        undecided = {
            names.model: undecided_since(database, names.model, names.declaration.windows, now)
            for names in declared_models().values()
        }
        found = prune(database, now - timedelta(days=settings().retention_days), undecided)
    except AiosError as error:
        logger.error("Nothing more was deleted: %s", error)
        return dg.SkipReason(f"Nothing more was deleted: {error}")
    gone = ", ".join(f"{count} of {table}" for table, count in found.rows.items() if count)
    rest = "; more is left for the next time" if found.more else ""
    return dg.SkipReason(f"Deleted rows: {gone or 'none'}{rest}.")
