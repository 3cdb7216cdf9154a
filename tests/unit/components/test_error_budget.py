"""The alert about an error budget comes with the errors and goes with them."""

import uuid
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from sqlalchemy import text

from aios_platform.alerts.outbox import alerts
from aios_platform.components.model_lifecycle.error_budget import (
    error_budget_sensor,
    look_at_error_budget,
    served_counts,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.alerts import AlertKind, Severity
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.monitoring.error_budget import PERIOD, WINDOWS, Counts
from aios_platform.resources.stores import Ledger
from tests.unit.contracts.test_declaration import MINIMAL

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20"),
]

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOW = datetime(2026, 3, 31, 12, 0, 30, tzinfo=UTC)


@pytest.fixture
def names(tmp_path) -> Names:
    model = f"m_{uuid.uuid4().hex[:8]}"
    return Names(ModelDeclaration.model_validate(MINIMAL | {"name": model}), tmp_path)


def serve(database, names, ago: timedelta, *, errors=0, slow=0, requests=1000, role="live"):
    """What the gateway writes of one minute."""
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO serving_minute (model, version, role, minute, requests, errors, slow) "
                "VALUES (:model, '1', :role, date_trunc('minute', CAST(:at AS timestamptz)), "
                ":requests, :errors, :slow)"
            ),
            {
                "model": names.model, "role": role, "at": NOW - ago, "requests": requests,
                "errors": errors, "slow": slow,
            },
        )  # fmt: skip


def open_alerts(database, names) -> dict:
    found = alerts(database, subject=names.model, open_only=True)
    return {raised.alert.key.rsplit(":", 1)[-1]: raised.alert for raised in found}


def test_what_callers_were_answered_is_counted_per_window(database, names):
    serve(database, names, MINUTE, errors=1)
    serve(database, names, MINUTE, errors=2, role="canary")
    serve(database, names, MINUTE, errors=500, role="shadow")
    serve(database, names, 10 * MINUTE, errors=4)
    serve(database, names, 2 * DAY, errors=8, slow=3)
    serve(database, names, 31 * DAY, errors=16)
    serve(database, names, -2 * MINUTE, errors=32)
    counts = served_counts(database, names.model, NOW)
    assert set(counts) == set(WINDOWS)
    assert counts[5 * MINUTE] == Counts(requests=2000, errors=3)
    assert counts[HOUR].errors == 7
    assert counts[3 * DAY] == counts[PERIOD] == Counts(requests=4000, errors=15, slow=3)


def test_an_alert_comes_with_the_errors_and_goes_with_them(database, names):
    assert look_at_error_budget(names, database, NOW) == []
    serve(database, names, MINUTE, errors=900)
    look_at_error_budget(names, database, NOW)
    look_at_error_budget(names, database, NOW)
    found = open_alerts(database, names)
    assert {name: alert.severity for name, alert in found.items()} == {
        "availability-critical": Severity.CRITICAL, "availability-warning": Severity.WARNING,
    }  # fmt: skip
    alert = found["availability-critical"]
    assert alert.kind is AlertKind.ERROR_BUDGET
    assert alert.evidence["bad"] == 900
    serve(database, names, -30 * MINUTE)
    look_at_error_budget(names, database, NOW + 31 * MINUTE)
    assert set(open_alerts(database, names)) == {"availability-warning"}
    look_at_error_budget(names, database, NOW + 4 * DAY)
    assert open_alerts(database, names) == {}


def test_the_sensor_says_what_it_saw(database, names):
    sensor = error_budget_sensor(names)
    with dg.build_sensor_context(resources={"ledger": Ledger()}) as context:
        said = sensor(context)
    assert "No budget is spent too fast" in said.skip_message
