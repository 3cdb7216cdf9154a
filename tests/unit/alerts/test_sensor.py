"""The sensor `platform__deliver_alerts`."""

import subprocess
import sys

import dagster as dg
import pytest

from aios_platform.alerts.delivery import told
from aios_platform.alerts.outbox import raise_alert
from aios_platform.defs.platform import alerts as module
from aios_platform.errors import DatabaseUnavailable
from aios_platform.resources.stores import Ledger
from aios_platform.settings import PROJECT_ROOT
from tests.unit.alerts.receivers import an_alert

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20"),
]
SECRET = "a secret that is long enough"


@pytest.fixture
def look(own_database, monkeypatch):
    """One tick of the sensor on alerts of the test's own; why it skipped."""
    monkeypatch.setattr("aios_platform.resources.stores.database", lambda: own_database)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"ledger": Ledger()})

        def tick() -> str:
            answer = module.deliver_alerts.evaluate_tick(context)
            assert not answer.run_requests
            return answer.skip_message

        yield tick


def test_it_runs_by_default_every_half_minute():
    assert module.deliver_alerts.default_status is dg.DefaultSensorStatus.RUNNING
    assert module.deliver_alerts.minimum_interval_seconds == 30


def test_it_delivers_what_is_due(look, own_database, configured, web):
    configured(webhook_url=web.url, webhook_secret=SECRET)
    assert look() == "No alert is due."
    raise_alert(own_database, an_alert())
    assert look() == "Messages sent: 2, to be sent again: 0, given up: 0."
    assert len(web.ids) == 1
    assert look() == "No alert is due."


def test_no_output_makes_it_fail(look, own_database, configured, web):
    configured(webhook_url=web.url, webhook_secret=SECRET)
    raise_alert(own_database, an_alert())
    web.answers = [500]
    assert "to be sent again: 1" in look()
    configured(webhook_url="ftp://a")
    raise_alert(own_database, an_alert(key="b"))
    assert look().startswith("Not delivered: AIOS_ALERT_WEBHOOK_URL is not a URL")
    assert {one.state for one in told(own_database, 2)} == {"pending"}


def test_an_outage_of_the_database_does_not_make_it_fail(look, monkeypatch):
    def gone():
        raise DatabaseUnavailable("Postgres does not answer.")

    monkeypatch.setattr("aios_platform.resources.stores.database", gone)
    assert look() == "Not delivered: Postgres does not answer."


def test_where_nothing_is_due_it_imports_neither_mail_nor_web():
    script = (
        "import sys; import aios_platform.alerts.delivery, aios_platform.alerts.outbox\n"
        "print(*{'smtplib', 'dagster', 'aios_platform.alerts.outputs'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True, text=True, check=True, cwd=PROJECT_ROOT,
    )  # fmt: skip
    assert done.stdout.split() == []
