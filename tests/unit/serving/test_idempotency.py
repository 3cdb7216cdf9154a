"""Keys and answers on a real Postgres; "processes" are objects that share nothing but it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import text

from aios_platform.database import Database, parse_server_url
from aios_platform.errors import DatabaseUnavailable, RequestRefused, ServingError
from aios_platform.serving.idempotency import Idempotency, Stored

pytestmark = [pytest.mark.postgres]

WHO = ("ann", "flight_delay", "key-1")
ANSWER = Stored(200, "application/json", b'{"predictions":[0.25]}\n\x00\xff')
OTHER = Stored(200, "application/json", b"{}")


def begin(idempotency, body=b"{}", who=WHO):
    return asyncio.run(idempotency.begin(*who, body))


def finish(idempotency, stored=ANSWER, who=WHO, record=None):
    return asyncio.run(idempotency.finish(*who, stored, record))


def release(idempotency, who=WHO):
    asyncio.run(idempotency.release(*who))


def refused(idempotency, body=b"{}", who=WHO) -> str:
    with pytest.raises(RequestRefused) as caught:
        begin(idempotency, body, who)
    return caught.value.code


@pytest.fixture
def idempotency(own_database):
    return Idempotency(own_database)


@pytest.fixture
def elsewhere(own_database):
    """The same keys in another process."""
    return Idempotency(own_database)


@pytest.mark.parametrize("stored", [ANSWER, Stored(422, "application/problem+json", b"")])
def test_the_same_key_and_body_get_the_same_bytes_everywhere(idempotency, elsewhere, stored):
    assert begin(idempotency) is None
    assert finish(idempotency, stored) == stored
    assert begin(idempotency) == begin(elsewhere) == stored


def test_another_body_is_refused_before_and_after_the_answer(idempotency, elsewhere):
    begin(idempotency)
    assert refused(idempotency, b"{ }") == refused(elsewhere, b"{ }") == "idempotency_key_reused"
    finish(idempotency)
    assert refused(idempotency, b"{ }") == refused(elsewhere, b"{ }") == "idempotency_key_reused"


def test_a_key_is_its_callers_and_its_models(idempotency):
    for who in (WHO, ("eve", *WHO[1:]), ("ann", "churn", "key-1")):
        assert begin(idempotency, who[0].encode(), who) is None
        finish(idempotency, who=who)


def test_while_it_is_answered_nobody_else_may(idempotency, elsewhere):
    begin(idempotency)
    assert refused(idempotency) == refused(elsewhere) == "idempotency_in_progress"


def test_a_released_key_is_as_new_also_with_another_body(idempotency, elsewhere):
    begin(idempotency)
    release(idempotency)
    assert begin(elsewhere, b"other") is None
    release(idempotency)
    assert refused(idempotency, b"other") == "idempotency_in_progress", "not ours to release"


def test_the_key_of_a_killed_process_is_taken_over_after_its_lease(own_database, elsewhere):
    killed = Idempotency(own_database, lease_seconds=-1.0)
    begin(killed)
    assert refused(elsewhere, b"other") == "idempotency_key_reused"
    assert begin(elsewhere) is None
    finish(elsewhere)
    assert begin(elsewhere) == ANSWER


def test_a_holder_that_was_only_slow_answers_what_was_stored(own_database, elsewhere):
    slow, records = Idempotency(own_database, lease_seconds=-1.0), []
    begin(slow)
    begin(elsewhere)
    assert finish(elsewhere, ANSWER, record=records.append) == ANSWER
    assert finish(slow, OTHER, record=records.append) == ANSWER
    assert len(records) == 1


def test_a_slow_holder_that_is_first_after_all_is_the_one(own_database, elsewhere):
    slow = Idempotency(own_database, lease_seconds=-1.0)
    begin(slow)
    begin(elsewhere)
    assert finish(slow, OTHER) == OTHER
    assert finish(elsewhere, ANSWER) == OTHER


def test_a_slow_holder_whose_key_went_to_another_body_answers_nothing(own_database, elsewhere):
    slow = Idempotency(own_database, lease_seconds=-1.0)
    begin(slow)
    begin(elsewhere)
    release(elsewhere)
    begin(elsewhere, b"other")
    with pytest.raises(RequestRefused) as caught:
        finish(slow)
    assert caught.value.code == "idempotency_key_reused"
    assert finish(elsewhere, OTHER) == OTHER


def test_the_record_is_written_with_the_answer_or_not_at_all(idempotency, own_database):
    def record(connection):
        connection.execute(text("INSERT INTO inference_result VALUES ('m', 'k', '1', '{}', 'd')"))

    def broken(connection):
        record(connection)
        raise ServingError("no")

    def records():
        with own_database.begin() as connection:
            return connection.execute(text("SELECT count(*) FROM inference_result")).scalar_one()

    begin(idempotency)
    with pytest.raises(ServingError):
        finish(idempotency, record=broken)
    assert records() == 0
    assert refused(idempotency) == "idempotency_in_progress"
    finish(idempotency, record=record)
    assert (records(), begin(idempotency)) == (1, ANSWER)


def test_an_old_answer_is_no_answer_and_is_deleted(own_database):
    idempotency = Idempotency(own_database, keep=timedelta(seconds=0))
    for body in (b"1", b"2"):
        assert begin(idempotency, body) is None
        finish(idempotency)
    assert Idempotency(own_database).forget_old() == 0
    assert (idempotency.forget_old(), idempotency.forget_old()) == (1, 0)


@pytest.mark.parametrize("key", ["", "x" * 201, "a\0b", "a\nb"], ids=repr)
def test_what_is_no_key_is_refused(idempotency, key):
    assert refused(idempotency, who=("ann", "m", key)) == "invalid_request"


def test_an_answer_needs_a_key(idempotency):
    with pytest.raises(ServingError, match="nobody holds"):
        finish(idempotency)


def test_without_a_database_it_cannot_be_told(tmp_path):
    nowhere = Database(parse_server_url(f"postgresql:///postgres?host={tmp_path}"), embedded=False)
    with pytest.raises(DatabaseUnavailable):
        begin(Idempotency(nowhere))


def test_of_many_at_once_one_answers_and_all_get_its_answer(own_database):
    """Each of 8 processes sends the same 5 requests until they are answered."""
    answered, refusals = [], set()

    def client(number: int) -> set[tuple[str, bytes]]:
        async def send(key: str) -> tuple[str, bytes]:
            while True:
                try:
                    stored = await process.begin("ann", "m", key, key.encode())
                except RequestRefused as error:
                    refusals.add(error.code)
                    continue
                if stored is not None:
                    return key, stored.answer
                answered.append(key)
                mine = Stored(200, "text/plain", f"{number} {key}".encode())
                return key, (await process.finish("ann", "m", key, mine)).answer

        async def all_at_once() -> list[tuple[str, bytes]]:
            return await asyncio.gather(*(send(f"key {n}") for n in range(5)))

        process = Idempotency(own_database)
        return set(asyncio.run(all_at_once()))

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(client, range(8)))
    assert refusals <= {"idempotency_in_progress"}
    assert sorted(answered) == [f"key {n}" for n in range(5)]
    assert all(answers == got[0] for answers in got)


class Callers(RuleBasedStateMachine):
    """Whatever two processes do to one key: one answer and one record per body that got through."""

    database: Database
    body = st.sampled_from([b"a", b"b"])
    place = st.sampled_from([0, 1])

    @initialize()
    def fresh(self):
        with self.database.begin() as connection:
            connection.execute(text("TRUNCATE idempotent_answer"))
        self.processes = [Idempotency(self.database), Idempotency(self.database)]
        self.holder: tuple[int, bytes] | None = None
        self.stored: tuple[bytes, Stored] | None = None
        self.records = 0

    @rule(place=place, body=body)
    def call(self, place, body):
        owner = self.holder or self.stored
        owned = None if owner is None else self.holder[1] if self.holder else self.stored[0]
        if owner is None:
            assert begin(self.processes[place], body) is None
            self.holder = (place, body)
        elif owned != body:
            assert refused(self.processes[place], body) == "idempotency_key_reused"
        elif self.holder:
            assert refused(self.processes[place], body) == "idempotency_in_progress"
        else:
            assert begin(self.processes[place], body) == self.stored[1]

    @rule(status=st.sampled_from([200, 422]), answer=st.binary(max_size=20))
    def answer(self, status, answer):
        if self.holder:
            place, body = self.holder
            stored, records = Stored(status, "x/y", answer), []
            assert finish(self.processes[place], stored, record=records.append) == stored
            self.records += len(records)
            self.holder, self.stored = None, (body, stored)
        assert self.records == (self.stored is not None)

    @rule(place=place)
    def give_up(self, place):
        release(self.processes[place])
        if self.holder and self.holder[0] == place:
            self.holder = None

    @rule(place=place)
    def die(self, place):
        """Kill -9, and its lease runs out."""
        self.processes[place] = Idempotency(self.database)
        if self.holder and self.holder[0] == place:
            with self.database.begin() as connection:
                connection.execute(
                    text("UPDATE idempotent_answer SET held_until = now() - interval '1 s'")
                )
            body = self.holder[1]
            assert begin(self.processes[1 - place], body) is None
            self.holder = (1 - place, body)


def test_whatever_two_processes_do_a_body_has_one_answer(own_database):
    Callers.database = own_database
    run_state_machine_as_test(
        Callers, settings=settings(max_examples=40, stateful_step_count=20, deadline=None)
    )
