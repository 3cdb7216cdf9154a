"""Alerts to a web server: JSON, signed as in Standard Webhooks 1.0.0, so that it can be trusted."""

import base64
import binascii
import hashlib
import hmac
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from aios_platform.alerts.destinations import TIMEOUT_SECONDS, place_of, reason_of, split_url
from aios_platform.alerts.rendering import as_payload
from aios_platform.contracts.alerts import AlertBatch
from aios_platform.errors import AlertError, SettingsError

# The least that the specification allows.
SHORTEST_SECRET_BYTES = 24


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the alert, and its signature, to somebody else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class WebhookOutput:
    """Posts JSON, signed as in Standard Webhooks 1.0.0 (symmetric, `v1`).

    Args:
        url: Where to; http or https, also with `user:password@`.
        secret: 'whsec_' and base64, or any other text as it is.
        timeout: Seconds for connecting, and for each wait for the receiver.
        clock: The time of an attempt; receivers refuse old ones.

    Raises:
        SettingsError: The URL or the secret cannot be used.
    """

    name = "webhook"

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        timeout: float = TIMEOUT_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        parts = split_url(url, ("http", "https"), "AIOS_ALERT_WEBHOOK_URL")
        self.place = place_of(parts)
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        self._headers = {"Content-Type": "application/json", "User-Agent": "aios-platform"}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        self._key = _signing_key(secret)
        self._timeout = timeout
        self._clock = clock
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(self, batch: AlertBatch) -> None:
        """Post one batch; only an answer of 2xx counts as taken."""
        body = json.dumps(as_payload(batch), separators=(",", ":")).encode()
        sent_at = str(int(self._clock().timestamp()))
        signed = b".".join((batch.id.encode(), sent_at.encode(), body))
        signature = base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
        request = urllib.request.Request(
            self._url,
            data=body,
            method="POST",
            headers={
                **self._headers,
                "webhook-id": batch.id,
                "webhook-timestamp": sent_at,
                "webhook-signature": f"v1,{signature}",
            },
        )
        # Without a cause, or the URL would be in the traceback of some of them.
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refused(f"it answered {error.code}") from None
        except urllib.error.URLError as error:
            raise self._refused(reason_of(error.reason)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._refused(reason_of(error)) from None
        if not 200 <= status < 300:
            raise self._refused(f"it answered {status}")

    def _refused(self, why: str) -> AlertError:
        return AlertError(
            f"The webhook on {self.place} did not take the alerts: {why}.",
            remedy="Look at the receiver; `aios alerts test` tries again.",
        )


def _signing_key(secret: str) -> bytes:
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            key = b""
    if len(key) < SHORTEST_SECRET_BYTES:
        raise SettingsError(
            "AIOS_ALERT_WEBHOOK_SECRET is too short, or not base64 behind 'whsec_'.",
            remedy=f"Use at least {SHORTEST_SECRET_BYTES} random bytes: "
            'echo "whsec_$(openssl rand -base64 32)".',
        )
    return key
