"""A client that offers requests over kept connections, in a process of its own.

Closed loop: each connection sends its next request when it has the answer to the last. Open loop:
requests arrive by a Poisson process whatever the server does, rounded up to the millisecond, and
one that finds no connection free has waited since it arrived.
"""

import asyncio
import itertools
import multiprocessing
import random
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvloop

TIMEOUT_SECONDS = 20.0
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
LAST_CHUNK = b"\r\n0\r\n\r\n"
GOOD = b"200"
FAILED = "no answer"


@dataclass(frozen=True)
class Plan:
    """What to offer.

    Attributes:
        port: On loopback.
        requests: Whole HTTP/1.1 requests, sent in turn.
        connections: Connections at once.
        seconds: For how long.
        rate: Requests per second; None: as fast as they are answered.
        seed: Of the arrivals.
    """

    port: int
    requests: list[bytes]
    connections: int
    seconds: float
    rate: float | None = None
    seed: int = 0


@dataclass
class Outcome:
    """What came back.

    Attributes:
        seconds: How long it took, the last answers included.
        cpu: Processor seconds of the client.
        begun: When each request was sent, or arrived (`time.monotonic`).
        latencies: Seconds until its answer.
        statuses: Answers by HTTP status; 'no answer' where the connection broke.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    begun: np.ndarray = field(default_factory=lambda: np.empty(0))
    latencies: np.ndarray = field(default_factory=lambda: np.empty(0))
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        """Requests that were answered well."""
        return self.statuses[GOOD.decode()]

    @property
    def failed(self) -> int:
        """Requests that were not."""
        return self.statuses.total() - self.answered

    def latency_ms(self, share: float) -> float:
        """A quantile of the latencies, milliseconds."""
        return float(np.quantile(self.latencies, share)) * 1000 if len(self.latencies) else np.inf


class Load:
    """Keeps a client process."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def offer(self, plan: Plan) -> Outcome:
        """Offer requests, and wait for the outcome."""
        return self.begin(plan).result()

    def begin(self, plan: Plan) -> "Future[Outcome]":
        """Begin to offer requests."""
        return self._pool.submit(offered, plan)

    def call(self, function: Callable[[str], Any], argument: str) -> Any:
        """Do something else in the process."""
        return self._pool.submit(function, argument).result()


@contextmanager
def client() -> Iterator[Load]:
    """A client process, as long as it is needed."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pool.submit(time.monotonic).result()
        yield Load(pool)


def offered(plan: Plan) -> Outcome:
    """Carry out a plan in this process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Offering(plan).run())


class _Offering:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.begun, self.latencies = array("d"), array("d")
        self.statuses: Counter[str] = Counter()
        self.requests = itertools.cycle(plan.requests)
        self.until = 0.0
        self.over = False
        self.under_way = 0
        # The one that rested longest is next: servers hang up on those that never ask.
        self.free: deque[_Connection] = deque()
        self.waiting: deque[float] = deque()
        self.idle = asyncio.Event()

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        connections = []
        for _ in range(self.plan.connections):
            _, connection = await loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", self.plan.port
            )
            connections.append(connection)
        start, cpu = time.monotonic(), time.process_time()
        self.until = start + self.plan.seconds
        if self.plan.rate is None:
            for connection in connections:
                connection.ask(time.monotonic())
        else:
            self.free.extend(connections)
            await self._arrive(self.plan.rate)
        try:
            await asyncio.wait_for(self.idle.wait(), self.plan.seconds + TIMEOUT_SECONDS)
        except TimeoutError:
            self.statuses[FAILED] += self.under_way + len(self.waiting)
        outcome = Outcome(
            time.monotonic() - start,
            time.process_time() - cpu,
            np.array(self.begun),
            np.array(self.latencies),
            self.statuses,
        )
        for connection in connections:
            connection.close()
        return outcome

    async def _arrive(self, rate: float) -> None:
        chance = random.Random(self.plan.seed)
        due = time.monotonic()
        while True:
            due += chance.expovariate(rate)
            if due >= self.until:
                break
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            now = time.monotonic()
            if self.free:
                self.free.popleft().ask(now)
            else:
                self.waiting.append(now)
        self.over = True
        self._end()

    def _end(self) -> None:
        if self.over and not self.under_way:
            self.idle.set()

    def answered(self, connection: "_Connection", status: str) -> None:
        now = time.monotonic()
        self.under_way -= 1
        self.statuses[status] += 1
        self.begun.append(connection.since)
        self.latencies.append(now - connection.since)
        if self.waiting:
            connection.ask(self.waiting.popleft())
        elif self.plan.rate is not None:
            self.free.append(connection)
            self._end()
        elif now < self.until:
            connection.ask(now)
        else:
            self.over = True
            self._end()

    def broken(self) -> None:
        self.under_way -= 1
        self.statuses[FAILED] += 1
        self._end()


class _Connection(asyncio.Protocol):
    def __init__(self, offering: _Offering) -> None:
        self._offering = offering
        self._buffer = b""
        self._needed = 0
        self._asked = False
        self.since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, since: float) -> None:
        self.since = since
        self._asked = True
        self._offering.under_way += 1
        self._transport.write(next(self._offering.requests))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        if not self._needed:
            end = buffer.find(HEAD_END)
            if end < 0:
                return
            head = buffer[:end].lower()
            place = head.find(LENGTH)
            if place < 0:
                # In chunks, whose last one is empty.
                if not buffer.endswith(LAST_CHUNK):
                    return
                self._needed = len(buffer)
            else:
                stop = head.find(b"\r\n", place)
                length = head[place + len(LENGTH) : stop if stop > 0 else None]
                self._needed = end + len(HEAD_END) + int(length)
        if len(buffer) >= self._needed:
            status = buffer[9:12].decode()
            self._buffer, self._needed, self._asked = b"", 0, False
            self._offering.answered(self, status)

    def connection_lost(self, _: Exception | None) -> None:
        if self._asked:
            self._asked = False
            self._offering.broken()

    def close(self) -> None:
        self._asked = False
        self._transport.close()
