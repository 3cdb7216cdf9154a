import threading
import uuid

import pytest

from aios_platform.contracts.decisions import Decision
from aios_platform.database import Database, parse_server_url
from aios_platform.errors import ChampionConflict, DatabaseUnavailable, PromotionError
from aios_platform.ledger.champions import champion_of, history, roll_back
from aios_platform.ledger.entries import append, entries

pytestmark = [pytest.mark.postgres]


@pytest.fixture
def model() -> str:
    return f"m_{uuid.uuid4().hex[:8]}"


def test_no_champion_is_an_answer_and_an_unreadable_ledger_is_not(database, model):
    assert champion_of(database, model) is None
    gone = Database(parse_server_url("postgresql://nobody:pw@127.0.0.1:1/x"), embedded=False)
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1 does not answer") as caught:
        champion_of(gone, model)
    assert "pw" not in str(caught.value)


def test_promotions_follow_one_another(database, model, judge, swap):
    first = swap(database, judge(model, "1"))
    second = swap(database, judge(model, "2", champion="1"))
    assert (first.revision, second.revision) == (1, 2)
    assert champion_of(database, model) == second
    rows = entries(database, subject=model, kind="promotion")
    assert [row.payload["previous"] for row in rows] == ["1", None]


def test_the_same_promotion_again_is_one_champion_and_one_row(database, model, judge, swap):
    judged = judge(model, "1")
    assert swap(database, judged) == swap(database, judged)
    assert len(entries(database, subject=model, kind="promotion")) == 1


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE])
def test_only_a_verdict_to_promote_promotes(database, model, decision, judge, swap):
    with pytest.raises(PromotionError, match="cannot be promoted"):
        swap(database, judge(model, "1", decision=decision))
    assert champion_of(database, model) is None


def test_a_verdict_against_a_champion_that_is_gone_conflicts(database, model, judge, swap):
    swap(database, judge(model, "1"))
    with pytest.raises(ChampionConflict, match="no longer version None"):
        swap(database, judge(model, "2"))
    assert champion_of(database, model).version == "1"


def test_of_two_promoters_at_once_exactly_one_wins(database, model, judge, swap):
    swap(database, judge(model, "1"))
    barrier, outcomes = threading.Barrier(2), []

    def attempt(version: str) -> None:
        barrier.wait()
        try:
            outcomes.append(swap(database, judge(model, version, champion="1")).version)
        except ChampionConflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=attempt, args=(v,)) for v in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[1] == "conflict"
    assert champion_of(database, model).version == sorted(outcomes)[0]
    assert len(entries(database, subject=model, kind="promotion")) == 2


def test_champions_are_put_back_and_every_change_is_remembered(database, model, judge, swap):
    first = swap(database, judge(model, "1"))
    swap(database, judge(model, "2", champion="1"))
    back = roll_back(database, model, to=first, expected="2", reason="late at night")
    assert (back.version, back.revision, back.model_digest) == ("1", 3, first.model_digest)
    assert champion_of(database, model) == back
    again = roll_back(database, model, to=first, expected="2", reason="late at night")
    assert again == back, "the same command again"
    assert [(c.version, c.revision) for c in history(database, model)] == [
        ("1", 3), ("2", 2), ("1", 1),
    ]  # fmt: skip
    [row] = entries(database, subject=model, kind="rollback")
    assert (row.payload["previous"], row.payload["reason"]) == ("2", "late at night")
    third = swap(database, judge(model, "3", champion="1"))
    assert third.revision == 4


def test_a_verdict_that_was_rolled_back_is_spent(database, model, judge, swap):
    first = swap(database, judge(model, "1"))
    bad = judge(model, "2", champion="1")
    swap(database, bad)
    roll_back(database, model, to=first, expected="2", reason="worse")
    with pytest.raises(PromotionError, match="was carried out in row"):
        swap(database, bad)
    assert champion_of(database, model).version == "1"


def test_what_is_no_rollback_is_refused(database, model, judge, swap):
    first = swap(database, judge(model, "1"))
    second = swap(database, judge(model, "2", champion="1"))
    never = first.model_copy(update={"version": "7"})
    other = first.model_copy(update={"model_digest": "0" * 64})
    for to, expected, reason, kind in (
        (first, "2", " ", PromotionError),
        (second, "2", "x", PromotionError),
        (never, "2", "x", PromotionError),
        (other, "2", "x", PromotionError),
        (first, "3", "x", ChampionConflict),
    ):
        with pytest.raises(kind):
            roll_back(database, model, to=to, expected=expected, reason=reason)
    assert champion_of(database, model) == second


def test_a_rollback_and_a_promotion_at_once_leave_one_of_the_two(database, model, judge, swap):
    first = swap(database, judge(model, "1"))
    swap(database, judge(model, "2", champion="1"))
    barrier, done = threading.Barrier(2), []

    def attempt(action) -> None:
        barrier.wait()
        try:
            done.append(action().version)
        except ChampionConflict:
            done.append("conflict")

    actions = (
        lambda: roll_back(database, model, to=first, expected="2", reason="x"),
        lambda: swap(database, judge(model, "3", champion="2")),
    )
    threads = [threading.Thread(target=attempt, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done)[1] == "conflict"
    assert champion_of(database, model).version == sorted(done)[0]
    assert len(history(database, model)) == 3


def test_a_verdict_on_other_bytes_promotes_nothing(database, model, judge, swap):
    with pytest.raises(PromotionError, match="is about the model 000000000000, not about dddd"):
        swap(database, judge(model, "1", candidate_digest="0" * 64))
    assert champion_of(database, model) is None
    assert swap(database, judge(model, "1", candidate_digest="d" * 64)).version == "1"


def test_an_append_with_the_same_key_is_one_row(database, model):
    def add():
        with database.begin() as connection:
            return append(connection, kind="k", subject=model, payload={"a": 1}, key=f"{model}:1")

    assert add() == add()
    assert len(entries(database, subject=model)) == 1


def test_concurrent_appends_lose_nothing(database, model):
    def write(worker: int) -> None:
        for number in range(10):
            with database.begin() as connection:
                key = f"{model}:{worker}:{number}"
                append(connection, kind="k", subject=model, payload={}, key=key)

    threads = [threading.Thread(target=write, args=(w,)) for w in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entries(database, subject=model, limit=1000)) == 80
