"""Figures of the gateways, read back from real tables."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from aios_platform.contracts.rollouts import Pairs, Traffic
from aios_platform.promotion.traffic import pairs_of, traffic_of

pytestmark = pytest.mark.postgres
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def model() -> str:
    return f"m_{uuid.uuid4().hex[:8]}"


def minute(
    database, model, version, role, at, requests=10, errors=0, seconds=0.1, p=0.5, failures=0
):
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO serving_minute (model, version, role, minute, requests, errors,"
                " failures, rows, seconds, seconds_squared, prediction, prediction_squared)"
                " VALUES (:model, :version, :role, :at, :n, :errors, :failures, :n, :n * :s,"
                " :n * :s * :s, :n * :p, :n * :p * :p)"
            ),
            {"model": model, "version": version, "role": role, "at": at, "n": requests,
             "errors": errors, "failures": failures, "s": seconds, "p": p},
        )  # fmt: skip


def test_traffic_is_that_of_one_version_in_one_role_since_the_minute(database, model):
    for place in range(4):
        at = NOON + timedelta(minutes=place)
        minute(database, model, "2", "canary", at, errors=1, seconds=0.2, p=0.25)
        minute(database, model, "1", "live", at, requests=100)
    since = NOON + timedelta(minutes=1, seconds=30)
    found = traffic_of(database, model, "2", "canary", since)
    assert (found.requests, found.errors, found.prediction.count) == (30, 3, 30)
    assert found.latency.mean == pytest.approx(0.2)
    assert found.prediction.mean == pytest.approx(0.25)
    assert found.prediction.variance == pytest.approx(0, abs=1e-9)
    until = NOON + timedelta(minutes=3)
    assert traffic_of(database, model, "1", "live", since, until).requests == 200
    assert traffic_of(database, model, "1", "canary", NOON) == Traffic()


def test_a_request_that_another_hop_had_to_answer_is_a_failure_of_the_version(database, model):
    minute(database, model, "2", "canary", NOON, errors=1, failures=4)
    assert traffic_of(database, model, "2", "canary", NOON).errors == 4


def test_pairs_are_those_of_one_rollout_with_their_failures(database, model):
    assert pairs_of(database, model, 1, "2", 1.5) == Pairs()
    rows = [(0.2, 0.3, 0.004, 0.010), (0.4, None, 0.004, 0.001), (0.6, 0.6, 0.008, 0.010)]
    with database.begin() as connection:
        for number in (1, 2):
            for place, (live, candidate, live_seconds, seconds) in enumerate(rows):
                connection.execute(
                    text(
                        "INSERT INTO shadow_pair (model, rollout, request_id, place, live_version,"
                        " version, live, candidate, live_seconds, seconds, served_at) VALUES"
                        " (:model, :number, 'r', :place, '1', '2', :live, :candidate, :ls, :s,"
                        " :at)"
                    ),
                    {"model": model, "number": number, "place": place, "live": live,
                     "candidate": candidate, "ls": live_seconds, "s": seconds, "at": NOON},
                )  # fmt: skip
    found = pairs_of(database, model, 1, "2", 1.5)
    assert (found.rows, found.failures) == (3, 1)
    assert found.difference.count == found.excess.count == 2
    assert found.difference.mean == pytest.approx(0.05, abs=1e-6)
    assert found.excess.mean == pytest.approx((0.004 - 0.002) / 2, abs=1e-6)
