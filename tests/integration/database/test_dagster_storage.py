"""Dagster's storage on the platform's server: few connections, none of them dead."""

import pytest
from sqlalchemy import text

from aios_platform.resources import dagster_storage
from aios_platform.resources.dagster_storage import PlatformDagsterStorage

pytestmark = [pytest.mark.postgres]


@pytest.fixture
def storage(own_database):
    made = PlatformDagsterStorage(own_database.url("dagster"))
    yield made
    made.event_log_storage._engine.dispose()


def backends(database) -> set[int]:
    with database.connected("dagster") as connection:
        found = connection.execute(
            text(
                "SELECT pid FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        return set(found.scalars())


def test_many_questions_to_all_parts_share_a_connection(storage, own_database):
    for _ in range(20):
        assert storage.run_storage.get_runs() == []
        assert storage.event_log_storage.get_asset_records() == []
        assert storage.schedule_storage.all_instigator_state() == []
    assert len(backends(own_database)) == 1


def test_a_connection_that_died_while_it_was_idle_is_replaced(storage, own_database, monkeypatch):
    monkeypatch.setattr(dagster_storage, "IDLE_SECONDS", 0.0)
    assert storage.run_storage.get_runs() == []
    (before,) = backends(own_database)
    with own_database.connected("dagster") as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": before})
    assert storage.run_storage.get_runs() == []
    assert backends(own_database).isdisjoint({before})
