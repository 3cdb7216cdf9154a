"""Requests at a rate that does not wait for answers, or from callers who do."""

import asyncio
import time
from collections import Counter
from typing import NamedTuple


class Outcome(NamedTuple):
    """What became of the requests.

    Attributes:
        statuses: How many had which HTTP status.
        seconds: From the first request to the last answer.
        slowest: Longest time to a good answer, seconds.
        unexplained: Refusals that do not say when to come again.
    """

    statuses: Counter[int]
    seconds: float
    slowest: float
    unexplained: int

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.statuses[200] / self.seconds


class Load:
    """Asks the same thing again and again, on connections that live.

    Args:
        port: Of the gateway.
        request: The bytes of a request.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self._port, self._request = port, request
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._statuses: Counter[int] = Counter()
        self._slowest = 0.0
        self._unexplained = 0

    async def closed(self, callers: int, seconds: float) -> Outcome:
        """So many callers, each of whom waits for his answer."""
        begun = time.perf_counter()

        async def caller() -> None:
            while time.perf_counter() - begun < seconds:
                await self._ask()

        await asyncio.gather(*(caller() for _ in range(callers)))
        return await self._outcome(begun)

    async def open(self, rate: float, seconds: float) -> Outcome:
        """So many requests a second, whatever becomes of them."""
        begun = time.perf_counter()
        asked: list[asyncio.Task[None]] = []
        while (now := time.perf_counter() - begun) < seconds:
            due = int(now * rate) - len(asked)
            asked += [asyncio.ensure_future(self._ask()) for _ in range(due)]
            await asyncio.sleep(0.005)
        await asyncio.gather(*asked)
        return await self._outcome(begun)

    async def _ask(self) -> None:
        begun = time.perf_counter()
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        self._idle.append((reader, writer))
        status = int(head.split()[1])
        self._statuses[status] += 1
        if status == 200:
            self._slowest = max(self._slowest, time.perf_counter() - begun)
        else:
            self._unexplained += b"\r\nretry-after: " not in head

    async def _outcome(self, begun: float) -> Outcome:
        seconds = time.perf_counter() - begun
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()
        return Outcome(self._statuses, seconds, self._slowest, self._unexplained)
