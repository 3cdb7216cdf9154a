"""Claims: one row per cause and attempt, one run per row."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from aios_platform.ledger import claims
from aios_platform.ledger.claims import Claim, Outcome

pytestmark = pytest.mark.postgres


def wanted(database, attempt: int = 1, **changes: object) -> Claim:
    values = {
        "key": "probe:score:1", "attempt": attempt, "model": "probe", "job": "score",
        "cause": "new windows", "asker": "new_window", "term": claims.term_now(database),
    }  # fmt: skip
    return Claim.model_validate(values | changes)


def again(database, lost: Claim, **changes: object) -> bool:
    options = {"asker": lost.asker, "term": claims.term_now(database), "run_id": None}
    return claims.claim_again(database, lost, **options | changes)


def expire(database) -> None:
    with database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE cause_claim SET claimed_at = claimed_at - interval '1 hour'"
        )


def test_of_many_who_ask_at_once_one_gets_the_claim(own_database):
    claim = wanted(own_database)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: claims.claim(own_database, claim), range(16)))
    assert sum(got) == 1
    assert claims.claims_of(own_database, claim.key) == [claim]
    assert claims.claim(own_database, wanted(own_database, attempt=2))


def test_nobody_claims_for_a_daemon_that_is_no_more(own_database):
    claim = wanted(own_database)
    claims.new_term(own_database)
    assert not claims.claim(own_database, claim)
    assert claims.claim(own_database, wanted(own_database))


def test_a_claim_of_an_earlier_term_is_lost_and_of_this_one_only_after_its_lease(own_database):
    claim = wanted(own_database)
    assert claims.claim(own_database, claim)
    assert not again(own_database, claim)
    claims.new_term(own_database)
    # Dagster resumes what another sensor had begun to launch.
    assert not again(own_database, claim, asker="window_closed")
    assert again(own_database, claim)
    assert not again(own_database, claim)
    expire(own_database)
    assert again(own_database, claim, asker="window_closed")


def test_a_lease_from_the_future_is_over(own_database):
    claim = wanted(own_database)
    assert claims.claim(own_database, claim)
    with own_database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE cause_claim SET claimed_at = claimed_at + interval '1 hour'"
        )
    assert again(own_database, claim)


def test_a_command_takes_over_unless_a_daemon_is_about_to_launch(own_database):
    claim = wanted(own_database)
    assert claims.claim(own_database, claim)
    with own_database.exclusive(claims.DAEMON_LOCK) as lock:
        assert lock.held
        assert not again(own_database, claim, asker="command", run_id="mine")
    assert again(own_database, claim, asker="command", run_id="mine")
    assert claims.bind(own_database, wanted(own_database, run_id="the daemon's")) == "mine"


def test_a_claim_is_bound_to_one_run(own_database):
    assert claims.claim(own_database, wanted(own_database))
    first, second = (wanted(own_database, run_id=name) for name in ("first", "second"))
    assert claims.bind(own_database, first) is None
    assert claims.bind(own_database, first) is None
    assert claims.bind(own_database, second) == "first"
    expire(own_database)
    assert not again(own_database, first)
    # A person repeats the first, which has ended.
    assert claims.bind(own_database, second, after=["first"]) is None
    assert claims.bind(own_database, first) == "second"


def test_what_became_of_an_attempt_is_settled_once_and_not_behind_a_runs_back(own_database):
    claim = wanted(own_database)
    assert claims.claim(own_database, claim)
    bound = wanted(own_database, run_id="run")
    assert claims.bind(own_database, bound) is None
    assert not claims.settle(own_database, claim, Outcome.FAILED)
    assert claims.settle(own_database, bound, Outcome.SUCCEEDED)
    assert not claims.settle(own_database, bound, Outcome.FAILED)
    [found] = claims.claims_of(own_database, claim.key)
    assert found.outcome is Outcome.SUCCEEDED


def test_a_settled_attempt_is_begun_by_no_run_that_comes_late(own_database):
    claim = wanted(own_database)
    assert claims.claim(own_database, claim)
    assert claims.settle(own_database, claim, Outcome.FAILED)
    assert claims.bind(own_database, wanted(own_database, run_id="late")) == ""


def test_a_run_of_which_no_claim_is_known_makes_one(own_database):
    assert claims.bind(own_database, wanted(own_database, run_id="run")) is None
    [found] = claims.claims_of(own_database, "probe:score:1")
    assert found.run_id == "run"
