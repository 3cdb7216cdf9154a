"""Features of a micro-batch, read from the online store in one go.

What comes out equals what Feast's own `get_online_features` delivers, value for value: nulls,
unknown entities, null keys, what is past its view's TTL, on-demand features.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.serving import OnlinePolicy
from aios_platform.errors import ServingError
from aios_platform.features.online_plan import OnlinePlan
from aios_platform.serving.feature_block import BlockBuilder, FeatureBlock, Row
from aios_platform.serving.feature_cache import EntityCache
from aios_platform.serving.feature_keys import Key, bytea_array, key_of, serializer
from aios_platform.serving.feature_link import StoreLink
from aios_platform.serving.feature_values import ValueReader, Values
from aios_platform.serving.redis_link import RedisLink

__all__ = ["FeatureBlock", "OnlineReader"]


class OnlineReader:
    """Reads the features of a model's rows; on one event loop.

    Args:
        plan: What to read.
        url: SQLAlchemy URL of Feast's database; where the plan reads from Redis, Feast's
            connection string.
        places: Place of each input of the plan in a row; the prediction time is not needed.
        policy: How many entities are remembered, and for how long they are young.
        connect_seconds: Longest wait for a connection.
        statement_seconds: Longest that a read waits for the store.

    Raises:
        ServingError: An input has no place in the rows.
    """

    def __init__(
        self,
        plan: OnlinePlan,
        url: str,
        *,
        places: Mapping[str, int],
        policy: OnlinePolicy,
        connect_seconds: float = 2.0,
        statement_seconds: float = 1.0,
    ) -> None:
        absent = [n for n in plan.inputs if n not in places and n != plan.moment]
        if absent:
            raise ServingError(
                f"The rows do not carry what the features need: {', '.join(absent)}.",
                remedy="Give the place of each in a row.",
            )
        self.plan = plan
        self._keys = [key_of(entity, places) for entity in plan.entities]
        self._serializers = [serializer(entity) for entity in plan.entities]
        self._values = ValueReader(plan)
        self._builder = BlockBuilder(plan, self._values.layouts, places)
        limits = {"connect_seconds": connect_seconds, "statement_seconds": statement_seconds}
        self._link: StoreLink | RedisLink
        if plan.redis is None:
            self._link = StoreLink(
                url, self._values.statement, len(plan.entities), plan.schema, **limits
            )
        else:
            self._link = RedisLink(plan, self._values, url, **limits)
        self._cache = EntityCache(
            self._fetch,
            len(plan.entities),
            entities=policy.cache_entities,
            seconds=policy.cache_seconds,
        )

    @property
    def reachable(self) -> bool:
        """Whether the store answered when it was last tried."""
        return self._link.reachable

    async def read(self, rows: Sequence[Row], moments: NDArray[np.float64]) -> FeatureBlock:
        """Read the features of rows.

        Args:
            rows: Tuples of input values.
            moments: float64 (rows,): Unix seconds at which ages are judged (a value of later has
                none) and that on-demand views take for the prediction time.

        Raises:
            FeatureError: The server refuses to read, say because a view's table is gone, or an
                on-demand view fails.
        """
        keys = [list(map(key, rows)) for key in self._keys]
        found = await self._cache.find(keys)
        return self._builder.build(rows, moments, keys, found)

    async def close(self) -> None:
        """Close the connection; whoever waits is answered as if the store were unreachable."""
        await self._cache.close()
        await self._link.close()

    async def _fetch(self, keys: list[list[Key]]) -> list[list[Values]]:
        # The empty key is nobody's.
        serialized = [
            [serialize(key) or b"" for key in of_kind]
            for serialize, of_kind in zip(self._serializers, keys, strict=True)
        ]
        numbers: bytes | None
        objects: bytes | None
        if isinstance(self._link, RedisLink):
            numbers, objects = await self._link.fetch(serialized)
        else:
            numbers, objects = await self._link.fetch([bytea_array(part) for part in serialized])
        return self._values.values([len(of_kind) for of_kind in keys], numbers, objects)
