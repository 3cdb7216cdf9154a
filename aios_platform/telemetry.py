"""Logging, set up by entry points only; a library never configures logging."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("aios_platform")


def configure(level: str) -> None:
    """Show the platform's own log lines on standard error, and hush chatty libraries.

    Args:
        level: Name of the lowest level shown, e.g. 'INFO'.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
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
