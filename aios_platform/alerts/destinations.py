"""URLs of outputs, which hold secrets, and what may be said of them.

Messages name scheme, host and port only: users, passwords and paths of such URLs open doors.
"""

import smtplib
import ssl
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from aios_platform.errors import SettingsError

TIMEOUT_SECONDS = 10.0


def split_url(url: str, schemes: tuple[str, ...], setting: str) -> SplitResult:
    """Take a URL apart that may hold secrets.

    Raises:
        SettingsError: It has another scheme, or no host. It is not repeated.
    """
    parts = None
    # urlsplit drops line breaks instead of refusing them; a wrong port raises when it is read.
    if url.isascii() and url.isprintable() and " " not in url:
        with suppress(ValueError):
            found = urlsplit(url)
            parts = found if found.port != 0 else None
    if parts is None or parts.scheme not in schemes or not parts.hostname:
        raise SettingsError(
            f"{setting} is not a URL that begins with "
            f"{' or '.join(f'{scheme}://' for scheme in schemes)} and names a host.",
            remedy=f"Correct {setting}; docs/operations.md has an example.",
        )
    return parts


def place_of(parts: SplitResult) -> str:
    """Scheme, host and port: what messages may say."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def reason_of(error: object) -> str:
    """Why it failed, without what the other side said: it may repeat what it was sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{type(error).__name__}, it answered {error.smtp_code}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
