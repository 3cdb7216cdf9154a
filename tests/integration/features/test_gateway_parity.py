"""The gateway's reads of the flights model against the SDK's, on the real store."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.features.materialize import materialize
from aios_platform.features.online_plan import online_plan
from tests.unit.serving.drivers import Reading, same_as_sdk

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning"),
]
ROWS = 150


@pytest.fixture(scope="module")
def asked(flights):
    """Flights of the next month, some with a null or an unknown key."""
    raw = flights.store.require("flight_delay/raw/flights", "2013-02")
    plan = online_plan(flights.declaration, flights.feast)
    keys = [name for name in plan.inputs if name != plan.moment]
    table = flights.store.read(raw, keys)
    random = np.random.default_rng(5)
    rows = table.take(pa.array(random.choice(table.num_rows, ROWS, replace=False))).to_pylist()
    for place, row in enumerate(rows):
        if place % 5 == 0:
            row[keys[place // 5 % len(keys)]] = None if place % 2 else "nowhere"
    return plan, rows


@pytest.mark.parametrize("cached", [False, True])
def test_every_feature_of_a_flight_is_the_sdk_s(flights, database, asked, cached):
    plan, rows = asked
    materialize(flights.declaration, flights.windows[:1], flights.store, flights.feast)
    end = flights.windows[0].end
    reading = Reading(plan, database.url("feast"), cache_seconds=3600.0 if cached else 0.0)
    try:
        # By the last of them most views' values have grown too old.
        for hours in (-0.001, 7, 13, 24 * 8):
            moment = end + timedelta(hours=hours)
            block = reading.read(rows, moment)
            present = same_as_sdk(
                flights.feast, plan, flights.declaration.features.service, rows, moment, block
            )
            assert present > 0
        assert present < block.matrix.size / 2
        assert block.stale.any()
    finally:
        reading.close()
