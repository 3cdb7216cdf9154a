"""Parity on the embedded Postgres: equal when it is, different when somebody wrote there."""

import pytest
from sqlalchemy import create_engine, text

from aios_platform.errors import FeatureError
from aios_platform.features.materialize import materialize
from aios_platform.features.parity import online_parity
from aios_platform.features.repository import apply_repository
from aios_platform.features.store import open_feature_store
from tests.integration.features.conftest import make_repo

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning"),
]


@pytest.fixture(scope="module")
def own(flights, database, tmp_path_factory):
    """A feature store of this module's own, with nothing materialised."""
    repo = make_repo(tmp_path_factory.mktemp("parity") / "repo", "parity_test", flights.store.root)
    feast = open_feature_store(repo, database.url("feast"))
    apply_repository(feast, repo)
    return feast


def test_nothing_materialised_is_not_parity(flights, own):
    with pytest.raises(FeatureError, match="holds no window"):
        online_parity(flights.declaration, flights.store, own)


def test_what_was_materialised_is_the_same_and_a_changed_value_is_found(flights, own, database):
    materialize(flights.declaration, flights.windows, flights.store, own)
    found = online_parity(flights.declaration, flights.store, own, rows=60)
    assert found.cells > 40 * 60
    assert (found.different, found.example) == (0, "")

    engine = create_engine(database.url("feast"))
    with engine.begin() as connection:
        changed = connection.execute(
            text(
                "UPDATE parity_test_carrier_delays SET value = other.value FROM "
                "(SELECT value FROM parity_test_carrier_delays "
                "WHERE feature_name = 'carrier_late_rate_1d' LIMIT 1) AS other "
                "WHERE feature_name = 'carrier_late_rate_7d'"
            )
        ).rowcount
    engine.dispose()
    assert changed
    found = online_parity(flights.declaration, flights.store, own, rows=60)
    assert found.different > 0
    assert "'carrier_late_rate_7d' of row" in found.example


def test_an_online_store_behind_its_tables_is_not_judged(flights, own):
    dataset, key = "flight_delay/features/carrier_delays", flights.windows[-1].key
    version = flights.store.require(dataset, key)
    rows = flights.store.read(version)
    try:
        flights.store.write(dataset, key, rows.slice(0, rows.num_rows - 1), inputs=version.inputs)
        with pytest.raises(FeatureError, match="earlier version of window"):
            online_parity(flights.declaration, flights.store, own)
    finally:
        flights.store.write(dataset, key, rows, inputs=version.inputs)
