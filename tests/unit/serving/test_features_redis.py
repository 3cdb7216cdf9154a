"""What is Redis's own: an outage, corrections of the same time, older values that come late."""

import os
import shutil
import signal
import subprocess
import time
from typing import Any

import numpy as np
import pytest

from aios_platform.features.online_plan import online_plan
from tests.redis_servers import redis_server
from tests.unit.serving.drivers import (
    Reading,
    apply_drivers,
    at,
    declaration,
    feature_store,
    write,
)

pytestmark = [pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning")]


@pytest.fixture(scope="module")
def address(tmp_path_factory: Any) -> Any:
    with redis_server(tmp_path_factory.mktemp("redis")) as connection:
        yield connection


@pytest.fixture(scope="module")
def drivers(address: str, tmp_path_factory: Any) -> Any:
    kind = "aios_platform.features.redis_store.NewestWinsRedisOnlineStore"
    online = {"type": kind, "connection_string": address}
    store = feature_store(tmp_path_factory.mktemp("d"), "", "late", online_store=online)
    apply_drivers(store)
    return store


@pytest.fixture
def reading(drivers: Any, address: str) -> Any:
    reading = Reading(online_plan(declaration(), drivers), address)
    yield reading
    reading.close()


def busy(reading: Reading, zone: int) -> float:
    block = reading.read([{"zone": zone}], at(3))
    return float(block.matrix[0, reading.plan.numerical.index("busy")])


def test_a_correction_of_the_same_time_is_taken_and_an_older_value_is_not(drivers, reading):
    write(drivers, "zones", {"zone": 1, "busy": 0.25}, hour=2)
    assert busy(reading, 1) == 0.25
    write(drivers, "zones", {"zone": 1, "busy": 0.5}, hour=2)
    assert busy(reading, 1) == 0.5
    write(drivers, "zones", {"zone": 1, "busy": 0.75}, hour=1)
    assert busy(reading, 1) == 0.5
    late, early = ({"zone": 2, "busy": b, "event_timestamp": at(h)} for b, h in ((1, 2), (2, 1)))
    write(drivers, "zones", late, early)
    assert busy(reading, 2) == 1


def test_while_it_is_away_reads_fail_at_once_and_then_go_on(drivers, reading, address):
    for zone in (3, 4):
        write(drivers, "zones", {"zone": zone, "busy": 0.5}, hour=2)
    assert busy(reading, 3) == 0.5
    port = address.split(",")[0].split(":")[1]
    listening = subprocess.run(
        [shutil.which("redis-cli"), "-p", port, "-a", address.split("=")[1], "info", "server"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    process = int(next(x for x in listening.split() if x.startswith("process_id:")).split(":")[1])
    os.kill(process, signal.SIGSTOP)
    try:
        block = reading.read([{"zone": 4}], at(3))
        assert block.unreachable.tolist() == [True]
        assert np.isnan(block.matrix).all()
        # What was read before is remembered.
        assert busy(reading, 3) == 0.5
        assert not reading.reader.reachable
    finally:
        os.kill(process, signal.SIGCONT)
    limit = time.monotonic() + 20
    while np.isnan(busy(reading, 4)):
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert busy(reading, 4) == 0.5
    assert reading.reader.reachable
