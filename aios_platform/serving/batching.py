"""Dynamic micro-batches: rows that arrive while others are scored are scored together.

No request waits while the model is idle, unless a delay is declared: requests that were read in
one turn of the event loop are a batch already.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

from aios_platform.errors import DeadlineExceeded, Overloaded
from aios_platform.serving.problems import traced
from aios_platform.serving.work import Work

logger = logging.getLogger(__name__)

# Weight of a full batch in the running mean of the time that one takes; others weigh by their rows.
NEWEST = 0.1

Answer = Callable[[list[Work]], Awaitable[None] | None]


class MicroBatcher:
    """The queue before one model version.

    Args:
        answer: Answers a batch: at once (returns None), or as a coroutine. It must end every
            work itself, and never raise.
        max_rows: Most rows in a batch; a larger request is a batch by itself.
        max_delay: Seconds to wait for more rows while idle.
        queue_rows: Most rows that wait.
        batch_seconds: Time that a full batch takes, as far as it is known before there was one.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        max_rows: int,
        max_delay: float,
        queue_rows: int,
        batch_seconds: float = 0.0,
    ) -> None:
        self._answer = answer
        self._max_rows = max_rows
        self._max_delay = max_delay
        self._limit = queue_rows
        self._waiting: deque[Work] = deque()
        self.rows = 0
        """Rows that wait or are being scored."""
        self.batch_seconds = batch_seconds
        """Running mean of the time that the batch of a row takes."""
        self._busy = False
        self._due: asyncio.Handle | None = None
        self._delayed = False
        self._task: asyncio.Future[None] | None = None
        self._loop = asyncio.get_event_loop()

    @property
    def full(self) -> bool:
        """Whether one more row would be refused."""
        return self.rows >= self._limit

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being scored."""
        return not self.rows and not self._busy

    def overloaded(self) -> Overloaded:
        """What a request is told that finds the queue full."""
        return Overloaded(
            f"{self.rows:,} rows wait before this model.",
            retry_after=min(max(self._wait(), 1.0), 60.0),
        )

    def _wait(self) -> float:
        """Seconds that the rows take which are here."""
        return self.rows / self._max_rows * self.batch_seconds

    def check(self, work: Work) -> None:
        """Whether there is room for a request.

        Raises:
            Overloaded: The queue is full, or the request would wait beyond its deadline.
        """
        if self.rows and self.rows + work.count > self._limit:
            raise self.overloaded()
        if self._wait() > work.deadline - work.arrived:
            raise self.overloaded()

    def put(self, work: Work) -> None:
        """Take a request in.

        Raises:
            Overloaded: There is no room for it.
        """
        self.check(work)
        self._waiting.append(work)
        self.rows += work.count
        work.leave = self._left
        if self._busy:
            return
        if self._due is None:
            self._delayed = self._max_delay > 0 and self.rows < self._max_rows
            if self._delayed:
                self._due = self._loop.call_later(self._max_delay, self._go)
            else:
                self._due = self._loop.call_soon(self._go)
        elif self._delayed and self.rows >= self._max_rows:
            self._due.cancel()
            self._delayed = False
            self._due = self._loop.call_soon(self._go)

    def _go(self) -> None:
        self._due = None
        batch, rows = self._next()
        if not batch:
            return
        start = time.perf_counter()
        try:
            pending = self._answer(batch)
        except Exception as error:
            logger.error("A batch ended with an error: %s", traced(error))
            for work in batch:
                work.end(error)
            pending = None
        if pending is None:
            self._ended(rows, time.perf_counter() - start)
            return
        self._busy = True
        self._task = asyncio.ensure_future(pending)
        self._task.add_done_callback(
            lambda done: self._ended(rows, time.perf_counter() - start, done)
        )

    def _next(self) -> tuple[list[Work], int]:
        batch: list[Work] = []
        rows = 0
        now = time.monotonic()
        waiting = self._waiting
        while waiting and (not batch or rows + waiting[0].count <= self._max_rows):
            work = waiting.popleft()
            if now > work.deadline:
                work.end(
                    DeadlineExceeded(
                        "The request waited beyond its deadline, and was not computed.",
                        remedy="Ask for less at a time, or allow more.",
                    )
                )
                continue
            batch.append(work)
            rows += work.count
        return batch, rows

    def _left(self, work: Work) -> None:
        self.rows -= work.count

    def _ended(self, rows: int, seconds: float, done: "asyncio.Future[None] | None" = None) -> None:
        self._busy = False
        share = rows / self._max_rows
        taken = seconds / max(share, 1.0)
        self.batch_seconds += NEWEST * min(share, 1.0) * (taken - self.batch_seconds)
        failure = None if done is None or done.cancelled() else done.exception()
        if failure is not None:
            logger.error("A batch ended with an error: %s", traced(failure))
        if self._waiting and self._due is None:
            self._delayed = False
            self._due = self._loop.call_soon(self._go)
