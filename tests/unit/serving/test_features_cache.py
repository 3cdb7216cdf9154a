"""What the gateway remembers of entities: how much, for how long, and who reads."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aios_platform.errors import DatabaseUnavailable, FeatureError
from aios_platform.serving.feature_cache import EntityCache


class Store:
    """Answers each key with itself, once it may."""

    def __init__(self) -> None:
        self.asked: list[list[list[Any]]] = []
        self.may = asyncio.Event()
        self.may.set()
        self.error: Exception | None = None

    async def fetch(self, keys: list[list[Any]]) -> list[list[Any]]:
        self.asked.append(keys)
        await self.may.wait()
        if self.error is not None:
            raise self.error
        return [[(str(key).encode(), ()) for key in of_kind] for of_kind in keys]


class Clock:
    """A clock that stands still."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run() -> Callable[..., None]:
    """Runs a scenario with a cache of two entity kinds."""

    def run(scenario: Any, *, entities: int = 100, seconds: float = 5.0) -> None:
        async def main() -> None:
            store, clock = Store(), Clock()
            cache = EntityCache(store.fetch, 2, entities=entities, seconds=seconds, clock=clock)
            async with asyncio.timeout(10):
                await scenario(cache, store, clock)
                await cache.close()

        asyncio.run(main())

    return run


def test_a_value_is_used_until_it_is_no_longer_young(run: Callable[..., None]) -> None:
    async def scenario(cache: EntityCache, store: Store, clock: Clock) -> None:
        await cache.find([["a", "a", None], ["x", None, None]])
        assert store.asked == [[["a"], ["x"]]]
        clock.now = 4.9
        found = await cache.find([["a"], [None]])
        assert found == [[(b"a", (), 0.0)], [None]]
        assert len(store.asked) == 1
        clock.now = 5.0
        found = await cache.find([["a"], [None]])
        assert found == [[(b"a", (), 5.0)], [None]]
        assert store.asked[1:] == [[["a"], []]]

    run(scenario)


def test_only_so_many_entities_are_remembered_the_last_ones_read(run: Callable[..., None]) -> None:
    async def scenario(cache: EntityCache, store: Store, clock: Clock) -> None:
        for key in (1, 2, 3, 4, 5):
            await cache.find([[key], ["x"]])
        store.error = DatabaseUnavailable("gone")
        clock.now = 100.0
        found = await cache.find([[1, 2, 3, 4, 5], ["x"] * 5])
        assert [entry and entry[0] for entry in found[0]] == [None, None, None, b"4", b"5"]
        assert found[1][0] == (b"x", (), 0.0)

    run(scenario, entities=3)


def test_nothing_is_remembered_where_nothing_may_be(run: Callable[..., None]) -> None:
    async def scenario(cache: EntityCache, store: Store, clock: Clock) -> None:
        assert (await cache.find([[1], []]))[0] == [(b"1", (), 0.0)]
        store.error = DatabaseUnavailable("gone")
        assert (await cache.find([[1], []]))[0] == [None]

    run(scenario, entities=0)


def test_while_one_read_is_under_way_the_next_gathers(run: Callable[..., None]) -> None:
    async def scenario(cache: EntityCache, store: Store, clock: Clock) -> None:
        store.may.clear()
        first = asyncio.create_task(cache.find([["a", "b"], []]))
        while not store.asked:
            await asyncio.sleep(0)
        others = [asyncio.create_task(cache.find([["b", key], []])) for key in "cdc"]
        gone = asyncio.create_task(cache.find([["e"], []]))
        await asyncio.sleep(0)
        # Who gives up does not take the read with him.
        gone.cancel()
        first.cancel()
        store.may.set()
        found = await asyncio.gather(*others)
        assert [[entry[0] for entry in each[0]] for each in found] == [
            [b"b", b"c"],
            [b"b", b"d"],
            [b"b", b"c"],
        ]
        assert store.asked == [[["a", "b"], []], [["c", "d", "e"], []]]

    run(scenario)


def test_a_refusal_reaches_all_who_wait_and_the_next_read_is_tried(
    run: Callable[..., None],
) -> None:
    async def scenario(cache: EntityCache, store: Store, clock: Clock) -> None:
        store.error = FeatureError("no such table")
        results = await asyncio.gather(
            cache.find([[1], []]), cache.find([[2], []]), return_exceptions=True
        )
        assert [type(result) for result in results] == [FeatureError, FeatureError]
        store.error = None
        assert (await cache.find([[1], []]))[0] == [(b"1", (), 0.0)]

    run(scenario)
