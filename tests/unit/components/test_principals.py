"""In whose name a run writes to the ledger."""

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from aios_platform.access.principals import acting
from aios_platform.components.model_lifecycle.principals import acting_for, service_of
from aios_platform.ledger.identity import DAGSTER_UI, SCHEDULER

pytestmark = pytest.mark.postgres


@dg.op
def nothing() -> None:
    pass


@dg.job
def job() -> None:
    nothing()


def run_of(*, launched: bool, **tags: str) -> dg.DagsterRun:
    """A run as the daemon or the web page makes it, or as a command makes it."""
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(job, tags=tags)
    # What tells a run of the daemon and the page from one inside a command.
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__")
    return run._replace(remote_job_origin=RemoteJobOrigin(repository, "job")) if launched else run


@pytest.mark.parametrize(
    ("launched", "tags", "service"),
    [
        (False, {}, None),
        (False, {"dagster/sensor_name": "x"}, None),
        (True, {"dagster/sensor_name": "x"}, SCHEDULER),
        (True, {"dagster/schedule_name": "x"}, SCHEDULER),
        (True, {}, DAGSTER_UI),
        (True, {"user": "ann"}, DAGSTER_UI),
    ],
)
def test_a_run_acts_for_whoever_launched_it(database, launched, tags, service):
    run = run_of(launched=launched, **tags)
    assert service_of(run) == service
    before = acting(database).name
    with acting_for(run):
        assert acting(database).name == (service or before)
    assert acting(database).name == before
