"""The review queue, and `aios reviews` as a person or a pipeline runs it."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from aios_platform.access.principals import acting_with, add
from aios_platform.cli import main
from aios_platform.components.model_lifecycle.explanation import explain
from aios_platform.contracts.record import digest_of
from aios_platform.errors import AccessDenied, ReviewError
from aios_platform.ledger.entries import entries
from aios_platform.serving.recording import Recorder
from aios_platform.serving.reviews import decide, review_of, reviews
from tests.unit.serving.traffic import item

pytestmark = pytest.mark.postgres
MODEL = "flight_delay"
WHY = "the airline called"


@pytest.fixture
def queued(own_database):
    """Three rows of the queue, one of them of another model."""
    recorder = Recorder(own_database)
    for request, model in (("r1", MODEL), ("r2", "other"), ("r3", MODEL)):
        recorder.review(item(request, model=model, inputs={"carrier": "Zaphod", "distance": 500.5}))
    recorder.close(5)
    return [review.number for review in reviews(own_database, MODEL)]


@pytest.fixture
def aios(own_database, monkeypatch, capsys):
    """Runs a command on a queue of the test's own; status and output."""
    monkeypatch.setattr("aios_platform.database.database", lambda: own_database)
    # It takes log lines and warnings away from the test.
    monkeypatch.setattr("aios_platform.telemetry.configure", lambda _: None)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["aios", "reviews", MODEL, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    return run


def test_the_queue_of_a_model_is_its_own_and_the_oldest_comes_first(own_database, queued):
    found = reviews(own_database, MODEL)
    assert [review.request_id for review in found] == ["r1", "r3"]
    assert [review.number for review in reviews(own_database, MODEL, limit=1)] == queued[:1]
    with pytest.raises(ReviewError, match="has no row"):
        review_of(own_database, "other", queued[0])


def test_a_decision_is_one_row_of_the_ledger_without_what_the_caller_sent(own_database, queued):
    review, row = decide(own_database, MODEL, queued[0], positive=True, reason=f" {WHY} ")
    assert (review.decision, review.decided_by[:5]) == (True, "user:")
    assert decide(own_database, MODEL, queued[0], positive=True, reason="again") == (review, row)
    [entry] = entries(own_database, kind="review_decision")
    assert (entry.seq, entry.subject, entry.principal) == (row, MODEL, review.decided_by)
    assert entry.payload["reason"] == WHY
    assert entry.evidence == (digest_of(review.inputs),)
    assert "Zaphod" not in json.dumps(entry.payload)
    told = explain(entry)
    assert "abstained on t1 (abstained); it would have answered 0.5" in told
    assert f"decided that it is positive: {WHY}." in told
    assert [review.number for review in reviews(own_database, MODEL)] == queued[1:]
    assert len(reviews(own_database, MODEL, open_only=False)) == 2


def test_a_decision_stands(own_database, queued):
    decide(own_database, MODEL, queued[0], positive=False, reason=WHY)
    with pytest.raises(ReviewError, match="was decided otherwise by user:"):
        decide(own_database, MODEL, queued[0], positive=True, reason=WHY)
    assert review_of(own_database, MODEL, queued[0]).decision is False


def test_of_two_who_decide_at_once_one_is_refused(own_database, queued):
    def attempt(positive):
        try:
            return decide(own_database, MODEL, queued[0], positive=positive, reason=WHY)[1]
        except ReviewError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(attempt, (True, False)))
    assert sorted(type(end).__name__ for end in ends) == ["ReviewError", "int"]
    assert len(entries(own_database, kind="review_decision")) == 1


def test_who_may_not_decide_and_who_says_not_why_changes_nothing(own_database, queued):
    with pytest.raises(ReviewError, match="no reason"):
        decide(own_database, MODEL, queued[0], positive=True, reason=" ")
    root = add(own_database, "root", roles=["admin"])
    with acting_with(root):
        author = add(own_database, "ada", roles=["author"])
        operator = add(own_database, "bob", roles=["operator"])
    with acting_with(author), pytest.raises(AccessDenied, match="operator"):
        decide(own_database, MODEL, queued[0], positive=True, reason=WHY)
    assert review_of(own_database, MODEL, queued[0]).decision is None
    assert entries(own_database, kind="review_decision") == []
    with acting_with(operator):
        review, _ = decide(own_database, MODEL, queued[0], positive=True, reason=WHY)
    assert review.decided_by == "bob"


def test_the_command_lists_shows_and_decides(aios, queued):
    number = str(queued[0])
    code, said = aios()
    assert (code, len(said.splitlines())) == (0, 2)
    assert "abstained" in said
    assert [json.loads(line)["number"] for line in aios("list", "--json")[1].splitlines()] == queued
    code, said = aios("show", number)
    assert code == 0
    assert "carrier   Zaphod" in said
    assert "state        open" in said
    assert "`decide` needs --positive" in aios("decide", number, "--reason", WHY)[1]
    assert aios("decide", "--positive", "--reason", WHY)[0] == 1
    code, said = aios("decide", number, "--negative", "--reason", WHY)
    assert (code, f"Row {number} is negative, by user:" in said) == (0, True)
    code, said = aios("decide", number, "--positive", "--reason", WHY)
    assert (code, "was decided otherwise" in said) == (1, True)
    assert len(aios("list", "--all")[1].splitlines()) == 2
    decided = json.loads(aios("show", number, "--json")[1])
    assert (decided["decision"], decided["inputs"]) == (
        False, {"carrier": "Zaphod", "distance": 500.5},
    )  # fmt: skip
    assert json.loads(aios("decide", str(queued[1]), "--positive", "--reason", WHY, "--json")[1])
    assert aios("list") == (0, "No row waits.\n")
    code, said = aios("show", "999")
    assert (code, "has no row 999" in said) == (1, True)
