"""Where alerts go: the log, a webhook, e-mail, and what installed packages add.

An output sends a batch or raises; it keeps nothing. A batch may be sent more than once (a process
can die between sending and recording), each time with the same id and the same content: as
`webhook-id` and as `Message-ID` it lets the receiver drop the repeat.
"""

import json
import logging
from typing import Protocol

from aios_platform.alerts.mail import EmailOutput
from aios_platform.alerts.webhook import WebhookOutput
from aios_platform.contracts.alerts import AlertBatch, Severity
from aios_platform.errors import AiosError, AlertError, fault_of
from aios_platform.extensions import Kind, load
from aios_platform.settings import Settings

__all__ = [
    "AddedOutput",
    "AlertOutput",
    "EmailOutput",
    "LogOutput",
    "WebhookOutput",
    "configured_outputs",
]

logger = logging.getLogger(__name__)


class AlertOutput(Protocol):
    """Takes batches of alerts to somebody."""

    name: str

    def send(self, batch: AlertBatch) -> None:
        """Send one batch.

        Raises:
            AlertError: It was not taken; it will be sent again.
        """


def configured_outputs(configuration: Settings) -> list[AlertOutput]:
    """The outputs that the settings name, the log first.

    Raises:
        SettingsError: One of them has a value that cannot be used.
    """
    outputs: list[AlertOutput] = [LogOutput()]
    url, secret = configuration.alert_webhook_url, configuration.alert_webhook_secret
    if url is not None and secret is not None and "webhook" in configuration.alert_outputs:
        outputs.append(WebhookOutput(url.get_secret_value(), secret.get_secret_value()))
    url = configuration.alert_smtp_url
    if url is not None and "email" in configuration.alert_outputs:
        recipients = [part for part in (configuration.alert_email_to or "").split(",") if part]
        outputs.append(
            EmailOutput(url.get_secret_value(), configuration.alert_email_from or "", recipients)
        )
    outputs += [AddedOutput(name) for name in configuration.added_alert_outputs]
    return outputs


class LogOutput:
    """Writes each alert as one line."""

    name = "log"

    def send(self, batch: AlertBatch) -> None:
        """Log the alerts, critical ones as errors."""
        for raised in batch.alerts:
            alert = raised.alert
            level = logging.ERROR if alert.severity is Severity.CRITICAL else logging.WARNING
            logger.log(
                level, "ALERT %d, %s, %s: %s See %s. Evidence: %s",
                raised.id, alert.severity, alert.subject, alert.summary, alert.runbook,
                json.dumps(alert.evidence),
            )  # fmt: skip


class AddedOutput:
    """An output that an installed package adds: a class, made without arguments for each batch.

    It is imported when something is sent. So a package that is broken or gone is an output that
    takes nothing: its alerts wait, and the other outputs are told.

    Args:
        name: Name of the entry point.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def send(self, batch: AlertBatch) -> None:
        """Send one batch.

        Raises:
            AlertError: It cannot be imported or made, or did not take the batch.
        """
        try:
            load(Kind.ALERT_OUTPUT, self.name)().send(batch)
        except AlertError:
            raise
        except AiosError as error:
            raise AlertError(error.what, remedy=error.remedy) from error
        except Exception as error:
            raise AlertError(
                f"The output '{self.name}' failed: {fault_of(error)}.",
                remedy="Mend the package that adds it, or take its name out of "
                "AIOS_ALERT_EXTENSIONS.",
            ) from error
