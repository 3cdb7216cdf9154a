"""Who acts in a run: the command's own principal, the scheduler, or somebody at the web page."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from aios_platform.access.principals import acting_as
from aios_platform.ledger.identity import DAGSTER_UI, SCHEDULER

UNATTENDED_TAGS = frozenset({"dagster/sensor_name", "dagster/schedule_name"})


def service_of(run: dg.DagsterRun) -> str | None:
    """The service in whose name a run acts; None for a run inside a command.

    A worker process inherits the environment of whoever started the daemon, and so perhaps a key;
    what a sensor or a visitor of the web page asked for is not that person's doing.
    """
    if run.remote_job_origin is None:
        return None
    return SCHEDULER if UNATTENDED_TAGS & set(run.tags) else DAGSTER_UI


@contextmanager
def acting_for(run: dg.DagsterRun) -> Iterator[None]:
    """Write to the ledger in the name of whoever this run acts for."""
    service = service_of(run)
    if service is None:
        yield
    else:
        with acting_as(service):
            yield
