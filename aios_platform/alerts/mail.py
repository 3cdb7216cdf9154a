"""Alerts by e-mail: plain text over SMTP."""

import logging
import re
import smtplib
import ssl
from contextlib import suppress
from email.message import EmailMessage
from email.utils import format_datetime, getaddresses
from ipaddress import ip_address
from urllib.parse import unquote

from aios_platform.alerts.destinations import TIMEOUT_SECONDS, reason_of, split_url
from aios_platform.alerts.rendering import as_text
from aios_platform.contracts.alerts import AlertBatch
from aios_platform.errors import AlertError, SettingsError

logger = logging.getLogger(__name__)

LONGEST_SUBJECT = 200
PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)")


class EmailOutput:
    """Sends plain text by SMTP.

    Args:
        url: smtp://, smtp+starttls:// or smtps://, also with `user:password@`.
        sender: Address of the sender.
        recipients: Addresses of the recipients.
        timeout: Seconds for connecting, and for each wait for the server.

    Raises:
        SettingsError: The URL or an address cannot be used, or a password would go over a
            network in the clear.
    """

    name = "email"

    def __init__(
        self, url: str, sender: str, recipients: list[str], *, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        parts = split_url(url, tuple(PORTS), "AIOS_ALERT_SMTP_URL")
        self._scheme, self._host = parts.scheme, parts.hostname or ""
        self._port = parts.port or PORTS[parts.scheme]
        self.place = f"{self._host}:{self._port}"
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        if self._user and self._scheme == "smtp" and not _is_loopback(self._host):
            raise SettingsError(
                f"AIOS_ALERT_SMTP_URL would send a password to {self.place} in the clear.",
                remedy="Use smtp+starttls:// or smtps://.",
            )
        self._sender, self._domain = _address(sender, "AIOS_ALERT_EMAIL_FROM")
        self._recipients = [_address(one, "AIOS_ALERT_EMAIL_TO")[0] for one in recipients]
        self._timeout = timeout

    def send(self, batch: AlertBatch) -> None:
        """Send one mail to all; taken is what the server took for one of them."""
        try:
            server = self._connect()
            try:
                refused = server.send_message(self._mail(batch), self._sender, self._recipients)
                # It has the mail: how it says goodbye changes nothing.
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()
            finally:
                server.close()
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise AlertError(
                f"The mail server on {self.place} did not take the alerts: {reason_of(error)}.",
                remedy="Look at AIOS_ALERT_SMTP_URL and the server; `aios alerts test` tries "
                "again.",
            ) from None
        if refused:
            logger.warning(
                "The mail server on %s took the alerts, but not for %s.",
                self.place, ", ".join(sorted(refused)),
            )  # fmt: skip

    def _connect(self) -> smtplib.SMTP:
        server: smtplib.SMTP
        if self._scheme == "smtps":
            server = smtplib.SMTP_SSL(
                self._host,
                self._port,
                timeout=self._timeout,
                context=ssl.create_default_context(),
            )
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=self._timeout)
        try:
            if self._scheme == "smtp+starttls":
                server.starttls(context=ssl.create_default_context())
            if self._user:
                server.login(self._user, self._password)
        except BaseException:
            server.close()
            raise
        return server

    def _mail(self, batch: AlertBatch) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = f"[AIOS] {batch.headline}"[:LONGEST_SUBJECT]
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._recipients)
        mail["Date"] = format_datetime(batch.composed_at)
        mail["Message-ID"] = f"<{batch.id}@{self._domain}>"
        # No vacation replies.
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content("\n\n".join(as_text(raised) for raised in batch.alerts))
        return mail


def _address(value: str, setting: str) -> tuple[str, str]:
    given = getaddresses([value]) if value.isprintable() else []
    address = given[0][1] if len(given) == 1 else ""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise SettingsError(
            f"{setting} has '{value}', which is not an address of e-mail.",
            remedy="Use name@example.org; separate several by commas.",
        )
    return address, found[1]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
