"""Who may call: known in memory, true to the database, and closed when nothing is known."""

import asyncio
import logging
import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from aios_platform.access import callers, principals
from aios_platform.access.principals import acting_with, add
from aios_platform.database import Database, parse_server_url
from aios_platform.errors import DatabaseUnavailable, Overloaded, RequestRefused
from aios_platform.ledger.identity import new_key
from aios_platform.serving.access import (
    ANONYMOUS,
    GUESSES_AT_ONCE,
    MAX_AGE_SECONDS,
    Access,
    RateLimit,
    public_bind_allowed,
)
from aios_platform.serving.problems import problem_of

needs_postgres = pytest.mark.postgres


class Clock:
    """A monotonic clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(own_database) -> str:
    return add(own_database, "root", ["admin", "operator"])


@pytest.fixture
def shop(own_database, root) -> str:
    """A caller's key."""
    with acting_with(root):
        return add(own_database, "shop", [])


def allow(database, root: str, model: str, rate: float | None = None) -> None:
    with acting_with(root):
        callers.grant(database, "shop", model, rate)


def opened(database, clock, *, required: bool = True) -> Access:
    access = Access(database, required=required, clock=clock)
    asyncio.run(access.refresh())
    return access


def bearer(key: str) -> bytes:
    return f"Bearer {key}".encode()


def refused(access: Access, authorization: bytes | None, model: str = "m") -> str:
    with pytest.raises(RequestRefused) as caught:
        access.admit(authorization, model)
    assert caught.value.remedy
    return caught.value.code


@needs_postgres
def test_only_a_grant_lets_a_key_call_and_only_its_model(own_database, root, shop, clock):
    allow(own_database, root, "m", 5)
    access = opened(own_database, clock)
    caller = access.admit(bearer(shop), "m")
    assert (caller.name, dict(caller.grants)) == ("shop", {"m": 5.0})
    assert access.admit(b"bearer " + shop.encode(), "m") == caller
    assert refused(access, bearer(shop), "n") == "forbidden"
    assert refused(access, bearer(root)) == "forbidden", "no role calls a model"
    assert refused(access, None) == "unauthenticated"
    allow(own_database, root, "*")
    asyncio.run(access.refresh())
    assert access.admit(bearer(shop), "n").name == "shop"


@needs_postgres
def test_a_wrong_key_is_refused_in_every_form(own_database, root, shop, clock):
    allow(own_database, root, "*")
    access = opened(own_database, clock)
    spoilt = shop[:-1] + ("A" if shop[-1] != "A" else "B")
    for header in (
        bearer(spoilt), bearer(new_key()[0]), bearer(shop + " "), bearer(" " + shop), bearer(""),
        shop.encode(), b"Basic " + shop.encode(), b"", b"\xff\xfe", b"Bearer \xff" + shop.encode(),
    ):  # fmt: skip
        assert refused(access, header) == "unauthenticated", header


@needs_postgres
def test_what_an_admin_changes_counts_from_the_next_look(own_database, root, shop, clock):
    allow(own_database, root, "m")
    access = opened(own_database, clock)
    access.admit(bearer(shop), "m")
    with acting_with(root):
        callers.revoke(own_database, "shop", "m")
    asyncio.run(access.refresh())
    assert refused(access, bearer(shop)) == "forbidden"
    allow(own_database, root, "m")
    with acting_with(shop):
        newer = principals.rotate_key(own_database, "shop")
    asyncio.run(access.refresh())
    assert refused(access, bearer(shop)) == "unauthenticated"
    assert access.admit(bearer(newer), "m").name == "shop"


@needs_postgres
def test_a_key_expires_by_itself_between_two_looks(own_database, root, clock):
    with acting_with(root):
        key = add(own_database, "shop", [], expires_in=timedelta(minutes=1))
    allow(own_database, root, "m")
    access = opened(own_database, clock)
    access.admit(bearer(key), "m")
    clock.now += 61
    assert refused(access, bearer(key)) == "unauthenticated"


@needs_postgres
def test_an_open_installation_needs_no_key_until_the_first_is_issued(own_database, clock):
    access = opened(own_database, clock, required=False)
    assert access.admit(None, "m") == ANONYMOUS
    assert refused(access, bearer(new_key()[0])) == "unauthenticated"
    assert refused(opened(own_database, clock), None) == "unauthenticated"
    assert not public_bind_allowed(own_database)
    key = add(own_database, "root", ["admin"])
    asyncio.run(access.refresh())
    assert refused(access, None) == "unauthenticated"
    assert public_bind_allowed(own_database)
    with own_database.begin() as connection:
        # As if it had run out: the guard lets no hand do that.
        connection.execute(text("ALTER TABLE api_key DISABLE TRIGGER recorded"))
        connection.execute(text("UPDATE api_key SET expires_at = clock_timestamp()"))
        connection.execute(text("ALTER TABLE api_key ENABLE ALWAYS TRIGGER recorded"))
    assert not public_bind_allowed(own_database)
    asyncio.run(access.refresh())
    assert refused(access, bearer(key)) == "unauthenticated"


@needs_postgres
def test_a_rate_is_kept_per_key_and_model_over_refreshes(own_database, root, shop, clock):
    allow(own_database, root, "m", 2)
    allow(own_database, root, "*", 1)
    access = opened(own_database, clock)
    for _ in range(2):
        access.admit(bearer(shop), "m")
    access.admit(bearer(shop), "other")
    asyncio.run(access.refresh())
    with pytest.raises(Overloaded) as caught:
        access.admit(bearer(shop), "m")
    assert caught.value.retry_after == pytest.approx(0.5)
    assert problem_of(caught.value).code == "rate_limited"
    # One grant of every model has one rate.
    with pytest.raises(Overloaded):
        access.admit(bearer(shop), "another")
    clock.now += 0.5
    access.admit(bearer(shop), "m")
    allow(own_database, root, "m", 100)
    asyncio.run(access.refresh())
    for _ in range(100):
        access.admit(bearer(shop), "m")


@needs_postgres
def test_guessing_is_slowed_down_and_does_not_slow_down_others(own_database, root, shop, clock):
    allow(own_database, root, "m")
    access = opened(own_database, clock)
    for _ in range(GUESSES_AT_ONCE):
        assert refused(access, bearer(new_key()[0])) == "unauthenticated"
    with pytest.raises(Overloaded, match="Wrong API keys") as caught:
        access.admit(bearer(new_key()[0]), "m")
    assert 0 < caught.value.retry_after <= 1
    assert problem_of(caught.value).code == "rate_limited"
    assert access.admit(bearer(shop), "m").name == "shop"


def test_before_anything_was_read_nobody_calls(clock):
    gone = Database(parse_server_url("postgresql://nobody@127.0.0.1:1/x"), embedded=False)
    for required in (True, False):
        access = Access(gone, required=required, clock=clock)
        assert access.age_seconds == math.inf
        with pytest.raises(DatabaseUnavailable):
            asyncio.run(access.refresh())
        assert refused(access, None) == "store_unreachable"
        assert refused(access, bearer(new_key()[0])) == "unauthenticated"


@needs_postgres
def test_without_the_database_the_last_answer_stands_and_not_for_ever(
    own_database, root, shop, clock, monkeypatch
):
    allow(own_database, root, "m")
    access = opened(own_database, clock)
    gone = parse_server_url("postgresql://nobody@127.0.0.1:1/x")
    own_database.close()
    with monkeypatch.context() as outage:
        outage.setattr(own_database, "_server", gone)
        clock.now += MAX_AGE_SECONDS
        with pytest.raises(DatabaseUnavailable):
            asyncio.run(access.refresh())
        assert access.age_seconds == MAX_AGE_SECONDS
        assert access.admit(bearer(shop), "m").name == "shop"
        clock.now += 1
        assert refused(access, bearer(shop)) == "store_unreachable"
        assert refused(access, None) == "store_unreachable"
        own_database.close()
    asyncio.run(access.refresh())
    assert access.age_seconds == 0
    assert access.admit(bearer(shop), "m").name == "shop"


@needs_postgres
def test_a_table_that_cannot_be_read_is_no_answer_either(own_database, root, shop, clock):
    allow(own_database, root, "m")
    access = opened(own_database, clock)
    with own_database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE call_grant RENAME TO elsewhere")
    with pytest.raises(DatabaseUnavailable, match="Keys and grants cannot be read"):
        asyncio.run(access.refresh())
    assert access.admit(bearer(shop), "m").name == "shop"


@needs_postgres
def test_no_secret_is_in_a_message_or_a_log_line(own_database, root, shop, clock, caplog):
    caplog.set_level(logging.DEBUG)
    allow(own_database, root, "m", 1)
    access = opened(own_database, clock)
    access.admit(bearer(shop), "m")
    told = []
    for key, model in ((shop, "m"), (shop, "n"), (root, "m"), (new_key()[0], "m")):
        with pytest.raises((Overloaded, RequestRefused)) as caught:
            access.admit(bearer(key), model)
        told.append(f"{caught.value!r} {caught.getrepr()} {access!r}")
        assert key.split("_", 2)[2] not in "".join(told) + caplog.text
    for secret in (shop, root):
        assert secret not in caplog.text


@given(
    rate=st.floats(0.01, 10_000),
    steps=st.lists(st.floats(0, 3), min_size=1, max_size=200),
)
def test_a_rate_limit_lets_a_burst_of_one_second_and_then_its_rate_through(rate, steps):
    limit, now, passed, begin = RateLimit(rate), 50.0, 0, None
    for step in steps:
        now += step
        wait = limit.take(now)
        if not wait:
            begin = now if begin is None else begin
            passed += 1
            assert passed <= max(1.0, rate) + rate * (now - begin) + 1e-6 * passed
        else:
            assert limit.take(now + wait * 0.999) > 0 or wait < 1e-6
            assert limit.take(now + wait) == 0
            now += wait
            passed += 1
