"""Values of entities that were read a moment ago, and one read at a time for the others."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aios_platform.errors import DatabaseUnavailable
from aios_platform.serving.feature_keys import Key
from aios_platform.serving.feature_values import Values

Entry = tuple[bytes, tuple[Any, ...], float]
"""The values, and when they were read (monotonic seconds)."""
Wanted = list[dict[Key, None]]
Found = list[dict[Key, Entry]]


class _Round:
    """One read of the store, and who waits for it."""

    def __init__(self, kinds: int) -> None:
        self.keys: Wanted = [{} for _ in range(kinds)]
        self.found: asyncio.Future[Found] = asyncio.get_running_loop().create_future()


class EntityCache:
    """Finds the values of entities, from memory while they are young, else from the store.

    While one read is under way, keys that others want gather for the next; a key that is being
    read is waited for. When the store does not answer, what is remembered is used whatever its
    age.

    Args:
        fetch: Reads the values of keys, per entity kind and in their order; may raise
            DatabaseUnavailable.
        kinds: How many entity kinds there are.
        entities: How many entities are remembered, over all kinds.
        seconds: For how long values are young.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        fetch: Callable[[list[list[Key]]], Awaitable[list[list[Values]]]],
        kinds: int,
        *,
        entities: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._entities = entities
        self._seconds = seconds
        self._clock = clock
        self._held: Found = [{} for _ in range(kinds)]
        self._flying: _Round | None = None
        self._gathering: _Round | None = None
        self._reading: asyncio.Task[None] | None = None

    async def find(self, keys: Sequence[Sequence[Key]]) -> list[list[Entry | None]]:
        """Values per entity kind and key; None where there are none, or where the key is None.

        Raises:
            FeatureError: The server refuses to read.
        """
        oldest = self._clock() - self._seconds
        entries = [list(map(held.get, asked)) for held, asked in zip(self._held, keys, strict=True)]
        wanted: Wanted = [
            {
                key: None
                for key, entry in zip(asked, of_kind, strict=True)
                if (entry is None or entry[2] <= oldest) and key is not None
            }
            for asked, of_kind in zip(keys, entries, strict=True)
        ]
        if any(wanted):
            read = await self._read(wanted)
            entries = [
                [found.get(key, entry) for key, entry in zip(asked, of_kind, strict=True)]
                for asked, of_kind, found in zip(keys, entries, read, strict=True)
            ]
        return entries

    async def close(self) -> None:
        """Let nobody wait any more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        for pending in (self._flying, self._gathering):
            if pending is not None and not pending.found.done():
                pending.found.set_result([{} for _ in self._held])

    async def _read(self, wanted: Wanted) -> Found:
        rounds = []
        if self._flying is not None:
            flying = self._flying.keys
            left: Wanted = [
                {key: None for key in asked if key not in under_way}
                for asked, under_way in zip(wanted, flying, strict=True)
            ]
            if left != wanted:
                rounds.append(self._flying)
                wanted = left
        if any(wanted):
            if self._gathering is None:
                self._gathering = _Round(len(self._held))
            for gathered, asked in zip(self._gathering.keys, wanted, strict=True):
                gathered.update(asked)
            rounds.append(self._gathering)
            if self._reading is None or self._reading.done():
                self._reading = asyncio.get_running_loop().create_task(self._read_rounds())
        # A caller that gives up must not take the others' read with it.
        read = await asyncio.shield(rounds[0].found)
        for one in rounds[1:]:
            more = await asyncio.shield(one.found)
            read = [{**first, **second} for first, second in zip(read, more, strict=True)]
        return read

    async def _read_rounds(self) -> None:
        while self._gathering is not None:
            flying, self._gathering = self._gathering, None
            self._flying = flying
            keys = [list(asked) for asked in flying.keys]
            try:
                values = await self._fetch(keys)
            except DatabaseUnavailable:
                flying.found.set_result([{} for _ in keys])
            except Exception as error:
                flying.found.set_exception(error)
                # Those who waited may all be gone.
                flying.found.exception()
            else:
                now = self._clock()
                found: Found = [
                    {key: (*value, now) for key, value in zip(asked, read, strict=True)}
                    for asked, read in zip(keys, values, strict=True)
                ]
                flying.found.set_result(found)
                self._remember(found)
            self._flying = None

    def _remember(self, found: Found) -> None:
        if not self._entities:
            return
        for held, new in zip(self._held, found, strict=True):
            for key in new:
                held.pop(key, None)
            # Last in the dictionary is what was read last.
            held.update(new)
        surplus = sum(map(len, self._held)) - self._entities
        for _ in range(surplus):
            largest = max(self._held, key=len)
            del largest[next(iter(largest))]
