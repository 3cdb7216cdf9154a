"""Where alerts go: the log, a webhook, e-mail.

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
from aios_platform.settings import Settings

__all__ = ["AlertOutput", "EmailOutput", "LogOutput", "WebhookOutput", "configured_outputs"]

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
