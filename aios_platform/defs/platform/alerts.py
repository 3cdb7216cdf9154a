"""The sensor that takes alerts from the outbox to the outputs."""

import logging
from datetime import UTC, datetime

import dagster as dg

from aios_platform.alerts.delivery import anything_due, deliver_due
from aios_platform.errors import DatabaseUnavailable, SettingsError
from aios_platform.resources.stores import Ledger
from aios_platform.settings import settings

logger = logging.getLogger(__name__)


@dg.sensor(
    name="platform__deliver_alerts",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends what was raised to the log, the webhook and by e-mail; what an output does "
    "not take is sent again for three days. `aios alerts list` shows the alerts.",
)
def deliver_alerts(ledger: Ledger) -> dg.SkipReason:
    """One look: nothing that an output does makes it fail."""
    now = datetime.now(UTC)
    try:
        database = ledger.open()
        if not anything_due(database, settings().alert_outputs, now):
            return dg.SkipReason("No alert is due.")
        from aios_platform.alerts.outputs import configured_outputs

        report = deliver_due(database, configured_outputs(settings()), now)
    except (DatabaseUnavailable, SettingsError) as error:
        logger.error("Alerts were not delivered: %s", error)
        return dg.SkipReason(f"Not delivered: {error}")
    return dg.SkipReason(" ".join((str(report), *report.failures)))
