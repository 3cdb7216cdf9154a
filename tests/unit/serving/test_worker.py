"""The worker on a real queue, with a scorer that does as the messages say."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from aios_platform.errors import DatabaseUnavailable
from aios_platform.serving.postgres_queue import UNSETTLED, PostgresQueue
from aios_platform.serving.worker import Worker
from tests.unit.serving.queues import ScriptedScorer, dead, make_due, results, waiting

pytestmark = [pytest.mark.postgres]
QUICK = {"poll_seconds": 0.01, "wait_seconds": 0.01}


@pytest.fixture
def queue(own_database):
    return PostgresQueue(own_database, max_attempts=2, backoff_seconds=60.0)


@pytest.fixture
def scorer():
    return ScriptedScorer()


def put(queue, *numbers, model="m", **body):
    for n in numbers:
        queue.put(model, f"k{n}", {"n": n, **body})


def run_once(queue, scorer, *models, concurrency=64) -> int:
    async def run() -> int:
        worker = Worker(queue, scorer, concurrency=concurrency, **QUICK)
        return await worker.run(models or ("m",), once=True)

    return asyncio.run(run())


class Working:
    """A worker of the model m in a thread of its own."""

    def __init__(self, queue, scorer) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(queue, scorer)))
        self._thread.start()
        self._started.wait()

    async def _main(self, queue, scorer) -> None:
        self._worker, self._loop = Worker(queue, scorer, **QUICK), asyncio.get_running_loop()
        self._started.set()
        self.scored = await self._worker.run(("m",))

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._worker.stop)

    def ended(self) -> bool:
        self._thread.join(0.001)
        return not self._thread.is_alive()


@contextmanager
def working(queue, scorer) -> Iterator[Working]:
    """A worker until the block ends; then it is told to stop, and does."""
    worker = Working(queue, scorer)
    try:
        yield worker
    finally:
        if not worker.ended():
            worker.stop()
        until(worker.ended)


class Held(ScriptedScorer):
    """Answers only when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.let_go = threading.Event(), threading.Event()

    async def predict(self, model, body, request_id):
        self.asked.set()
        await asyncio.to_thread(self.let_go.wait)
        return await super().predict(model, body, request_id)


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_it_scores_what_is_due_of_its_models(queue, scorer, own_database):
    put(queue, *range(7))
    put(queue, 7, model="n")
    put(queue, 8, model="other")
    assert run_once(queue, scorer, "m", "n", concurrency=3) == 8
    assert results(own_database) == {f"k{n}": {"n": n} for n in range(8)}
    assert set(waiting(own_database)) == {"k8"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"fault": "failed"}, "ServingError: Odd."),
        ({"fault": "unavailable"}, "feature_unavailable: Old."),
        ({"fault": "bug"}, "ZeroDivisionError in predict, line "),
        ({"answer": float("nan")}, "ServingError: An answer cannot be stored as JSON (ValueError"),
    ],
    ids=["error", "feature", "bug", "answer"],
)
def test_a_failure_is_tried_again_and_then_a_dead_letter(queue, own_database, body, says):
    class Odd(ScriptedScorer):
        async def predict(self, model, sent, request_id):
            asked = json.dumps({"n": 1, **body}) if "answer" in body else sent
            return await super().predict(model, asked, request_id)

    put(queue, 1, **({} if "answer" in body else body))
    assert run_once(queue, Odd()) == 0
    attempts, error, _ = waiting(own_database)["k1"]
    assert attempts == 1
    assert error.startswith(says)
    assert "secret" not in error
    make_due(own_database)
    assert run_once(queue, Odd()) == 0
    assert dead(own_database) == {"k1": (2, error)}


def test_a_passing_failure_costs_nothing_but_time(queue, scorer, own_database):
    put(queue, 1, fault="failed", times=1)
    assert run_once(queue, scorer) == 0
    make_due(own_database)
    assert run_once(queue, scorer) == 1
    assert results(own_database) == {"k1": {"n": 1}}


def test_a_refused_message_stops_no_other_and_is_not_quoted(queue, scorer, own_database, caplog):
    put(queue, 1, fault="refused")
    put(queue, 2)
    assert run_once(queue, scorer) == 1
    assert caplog.messages == ["m: 1 of 2 messages were not scored: invalid_input (1)."]
    assert dead(own_database) == {"k1": (1, "invalid_input: No.")}
    assert set(results(own_database)) == {"k2"}


@pytest.mark.parametrize("fault", ["overloaded", "store", "no_champion"])
def test_a_service_in_trouble_wears_no_message_out(queue, scorer, own_database, fault):
    put(queue, 1, fault=fault, times=3)
    for _ in range(3):
        assert run_once(queue, scorer) == 0
        assert waiting(own_database)["k1"][0] == 0
        make_due(own_database)
    assert run_once(queue, scorer) == 1


def test_a_scorer_that_never_answers_fails_that_message_only(own_database):
    class Hanging(ScriptedScorer):
        async def predict(self, model, body, request_id):
            if json.loads(body)["n"] == 9:
                await asyncio.Event().wait()
            return await super().predict(model, body, request_id)

    queue = PostgresQueue(own_database, lease_seconds=0.2)
    put(queue, 1, 9)
    assert run_once(queue, Hanging()) == 1
    assert set(results(own_database)) == {"k1"}
    assert waiting(own_database)["k9"][1] == "no answer within 0.2 s"


def test_the_request_id_is_the_keys_own(queue, scorer, own_database):
    put(queue, 1, fault="failed", times=1)
    put(queue, 1, model="n")
    run_once(queue, scorer, "m", "n")
    make_due(own_database)
    run_once(queue, scorer)
    ids = {model: {seen for name, _, seen in scorer.seen if name == model} for model in "mn"}
    assert len(scorer.seen) == 3
    assert len(ids["m"]) == len(ids["n"]) == 1
    assert ids["m"] != ids["n"]


def test_what_comes_while_it_waits_is_scored(queue, scorer, own_database):
    with working(queue, scorer) as worker:
        for n in range(3):
            put(queue, n)
            until(lambda n=n: f"k{n}" in results(own_database))
    assert worker.scored == 3


def test_told_to_stop_it_settles_what_it_holds_and_takes_no_more(queue, own_database):
    scorer = Held()
    put(queue, 1)
    with working(queue, scorer) as worker:
        scorer.asked.wait()
        worker.stop()
        put(queue, 2)
        scorer.let_go.set()
    assert (worker.scored, set(results(own_database))) == (1, {"k1"})
    assert set(waiting(own_database)) == {"k2"}


@contextmanager
def cut_off(database) -> Iterator[None]:
    """The server ends all connections to the database and takes no new ones."""
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
    with database.maintenance() as connection:
        connection.execute(text(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS false"))
        connection.execute(text(ended), {"name": database.name})
    yield
    with database.maintenance() as connection:
        connection.execute(text(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS true"))


def test_it_outlives_its_database_and_loses_and_doubles_nothing(queue, own_database, caplog):
    scorer = Held()
    put(queue, *range(5))
    with working(queue, scorer) as worker, caplog.at_level(logging.WARNING):
        scorer.asked.wait()
        with cut_off(own_database):
            scorer.let_go.set()
            until(lambda: "The worker waits for its queue" in caplog.text)
        until(lambda: len(results(own_database)) == 5)
        with cut_off(own_database):
            until(lambda: caplog.text.count("The worker waits for its queue") > 1)
        put(queue, 5)
        until(lambda: len(results(own_database)) == 6)
    assert worker.scored == 6
    assert sorted(n for _, n, _ in scorer.seen) == list(range(6)), "nothing was scored twice"
    assert waiting(own_database) == dead(own_database) == {}


def test_stopped_while_its_database_is_away_it_ends_and_the_messages_come_back(own_database):
    scorer, queue = Held(), PostgresQueue(own_database)
    put(queue, 1)
    with working(queue, scorer) as worker:
        scorer.asked.wait()
        with cut_off(own_database):
            scorer.let_go.set()
            worker.stop()
            until(worker.ended)
    assert worker.scored == 0
    assert waiting(own_database)["k1"][:2] == (1, UNSETTLED)
    make_due(own_database)
    assert run_once(queue, scorer) == 1


def test_once_it_does_not_wait_for_a_database(queue, scorer, own_database):
    with cut_off(own_database), pytest.raises(DatabaseUnavailable):
        run_once(queue, scorer)
