"""Micro-batches: what is scored together, what waits, what is refused, what is not computed."""

import asyncio
import time

import numpy as np
import pytest

from aios_platform.errors import DeadlineExceeded, Overloaded
from aios_platform.serving.batching import MicroBatcher
from aios_platform.serving.work import Work


def work(rows=1, seconds=5.0, told=None):
    now = time.monotonic()
    return Work(
        "r", None, None, None, np.zeros(rows), [None] * rows, now, now + seconds,
        (told.append if told is not None else lambda _: None),
    )  # fmt: skip


class Model:
    """Answers batches, at once or after a while, and remembers them."""

    def __init__(self, seconds=None):
        self.seconds = seconds
        self.batches = []

    def __call__(self, works):
        self.batches.append([each.count for each in works])
        return self._slowly(works) if self.seconds is not None else self._end(works)

    async def _slowly(self, works):
        await asyncio.sleep(self.seconds)
        self._end(works)

    def _end(self, works):
        for each in works:
            each.end()


def batcher(model, **policy):
    return MicroBatcher(
        model, **{"max_rows": 8, "max_delay": 0.0, "queue_rows": 100, "batch_seconds": 0} | policy
    )


async def idle(queue):
    async with asyncio.timeout(10):
        while not queue.idle:
            await asyncio.sleep(0.001)


def test_an_idle_model_is_asked_in_the_next_turn_and_rows_of_one_turn_are_a_batch():
    async def run():
        model = Model()
        queue = batcher(model)
        queue.put(work())
        await asyncio.sleep(0)
        assert model.batches == [[1]]
        for _ in range(3):
            queue.put(work())
        await asyncio.sleep(0)
        assert model.batches == [[1], [1, 1, 1]]
        assert queue.idle

    asyncio.run(run())


def test_rows_gather_while_the_model_is_busy_up_to_the_largest_batch():
    async def run():
        model = Model(seconds=0.01)
        queue = batcher(model)
        for _ in range(20):
            queue.put(work())
        await idle(queue)
        assert model.batches == [[1] * 8, [1] * 8, [1] * 4]

    asyncio.run(run())


def test_a_larger_request_is_a_batch_by_itself():
    async def run():
        model = Model()
        queue = batcher(model)
        for rows in (2, 30, 2, 3):
            queue.put(work(rows))
        await idle(queue)
        assert model.batches == [[2], [30], [2, 3]]

    asyncio.run(run())


def test_a_declared_delay_ends_when_the_batch_is_full():
    async def run():
        model = Model()
        queue = batcher(model, max_delay=60.0)
        for _ in range(7):
            queue.put(work())
        await asyncio.sleep(0.01)
        assert model.batches == []
        queue.put(work())
        await asyncio.sleep(0)
        assert model.batches == [[1] * 8]
        short = batcher(model, max_delay=0.01)
        short.put(work())
        await idle(short)
        assert model.batches[1:] == [[1]]

    asyncio.run(run())


def test_past_the_bound_rows_are_refused_and_told_when_to_come_again():
    async def run():
        model = Model(seconds=0.01)
        queue = batcher(model, queue_rows=10)
        for _ in range(10):
            queue.put(work())
        assert queue.full
        with pytest.raises(Overloaded) as refused:
            queue.put(work())
        assert 1 <= refused.value.retry_after <= 60
        await idle(queue)
        queue.put(work(1000))
        await idle(queue)
        assert sum(map(sum, model.batches)) == 1010

    asyncio.run(run())


def test_what_waited_beyond_its_deadline_is_not_computed():
    async def run():
        model, told = Model(seconds=0.02), []
        queue = batcher(model, max_rows=1)
        queue.put(work())
        late = work(seconds=0.005, told=told)
        queue.put(late)
        queue.put(work())
        await idle(queue)
        assert model.batches == [[1], [1]]
        assert told == [late]
        assert isinstance(late.error, DeadlineExceeded)

    asyncio.run(run())


def test_a_wait_beyond_the_deadline_is_refused_at_once():
    async def run():
        queue = batcher(Model(seconds=0.01), batch_seconds=1.0)
        for _ in range(16):
            queue.put(work(seconds=5))
        with pytest.raises(Overloaded) as refused:
            queue.put(work(seconds=1.5))
        assert refused.value.retry_after == pytest.approx(2, rel=0.01)
        queue.put(work(seconds=5))
        await idle(queue)

    asyncio.run(run())


def test_what_single_rows_cost_says_little_of_large_batches():
    """A batch costs its start, too: reading features, waking a thread."""

    async def run():
        queue = batcher(Model(seconds=0.005), max_rows=64, queue_rows=1000)
        for _ in range(20):
            queue.put(work())
            await idle(queue)
        queue.put(work(600))
        queue.put(work(seconds=1.0))
        await idle(queue)

    asyncio.run(run())


@pytest.mark.parametrize("later", [False, True])
def test_a_batch_that_fails_unforeseen_stops_nothing(later, caplog):
    def answer(works):
        if not later:
            raise ValueError("Ada")
        return fail(works)

    async def fail(works):
        for each in works:
            each.end()
        raise ValueError("Ada")

    async def run():
        queue = batcher(answer)
        told = []
        for _ in range(2):
            queue.put(work(told=told))
            await idle(queue)
        assert len(told) == 2

    asyncio.run(run())
    assert caplog.text.count("A batch ended with an error: ValueError in") == 2
    assert "Ada" not in caplog.text


@pytest.mark.parametrize("seconds", [None, 0.001], ids=["at once", "later"])
def test_a_caller_never_finds_its_own_rows_before_its_next_request(seconds):
    async def run():
        queue = batcher(Model(seconds))
        done = asyncio.Event()

        def ask_again(ended):
            assert ended.error is None
            if not done.is_set():
                done.set()
                queue.put(work(rows=500, told=again))

        again = []
        first = work(rows=500)
        first.done = ask_again
        queue.put(first)
        await done.wait()
        await idle(queue)
        assert [each.error for each in again] == [None]

    asyncio.run(run())
