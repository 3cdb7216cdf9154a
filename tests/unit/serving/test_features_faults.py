"""The online store gone, silent and back: what is remembered serves, and nobody waits."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aios_platform.contracts.serving import OnlinePolicy
from aios_platform.features.online_plan import OnlinePlan, online_plan
from aios_platform.serving.features import FeatureBlock, OnlineReader
from tests.unit.serving.drivers import at, declaration, feature_store, view, write
from tests.unit.serving.store_proxy import StoreProxy

pytestmark = pytest.mark.postgres
MOMENT = at(3).timestamp()
SERVICE = "zones_v1"


@pytest.fixture(scope="module")
def plan(database: Any, tmp_path_factory: pytest.TempPathFactory) -> OnlinePlan:
    """One view by a whole number, with the zones 0 to 99 in it."""
    from datetime import timedelta

    from feast import Entity, FeatureService, ValueType
    from feast.types import Float32

    folder = tmp_path_factory.mktemp("zones")
    store = feature_store(folder, database.url("feast"), "gateway_zones")
    zone = Entity(name="zone", join_keys=["zone"], value_type=ValueType.INT32)
    zones = view("zones", [zone], timedelta(hours=10), busy=Float32)
    store.apply([zone, zones, FeatureService(name=SERVICE, features=[zones])])
    write(store, "zones", *({"zone": n, "busy": float(n)} for n in range(100)), hour=1)
    return online_plan(declaration(SERVICE), store)


@pytest.fixture
def run(plan: OnlinePlan, database: Any, tmp_path: Path) -> Callable[..., None]:
    """Runs a scenario with a reader behind a proxy."""

    def run(scenario: Any, **policy: Any) -> None:
        async def main() -> None:
            proxy = StoreProxy(tmp_path, database.url("feast"))
            reader = OnlineReader(
                plan,
                proxy.url,
                places={"zone": 0},
                policy=OnlinePolicy(**policy),
                connect_seconds=0.2,
                statement_seconds=0.2,
            )
            await proxy.up()
            try:
                async with asyncio.timeout(30):
                    await scenario(reader, proxy)
            finally:
                await reader.close()
                await proxy.down()

        asyncio.run(main())

    return run


async def read(reader: OnlineReader, *zones: int | None, moment: float = MOMENT) -> FeatureBlock:
    return await reader.read([(zone,) for zone in zones], np.full(len(zones), moment))


async def settled(reader: OnlineReader, *, reachable: bool) -> None:
    """Wait until the reader says so by itself."""
    while reader.reachable is not reachable:
        await asyncio.sleep(0.01)


def assert_read(block: FeatureBlock, *values: float) -> None:
    np.testing.assert_array_equal(block.matrix[:, 0], np.array(values, np.float32))
    assert not block.unreachable.any()


def test_a_silent_store_fails_reads_fast_and_what_is_remembered_serves(
    run: Callable[..., None],
) -> None:
    async def scenario(reader: OnlineReader, proxy: StoreProxy) -> None:
        assert_read(await read(reader, 1, 2), 1, 2)
        assert reader.reachable
        proxy.silent()
        block = await read(reader, 1, 3, None)
        assert block.matrix[:, 0].tolist() == pytest.approx([1, np.nan, np.nan], nan_ok=True)
        assert block.unreachable.tolist() == [False, True, False]
        assert block.missing.tolist() == [False, False, True]
        assert not reader.reachable
        # The TTL holds for what is remembered too.
        late = await read(reader, 2, moment=at(12).timestamp())
        assert late.stale.tolist() == [True]
        assert np.isnan(late.matrix[0, 0])
        # Nobody waits any more, and the server is not asked each time.
        before = proxy.connections
        for zone in range(3, 100):
            assert (await read(reader, zone)).unreachable.all()
        assert proxy.connections <= before + 10
        await proxy.up()
        await settled(reader, reachable=True)
        assert_read(await read(reader, 3), 3)

    run(scenario, cache_seconds=0.0)


def test_a_store_that_is_down_from_the_start_is_found_when_it_comes(
    run: Callable[..., None],
) -> None:
    async def scenario(reader: OnlineReader, proxy: StoreProxy) -> None:
        await proxy.down()
        assert (await read(reader, 1)).unreachable.tolist() == [True]
        assert not reader.reachable
        await proxy.up()
        await settled(reader, reachable=True)
        assert_read(await read(reader, 1), 1)

    run(scenario)


def test_a_cut_connection_is_replaced_without_a_failed_read(run: Callable[..., None]) -> None:
    async def scenario(reader: OnlineReader, proxy: StoreProxy) -> None:
        assert_read(await read(reader, 1), 1)
        proxy.cut()
        assert_read(await read(reader, 1, 4), 1, 4)
        assert reader.reachable
        assert proxy.connections == 2

    run(scenario, cache_seconds=0.0)


def test_a_cut_while_nobody_reads_is_noticed(run: Callable[..., None]) -> None:
    async def scenario(reader: OnlineReader, proxy: StoreProxy) -> None:
        assert_read(await read(reader, 1), 1)
        await proxy.down()
        await settled(reader, reachable=False)
        await proxy.up()
        await settled(reader, reachable=True)

    run(scenario)


def test_a_micro_batch_is_one_question_and_reads_at_once_share_theirs(
    run: Callable[..., None],
) -> None:
    async def scenario(reader: OnlineReader, proxy: StoreProxy) -> None:
        assert_read(await read(reader, *range(90), *range(90)), *range(90), *range(90))
        assert proxy.questions == 1
        blocks = await asyncio.gather(*(read(reader, zone, 95) for zone in range(50, 70)))
        for zone, block in zip(range(50, 70), blocks, strict=True):
            assert_read(block, zone, 95)
        assert proxy.questions == 2

    run(scenario, cache_seconds=0.0)


def test_what_is_young_is_not_asked_for_again(run: Callable[..., None]) -> None:
    async def scenario(reader: OnlineReader, proxy: StoreProxy) -> None:
        assert_read(await read(reader, 1, 2), 1, 2)
        assert_read(await read(reader, 2, 1, 1), 2, 1, 1)
        assert (await read(reader, 1000, None)).missing.all()
        assert (await read(reader, 1000, 1)).missing.tolist() == [True, False]
        assert proxy.questions == 2

    run(scenario, cache_seconds=3600.0)


def test_a_reader_that_is_closed_answers_who_waits(run: Callable[..., None]) -> None:
    async def scenario(reader: OnlineReader, proxy: StoreProxy) -> None:
        assert_read(await read(reader, 1), 1)
        proxy.silent()
        waiting = [asyncio.create_task(read(reader, zone)) for zone in (5, 6)]
        await asyncio.sleep(0)
        await reader.close()
        for block in await asyncio.gather(*waiting):
            assert block.unreachable.all()

    run(scenario)
