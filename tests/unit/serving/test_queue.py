"""The queue on a real Postgres."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from aios_platform.alerts.outbox import alerts
from aios_platform.database import Database, parse_server_url
from aios_platform.errors import DatabaseUnavailable, RequestRefused
from aios_platform.serving.backlog import dead_letters, result_of, retry, state_of
from aios_platform.serving.postgres_queue import REUSED, UNSETTLED, PostgresQueue
from aios_platform.serving.queue import Failed, Fault, Scored, storable
from tests.unit.serving.queues import dead, make_due, results, waiting

pytestmark = [pytest.mark.postgres]


@pytest.fixture
def queue(own_database):
    return PostgresQueue(own_database)


def put(queue, *keys, model="m"):
    for key in keys:
        queue.put(model, key, {"n": key})


def scored(message, answer='{"p": 0.25}'):
    return Scored(message, "3", answer)


def failed(message, fault, seconds=0.0):
    return Failed(message, "Odd.\n\0Very.", fault, seconds)


def test_what_was_put_is_taken_once_and_becomes_its_result(queue, own_database):
    put(queue, "a", "b")
    first, second = queue.take("m", 5)
    assert (first.key, json.loads(first.body), first.attempts) == ("a", {"n": "a"}, 1)
    assert queue.take("m", 5) == []
    queue.settle([scored(first), scored(second, '{"text": "\\u00e9 \\"q\\" \\\\u0000"}')])
    assert results(own_database) == {"a": {"p": 0.25}, "b": {"text": 'é "q" \\u0000'}}
    assert waiting(own_database) == {}
    found = result_of(own_database, "m", "a")
    assert (found.version, found.answer) == ("3", {"p": 0.25})
    assert result_of(own_database, "m", "c") is None


def test_the_longest_waiting_go_first_and_only_of_the_model(queue):
    put(queue, "x", model="other")
    put(queue, "a", "b", "c")
    assert [message.key for message in queue.take("m", 2)] == ["a", "b"]
    assert [message.key for message in queue.take("m", 2)] == ["c"]


def test_many_that_take_at_once_get_different_messages(queue):
    put(queue, *(f"k{n}" for n in range(60)))
    with ThreadPoolExecutor(6) as pool:
        taken = [m.key for part in pool.map(lambda _: queue.take("m", 7), range(12)) for m in part]
    assert len(set(taken)) == len(taken)
    rest = [m.key for _ in range(9) for m in queue.take("m", 7)]
    assert sorted(taken + rest) == sorted(f"k{n}" for n in range(60))


def test_what_its_taker_never_settled_comes_back_alone(own_database):
    queue = PostgresQueue(own_database, lease_seconds=0.0)
    put(queue, "a", "b", "c")
    assert len(queue.take("m", 2)) == 2
    [again] = queue.take("m", 9)
    assert (again.key, again.attempts) == ("a", 2)
    assert waiting(own_database)["a"][1] == UNSETTLED


def test_a_message_that_kills_its_workers_dies_and_takes_no_other_with_it(own_database):
    queue = PostgresQueue(own_database, max_attempts=3)
    put(queue, *"abcd")
    # Whoever has c is killed.
    for _ in range(20):
        taken = queue.take("m", 9)
        if "c" not in {message.key for message in taken}:
            queue.settle([scored(message) for message in taken])
        make_due(own_database)
    assert set(results(own_database)) == set("abd")
    assert dead(own_database) == {"c": (3, UNSETTLED)}


def test_a_key_that_was_put_twice_has_one_result(queue, own_database):
    put(queue, "a", "a")
    both = queue.take("m", 5)
    queue.settle([scored(both[0], '{"n": 1}'), scored(both[1], '{"n": 2}')])
    put(queue, "a")
    assert queue.take("m", 5) == [], "it is done already"
    assert results(own_database) == {"a": {"n": 1}}
    assert waiting(own_database) == dead(own_database) == {}


def test_a_key_with_another_body_is_a_dead_letter(queue, own_database):
    for body in ({"n": 1, "o": 2}, {"n": 2}, {"o": 2, "n": 1}):
        queue.put("m", "a", body)
    queue.settle([scored(message) for message in queue.take("m", 5)])
    assert dead(own_database) == {"a": (1, REUSED)}
    queue.put("m", "a", {"n": 3})
    assert queue.take("m", 5) == []
    assert [letter.error for letter in dead_letters(own_database, "m")] == [REUSED] * 2
    assert len(results(own_database)) == 1


def test_two_that_had_the_same_message_leave_one_result(own_database):
    queue = PostgresQueue(own_database, lease_seconds=0.0)
    put(queue, "a")
    [slow], [fast] = queue.take("m", 1), queue.take("m", 1)
    queue.settle([scored(fast, '{"by": "fast"}')])
    queue.settle([scored(slow, '{"by": "slow"}')])
    assert results(own_database) == {"a": {"by": "fast"}}


def test_settled_by_many_at_once_in_any_order_each_key_has_one_result(own_database):
    queue = PostgresQueue(own_database, lease_seconds=0.0, max_attempts=99)
    put(queue, *(f"k{n % 10}" for n in range(20)))
    batches = []
    for _ in range(12):
        batches.append(queue.take("m", 20))
        with own_database.begin() as connection:
            connection.execute(text("UPDATE inference_request SET error = NULL"))
    with ThreadPoolExecutor(6) as pool:
        for _ in pool.map(
            lambda pair: queue.settle([scored(m) for m in pair[1][:: 1 - 2 * (pair[0] % 2)]]),
            enumerate(batches),
        ):
            pass
    assert set(results(own_database)) == {f"k{n}" for n in range(10)}
    assert waiting(own_database) == dead(own_database) == {}


def test_a_failure_is_tried_again_ever_later_and_then_dies(own_database):
    queue = PostgresQueue(own_database, max_attempts=3, backoff_seconds=5.0)
    put(queue, "a")
    for attempt, seconds in ((1, 5.0), (2, 10.0)):
        queue.settle([failed(m, Fault.ATTEMPT) for m in queue.take("m", 1)])
        attempts, error, wait = waiting(own_database)["a"]
        assert (attempts, error) == (attempt, "Odd. Very.")
        assert seconds - 2 < wait <= seconds
        make_due(own_database)
    queue.settle([failed(m, Fault.ATTEMPT) for m in queue.take("m", 1)])
    assert (waiting(own_database), dead(own_database)) == ({}, {"a": (3, "Odd. Very.")})


def test_what_never_can_be_scored_dies_at_once_and_is_told(queue, own_database):
    put(queue, "a", "b")
    bad, good = queue.take("m", 2)
    queue.settle([failed(bad, Fault.MESSAGE), scored(good)])
    assert dead(own_database) == {"a": (1, "Odd. Very.")}
    [raised] = alerts(own_database, open_only=True)
    assert (raised.alert.kind, raised.alert.subject) == ("dead_letters", "m")


def test_a_fault_of_the_service_is_not_counted(own_database):
    queue = PostgresQueue(own_database, max_attempts=2, backoff_seconds=1.0)
    put(queue, "a")
    for _ in range(4):
        queue.settle([failed(m, Fault.SERVICE, 30.0) for m in queue.take("m", 1)])
        attempts, _, wait = waiting(own_database)["a"]
        assert attempts == 0
        assert wait > 25
        make_due(own_database)


def test_only_who_took_it_last_says_that_it_failed(own_database):
    queue = PostgresQueue(own_database, lease_seconds=0.0)
    put(queue, "a")
    [late], [now] = queue.take("m", 1), queue.take("m", 1)
    queue.settle([failed(late, Fault.MESSAGE)])
    queue.settle([failed(late, Fault.ATTEMPT)])
    assert waiting(own_database)["a"][1] == UNSETTLED
    queue.settle([failed(now, Fault.ATTEMPT)])
    assert waiting(own_database)["a"][1] == "Odd. Very."


def test_settling_again_changes_nothing(queue, own_database):
    put(queue, "a", "b", "c")
    outcomes = [
        make(message)
        for make, message in zip(
            (scored, lambda m: failed(m, Fault.MESSAGE), lambda m: failed(m, Fault.ATTEMPT)),
            queue.take("m", 3),
            strict=True,
        )
    ]
    queue.settle(outcomes)
    before = results(own_database), dead(own_database), waiting(own_database)["c"][:2]
    queue.settle(outcomes)
    assert before == (results(own_database), dead(own_database), waiting(own_database)["c"][:2])


def test_dead_letters_that_are_put_back_are_as_new_and_end_the_alert(queue, own_database):
    put(queue, "a", "b")
    put(queue, "a", model="other")
    for model in ("m", "other"):
        queue.settle([failed(m, Fault.MESSAGE) for m in queue.take(model, 2)])
    assert state_of(own_database, "m").dead == 2
    assert retry(own_database, "m", ["a", "zzz"], by="ann") == 1
    assert len(alerts(own_database, open_only=True)) == 2
    assert retry(own_database, "m", by="ann") == 1
    [still] = alerts(own_database, open_only=True)
    assert still.alert.subject == "other"
    assert [m.attempts for m in queue.take("m", 5)] == [1, 1]


def test_the_state_counts_what_there_is(queue, own_database):
    put(queue, *"abcde")
    one, two, _ = queue.take("m", 3)
    queue.settle([scored(one), failed(two, Fault.MESSAGE)])
    state = state_of(own_database, "m")
    assert (state.waiting, state.later, state.scored, state.dead) == (2, 1, 1, 1)
    assert state.oldest is not None
    assert state_of(own_database, "other").oldest is None


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("", {}), ("k" * 201, {}), ("a\0", {}), ("k", {"a": math.nan}), ("k", {"a": math.inf}),
        ("k", {"a": "\0"}), ("k", {"a": "\ud800"}), ("k", {"a": {1}}),
    ],
    ids=repr,
)  # fmt: skip
def test_what_cannot_be_stored_is_refused(queue, own_database, key, body):
    with pytest.raises(RequestRefused):
        queue.put("m", key, body)
    assert waiting(own_database) == {}


@pytest.mark.parametrize(("key", "body"), [("", "{}"), ("k" * 201, "{}"), ("k", "[1]")])
def test_the_table_itself_refuses_it_too(own_database, key, body):
    with pytest.raises(IntegrityError), own_database.begin() as connection:
        connection.execute(
            text(f"INSERT INTO inference_request (model, key, body) VALUES ('m', :key, '{body}')"),
            {"key": key},
        )


TEXT = st.text(st.characters())
# jsonb writes 1e16 as an integer; that is the same number.
NUMBERS = st.integers(-(2**63), 2**63) | st.floats(-1e15, 1e15) | st.just(math.nan)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(value=st.dictionaries(TEXT, JSON, max_size=3))
@settings(max_examples=150, deadline=None)
def test_what_is_said_to_be_storable_is_and_comes_back(database, value):
    try:
        made = storable(value)
    except ValueError:
        written = json.dumps(value)
        assert any(part in written for part in ("NaN", "\\u0000", "\\ud"))
        return
    with database.begin() as connection:
        back = connection.execute(text("SELECT CAST(:made AS jsonb)"), {"made": made}).scalar_one()
    assert back == json.loads(made)


def test_without_a_database_it_says_so(tmp_path):
    nowhere = Database(parse_server_url(f"postgresql:///postgres?host={tmp_path}"), embedded=False)
    queue = PostgresQueue(nowhere)
    for ask in (
        lambda: queue.put("m", "a", {}), lambda: queue.take("m", 1), lambda: queue.settle([])
    ):  # fmt: skip
        with pytest.raises(DatabaseUnavailable):
            ask()
