"""Two months of flights with their online store in Redis: materialised, equal, and read."""

from datetime import timedelta

import pyarrow as pa
import pytest
import yaml

from aios_platform import settings as settings_module
from aios_platform.features.materialize import materialize
from aios_platform.features.online_plan import online_plan
from aios_platform.features.parity import online_parity
from aios_platform.features.repository import apply_repository
from aios_platform.features.store import open_feature_store
from tests.integration.features.conftest import make_repo
from tests.redis_servers import redis_server
from tests.unit.serving.drivers import Reading, same_as_sdk

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning"),
]


@pytest.fixture(scope="module")
def cluster(flights, database, tmp_path_factory):
    """The profile `cluster`, as far as features go; the store, and the address of Redis."""
    folder = tmp_path_factory.mktemp("redis")
    repo = make_repo(folder / "repo", "redis_test", flights.store.root)
    path = repo / "feature_store.redis.yaml"
    config = yaml.safe_load(path.read_text())
    config["project"] = "redis_test"
    config["offline_store"]["artifact_root"] = flights.store.root
    path.write_text(yaml.safe_dump(config))
    with redis_server(folder) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIOS_PROFILE", "cluster")
        patch.setenv("AIOS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/postgres")
        patch.setenv("AIOS_ARTIFACTS", "memory://unused")
        patch.setenv("AIOS_REDIS", address)
        settings_module.settings.cache_clear()
        try:
            feast = open_feature_store(repo, database.url("feast"))
            apply_repository(feast, repo)
            yield feast, address
        finally:
            patch.undo()
            settings_module.settings.cache_clear()


def test_what_was_materialised_is_the_same_online_and_offline(flights, cluster):
    feast, _ = cluster
    assert online_parity(flights.declaration, flights.store, feast, rows=30).different > 0
    materialize(flights.declaration, flights.windows, flights.store, feast)
    found = online_parity(flights.declaration, flights.store, feast, rows=60)
    assert found.cells > 40 * 60
    assert (found.different, found.example) == (0, "")


def test_the_gateway_reads_what_the_sdk_does(flights, cluster):
    feast, address = cluster
    plan = online_plan(flights.declaration, feast)
    keys = [name for name in plan.inputs if name != plan.moment]
    raw = flights.store.require("flight_delay/raw/flights", "2013-02")
    rows = flights.store.read(raw, keys).take(pa.array(range(0, 900, 11))).to_pylist()
    rows[3][keys[0]] = None
    reading = Reading(plan, address)
    try:
        for hours in (-0.001, 13, 24 * 8):
            moment = flights.windows[-1].end + timedelta(hours=hours)
            block = reading.read(rows, moment)
            service = flights.declaration.features.service
            assert same_as_sdk(feast, plan, service, rows, moment, block) > 0
    finally:
        reading.close()
