"""Logging, set up by entry points only; a library never configures logging."""

import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("aios_platform")

# What stands before a secret and may be read: an API key's public part, a scheme, a URL's user.
_SECRETS = re.compile(
    r"(aios_[0-9a-f]{12}_)[A-Za-z0-9_-]{8,}|([Bb]earer )\S{8,}|(://[^\s/:@]*:)[^\s/@]+(?=@)"
)


def redact(line: str) -> str:
    """The line with API keys, bearer tokens and passwords in URLs blotted out.

    Args:
        line: Anything that is to be logged.
    """
    return _SECRETS.sub(r"\1\2\3***", line)


class RedactingFormatter(logging.Formatter):
    """Formats a record, traceback included, without the secrets in it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or several with a traceback."""
        return redact(super().format(record))


def configure(level: str) -> None:
    """Show the platform's own log lines on standard error, and hush chatty libraries.

    Args:
        level: Name of the lowest level shown, e.g. 'INFO'.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
    # Notices for the authors of libraries, not for the people who run models.
    warnings.simplefilter("ignore")
    for name in (
        "pytorch_lightning",
        "lightning",
        "mlflow",
        "alembic",
        "feast",
        "great_expectations",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def stage(model: str, name: str, what: str = "") -> Iterator[list[str]]:
    """Log the beginning and the end of a stage, with its time.

    Args:
        model: The model's name.
        name: The stage, as in the asset's name.
        what: What it works on, e.g. a range of windows.

    Yields:
        A list; what is appended to it ends the closing line.
    """
    logger.info("%s  %-16s %s ...", model, name, what)
    begin = time.perf_counter()
    made: list[str] = []
    yield made
    seconds = time.perf_counter() - begin
    logger.info("%s  %-16s %s (%.1f s)", model, name, "; ".join(made) or "done", seconds)
