"""Ten times what the gateway can answer: it answers what it can, and tells the rest to wait."""

import asyncio
import json
from collections.abc import Iterator

import psutil
import pytest

from aios_platform.artifacts import ArtifactStore
from tests.faults.gateway_process import GatewayProcess, gateway
from tests.faults.offered_load import Load
from tests.faults.slow_models import moody
from tests.served_models import ROW, declare, make_champion

pytestmark = [pytest.mark.postgres]

MODEL = "sought_after"
BODY = json.dumps({"instance": ROW}).encode()
REQUEST = (
    f"POST /v1/models/{MODEL}:predict HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n"
    f"content-length: {len(BODY)}\r\n\r\n"
).encode() + BODY
DEADLINE = 2.0


@pytest.fixture(scope="module")
def served(database, tmp_path_factory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    store = ArtifactStore(str(folder / "artifacts"))
    declare(
        folder / "defs",
        MODEL,
        batching={"max_rows": 4, "queue_rows": 16},
        deadline_ms=1000 * DEADLINE,
    )
    make_champion(database, store, moody(800), model=MODEL)
    with gateway(
        folder, database=database, artifacts=str(folder / "artifacts"), defs=folder / "defs"
    ) as started:
        yield started


def test_its_goodput_stays_and_the_rest_is_told_when_to_come_again(served):
    def peak() -> float:
        outcome = asyncio.run(Load(served.port, REQUEST).closed(8, 1.0))
        assert set(outcome.statuses) == {200}
        return outcome.rate

    def goodput() -> float:
        """Good answers a second under ten times the load, as a share of the peak."""
        before = peak()
        flooded = asyncio.run(Load(served.port, REQUEST).open(10 * before, 2.0))
        assert set(flooded.statuses) == {200, 429}
        assert flooded.statuses.total() > 15 * before
        assert flooded.slowest < DEADLINE
        assert flooded.unexplained == 0
        # The lower of two peaks: others may use this machine, too.
        return flooded.rate / min(before, peak())

    process = psutil.Process(served.process.pid)
    memory = process.memory_info().rss
    # Others can only lower it: one time of three that is good enough shows what it can do.
    shares: list[float] = []
    while len(shares) < 3 and max(shares, default=0.0) < 0.8:
        shares.append(goodput())
    assert max(shares) >= 0.8
    assert process.memory_info().rss - memory < 64 << 20
