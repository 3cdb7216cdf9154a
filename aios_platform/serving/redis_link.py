"""The connection to an online store in Redis; it answers in the cells that Postgres answers in.

One pipeline per micro-batch, a HMGET per key. A store that does not answer is left alone for a
moment, while reads fail at once.
"""

import asyncio
import logging
import struct
from collections.abc import Sequence
from typing import Any

from aios_platform.errors import DatabaseUnavailable
from aios_platform.features.online_plan import OnlinePlan
from aios_platform.serving.feature_query import VALUE_BYTES
from aios_platform.serving.feature_values import EPOCH_MICROSECONDS, HEAD, ValueReader

logger = logging.getLogger(__name__)

NUMBER = struct.Struct(f">Hiq{VALUE_BYTES}s")
PAUSE_SECONDS = 0.5


class RedisLink:
    """Reads entities' cells.

    Args:
        plan: What is read; its `redis` names Feast's project.
        values: How the cells are numbered.
        connection: `host:port[,password=...,ssl=true,db=0]`, as Feast takes it.
        connect_seconds: Longest wait for a connection.
        statement_seconds: Longest wait for an answer.
    """

    def __init__(
        self,
        plan: OnlinePlan,
        values: ValueReader,
        connection: str,
        *,
        connect_seconds: float,
        statement_seconds: float,
    ) -> None:
        from feast.infra.online_stores.helpers import _mmh3
        from feast.infra.online_stores.redis import RedisOnlineStore
        from redis.asyncio import Redis

        self._project = str(plan.redis).encode()
        self._seconds = statement_seconds
        # Per kind of key: its fields, and what each holds: a view's time, or a numbered cell.
        self._fields: list[list[bytes]] = [[] for _ in plan.entities]
        self._cells: list[list[tuple[int | None, bool]]] = [[] for _ in plan.entities]
        for owner, entity in enumerate(plan.entities):
            for place in entity.views:
                view = plan.views[place].stored_as
                self._fields[owner].append(f"_ts:{view}".encode())
                self._cells[owner].append((None, False))
                for number, name, is_number in values.columns[owner, place]:
                    self._fields[owner].append(_mmh3(f"{view}:{name}"))
                    self._cells[owner].append((number, is_number))
        nodes, options = RedisOnlineStore._parse_connection_string(connection)
        self._place = f"{nodes[0]['host']}:{nodes[0]['port']}"
        self._client: Any = Redis(
            host=nodes[0]["host"],
            port=int(nodes[0]["port"]),
            socket_connect_timeout=connect_seconds,
            socket_timeout=statement_seconds,
            **options,
        )
        self._again_at = 0.0
        self.reachable = True

    async def fetch(self, keys: Sequence[Sequence[bytes]]) -> tuple[bytes, bytes]:
        """Cells that are numbers, and all others, of serialized keys per kind.

        Raises:
            DatabaseUnavailable: The store does not answer.
        """
        from redis.exceptions import RedisError

        now = asyncio.get_running_loop().time()
        if now < self._again_at:
            raise self._unavailable("it did not answer a moment ago")
        asked = [
            (owner, place, key)
            for owner, of_kind in enumerate(keys)
            for place, key in enumerate(of_kind, start=1)
            # The empty key is nobody's.
            if key
        ]
        try:
            async with asyncio.timeout(self._seconds):
                async with self._client.pipeline(transaction=False) as pipe:
                    for owner, _, key in asked:
                        pipe.hmget(key + self._project, self._fields[owner])
                    answers = await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            if self.reachable:
                logger.warning("The online store on %s does not answer: %s", self._place, error)
            self.reachable = False
            self._again_at = asyncio.get_running_loop().time() + PAUSE_SECONDS
            raise self._unavailable(type(error).__name__) from error
        if not self.reachable:
            logger.warning("The online store on %s answers again.", self._place)
        self.reachable = True
        numbers, objects = bytearray(), bytearray()
        for (owner, place, _), held in zip(asked, answers, strict=True):
            self._write(owner, place, held, numbers, objects)
        return bytes(numbers), bytes(objects)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _write(
        self,
        owner: int,
        place: int,
        held: Sequence[bytes | None],
        numbers: bytearray,
        objects: bytearray,
    ) -> None:
        event: int | None = None
        for (number, is_number), value in zip(self._cells[owner], held, strict=True):
            if number is None:
                event = None if value is None else _microseconds(value)
            elif event is None or value is None:
                continue
            elif is_number:
                numbers += NUMBER.pack(number, place, event, value[:VALUE_BYTES])
            else:
                objects += HEAD.pack(number, place, event, len(value)) + value

    def _unavailable(self, why: str) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"The online store on {self._place} does not answer: {why}.",
            remedy="Start it; the gateway reads from it again by itself.",
        )


def _microseconds(stamp: bytes) -> int:
    from google.protobuf.timestamp_pb2 import Timestamp

    return int(Timestamp.FromString(stamp).ToMicroseconds()) - EPOCH_MICROSECONDS
