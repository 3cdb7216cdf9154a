import threading
import uuid
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from aios_platform.contracts.decisions import Decision, Verdict
from aios_platform.database import Database, parse_server_url
from aios_platform.errors import ChampionConflict, DatabaseUnavailable, PromotionError
from aios_platform.ledger.champions import champion_of, promote
from aios_platform.ledger.entries import append, entries

pytestmark = [pytest.mark.postgres]


@pytest.fixture
def model() -> str:
    return f"m_{uuid.uuid4().hex[:8]}"


def verdict(model, candidate, champion=None, decision=Decision.PROMOTE) -> Verdict:
    return Verdict(
        model=model,
        decision=decision,
        candidate_version=candidate,
        champion_version=champion,
        exam_digest="e" * 64,
        exam_windows=("2013-12",),
        rules=(),
        candidate_metrics={"roc_auc": 0.77},
        champion_metrics={},
        decided_at=datetime.now(UTC),
    )


def swap(database, judged):
    return promote(
        database,
        judged,
        model_digest="d" * 64,
        run_id="r",
        training_set_digest="7" * 64,
        trained_through="2013-09",
    )


def test_no_champion_is_an_answer_and_an_unreadable_ledger_is_not(database, model):
    assert champion_of(database, model) is None
    gone = Database(parse_server_url("postgresql://nobody:pw@127.0.0.1:1/x"), embedded=False)
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:1 does not answer") as caught:
        champion_of(gone, model)
    assert "pw" not in str(caught.value)


def test_promotions_follow_one_another(database, model):
    first = swap(database, verdict(model, "1"))
    second = swap(database, verdict(model, "2", champion="1"))
    assert (first.revision, second.revision) == (1, 2)
    assert champion_of(database, model) == second
    rows = entries(database, subject=model, kind="promotion")
    assert [row.payload["previous"] for row in rows] == ["1", None]


def test_the_same_promotion_again_is_one_champion_and_one_row(database, model):
    judged = verdict(model, "1")
    assert swap(database, judged) == swap(database, judged)
    assert len(entries(database, subject=model, kind="promotion")) == 1


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE])
def test_only_a_verdict_to_promote_promotes(database, model, decision):
    with pytest.raises(PromotionError, match="cannot be promoted"):
        swap(database, verdict(model, "1", decision=decision))
    assert champion_of(database, model) is None


def test_a_verdict_against_a_champion_that_is_gone_conflicts(database, model):
    swap(database, verdict(model, "1"))
    with pytest.raises(ChampionConflict, match="no longer version None"):
        swap(database, verdict(model, "2"))
    assert champion_of(database, model).version == "1"


def test_of_two_promoters_at_once_exactly_one_wins(database, model):
    swap(database, verdict(model, "1"))
    barrier, outcomes = threading.Barrier(2), []

    def attempt(version: str) -> None:
        barrier.wait()
        try:
            outcomes.append(swap(database, verdict(model, version, champion="1")).version)
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


@pytest.mark.parametrize(
    "statement",
    ["UPDATE ledger SET principal = 'x'", "DELETE FROM ledger", "TRUNCATE ledger"],
)
def test_the_ledger_refuses_every_change(database, model, statement):
    swap(database, verdict(model, "1"))
    with pytest.raises(DBAPIError, match="append-only"), database.begin() as connection:
        connection.execute(text(statement))
    assert entries(database, subject=model)


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
