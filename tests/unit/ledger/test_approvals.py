"""Four eyes: who may decide what, once, on which evidence, until when."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from aios_platform.access.principals import SCHEDULER, acting_as, acting_with, add, revoke
from aios_platform.contracts.decisions import Decision
from aios_platform.errors import AccessDenied, ApprovalError
from aios_platform.ledger import approvals
from aios_platform.ledger.champions import champion_of, history, roll_back
from aios_platform.ledger.entries import append, entries
from aios_platform.ledger.verification import verify

pytestmark = [pytest.mark.postgres]


@pytest.fixture
def keys(own_database) -> dict[str, str]:
    """A governed installation: an admin, two approvers of whom one is an author, an operator."""
    found = {"root": add(own_database, "root", ["admin"])}
    with acting_with(found["root"]):
        for name, roles in {
            "ada": ["author", "approver"], "bob": ["approver"], "olga": ["operator"],
        }.items():  # fmt: skip
            found[name] = add(own_database, name, roles)
    return found


@pytest.fixture
def ask(own_database, judge):
    def make(author="ada", days=1.0, **extra):
        verdict = judge("m", **extra)
        until = datetime.now(UTC) + timedelta(days=days)
        asked = approvals.request(
            own_database, verdict, author=author, expires_at=until, candidate={"run": "r"}
        )
        return asked, verdict

    return make


def decide(database, asked, approve=True, reason="looked at the slices", **extra):
    digest = extra.pop("digest", asked.evidence_digest)
    return approvals.decide(
        database, asked.ledger_row, approve=approve, reason=reason, evidence_digest=digest, **extra
    )


def test_another_approves_and_the_promotion_follows(own_database, keys, ask, swap):
    asked, verdict = ask()
    assert (asked.state, asked.author, asked.verdict, asked.candidate) == (
        "pending", "ada", verdict, {"run": "r"},
    )  # fmt: skip
    with acting_with(keys["bob"]):
        done = decide(own_database, asked)
    assert (done.state, done.decided_by, done.promoted) == ("approved", "bob", False)
    with acting_as(SCHEDULER):
        swap(own_database, verdict, approval=asked.ledger_row)
    assert approvals.request_of(own_database, asked.ledger_row).promoted
    assert [r.state for r in approvals.requests(own_database, "m")] == ["approved"]
    assert approvals.requests(own_database, state="pending") == []
    row = entries(own_database, kind="promotion")[0]
    assert row.payload["approval"] == asked.ledger_row
    assert row.evidence[0] == asked.evidence_digest
    assert verify(own_database).holds


def test_a_rejection_stands_also_when_asked_again(own_database, keys, ask, swap, judge):
    asked, verdict = ask()
    with acting_with(keys["bob"]):
        assert decide(own_database, asked, approve=False, reason="JFK").reason == "JFK"
    again = approvals.request(
        own_database, verdict, author="ada", candidate={},
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )  # fmt: skip
    assert (again.ledger_row, again.state) == (asked.ledger_row, "rejected")
    with acting_as(SCHEDULER):
        with pytest.raises(ApprovalError, match="it is rejected"):
            swap(own_database, verdict, approval=asked.ledger_row)
        with pytest.raises(ApprovalError, match="waits for an approval"):
            swap(own_database, verdict)
    assert champion_of(own_database, "m") is None


def test_the_author_may_not_decide_under_either_name(own_database, keys, ask):
    for author in ("ada", "user:ada"):
        asked, _ = ask(author=author, candidate=author)
        with acting_with(keys["ada"]), pytest.raises(ApprovalError, match="ada is the author"):
            decide(own_database, asked)
        with acting_with(keys["ada"]), pytest.raises(ApprovalError, match="may not decide"):
            approvals.issue_code(own_database, asked.ledger_row)


def test_nor_may_the_user_of_an_open_installation(own_database, ask):
    from aios_platform.ledger.identity import os_user

    asked, _ = ask(author=os_user())
    with pytest.raises(ApprovalError, match="is the author"):
        decide(own_database, asked)
    asked, _ = ask(author="service:scheduler", candidate="2")
    assert decide(own_database, asked).state == "approved"


@pytest.mark.parametrize("who", ["olga", "root", None])
def test_who_is_no_approver_may_not_decide(own_database, keys, ask, who):
    asked, _ = ask()
    if who is None:
        with pytest.raises(AccessDenied, match="does not hold the role approver"):
            decide(own_database, asked)
        return
    with acting_with(keys[who]), pytest.raises(AccessDenied, match=f"{who} does not hold"):
        decide(own_database, asked)
    with acting_with(keys[who]), pytest.raises(AccessDenied, match="approver"):
        approvals.issue_code(own_database, asked.ledger_row)


def test_a_service_never_approves(own_database, keys, ask):
    asked, _ = ask()
    with acting_as(SCHEDULER), pytest.raises(AccessDenied, match="service:scheduler does not"):
        decide(own_database, asked)


def test_a_decision_counts_once(own_database, keys, ask):
    asked, _ = ask()
    with acting_with(keys["bob"]):
        decide(own_database, asked, approve=False)
        for approve in (True, False):
            with pytest.raises(ApprovalError, match="was decided already"):
                decide(own_database, asked, approve=approve)
    assert len(entries(own_database, kind="approval")) == 1


def test_a_decision_on_other_evidence_is_refused(own_database, keys, ask, swap, judge):
    asked, verdict = ask()
    with acting_with(keys["bob"]), pytest.raises(ApprovalError, match="about other evidence"):
        decide(own_database, asked, digest="0" * 64)
    with acting_with(keys["bob"]):
        decide(own_database, asked)
    changed = verdict.model_copy(update={"candidate_metrics": {"roc_auc": 0.99}})
    with acting_as(SCHEDULER), pytest.raises(ApprovalError, match="about other evidence"):
        swap(own_database, changed, approval=asked.ledger_row)


def test_requests_expire_and_may_be_made_anew(own_database, keys, ask):
    asked, _ = ask(days=0.3 / 86_400)
    time.sleep(0.4)
    assert approvals.request_of(own_database, asked.ledger_row).state == "expired"
    with acting_with(keys["bob"]), pytest.raises(ApprovalError, match="expired at"):
        decide(own_database, asked)
    with pytest.raises(ApprovalError, match="would expire"):
        ask(days=-1)


def test_asking_again_gives_the_same_request_until_it_expired(own_database, judge):
    verdict = judge("m")

    def again(seconds):
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        return approvals.request(
            own_database, verdict, author="a", expires_at=until, candidate={}
        ).ledger_row

    first = again(0.3)
    assert again(60) == first
    time.sleep(0.4)
    second = again(60)
    assert second > first
    assert again(60) == second
    assert [r.state for r in approvals.requests(own_database)] == ["pending", "expired"]


def test_a_request_that_was_overtaken_is_void(own_database, ask, swap, judge):
    asked, _ = ask(author="service:scheduler")
    swap(own_database, judge("m", "9"))
    assert approvals.request_of(own_database, asked.ledger_row).state == "void"
    with pytest.raises(ApprovalError, match="is void"):
        decide(own_database, asked)
    with pytest.raises(ApprovalError, match="it is void"):
        approvals.issue_code(own_database, asked.ledger_row)


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE])
def test_only_what_the_gate_would_promote_is_asked_for(ask, decision):
    with pytest.raises(ApprovalError, match="cannot be asked for"):
        ask(decision=decision)


def test_a_request_wants_an_author_and_a_decision_a_reason(own_database, keys, ask):
    with pytest.raises(ApprovalError, match="the author ''"):
        ask(author="")
    asked, _ = ask()
    with acting_with(keys["bob"]), pytest.raises(ApprovalError, match="wants a reason"):
        decide(own_database, asked, reason=" ")
    with pytest.raises(ApprovalError, match="no request 999"):
        approvals.request_of(own_database, 999)


def test_a_code_decides_one_request_once(own_database, keys, ask, caplog):
    asked, _ = ask()
    other, _ = ask(candidate="2")
    with acting_with(keys["bob"]):
        code = approvals.issue_code(own_database, asked.ledger_row)
    for number, given in ((other.ledger_row, code), (asked.ledger_row, "AAAA-BBBB")):
        with pytest.raises(AccessDenied, match="not valid for request"):
            approvals.redeem_code(own_database, number, given)
    with pytest.raises(ApprovalError, match="other evidence"):
        decide(own_database, asked, code=code, digest="0" * 64)
    done = decide(own_database, asked, code=code.lower())
    assert (done.state, done.decided_by) == ("approved", "bob")
    with pytest.raises(AccessDenied, match="used"):
        decide(own_database, asked, code=code)
    written = " ".join(row.model_dump_json() for row in entries(own_database))
    assert code not in written + caplog.text
    with own_database.begin() as connection:
        stored = connection.execute(text("SELECT approval_code::text FROM approval_code")).scalar()
    assert code not in stored


def test_a_code_can_be_redeemed_by_itself(own_database, keys, ask):
    asked, _ = ask()
    with acting_with(keys["bob"]):
        code = approvals.issue_code(own_database, asked.ledger_row)
    assert approvals.redeem_code(own_database, asked.ledger_row, code) == "bob"


def test_a_code_does_not_outlive_its_approver(own_database, keys, ask):
    asked, _ = ask()
    with acting_with(keys["bob"]):
        code = approvals.issue_code(own_database, asked.ledger_row)
    with acting_with(keys["root"]):
        revoke(own_database, "bob")
    with pytest.raises(AccessDenied, match="bob does not hold the role approver"):
        decide(own_database, asked, code=code)


FORGED = (
    "INSERT INTO ledger (principal, kind, subject, payload_text, idempotency_key) "
    "SELECT '{who}', 'approval', 'm', "
    "json_build_object('request', {request}, 'approve', true, 'reason', 'x', "
    "'evidence_digest', '{digest}')::text, 'forged'"
)


def test_raw_sql_cannot_approve_in_the_name_of_another(own_database, keys, ask):
    asked, _ = ask()
    values = {"request": asked.ledger_row, "digest": asked.evidence_digest}
    for who, told in {
        "bob": "Nothing proves",
        "ada": "Nothing proves",
        "olga": "does not hold",
        "user:root": "does not hold",
        "service:scheduler": "does not hold",
    }.items():
        with pytest.raises(DBAPIError, match=told), own_database.begin() as connection:
            connection.exec_driver_sql(FORGED.format(who=who, **values))
    code = "INSERT INTO approval_code VALUES (encode(sha256('x'), 'hex'), {}, 'bob', now())"
    with pytest.raises(DBAPIError, match="Nothing proves"), own_database.begin() as connection:
        connection.exec_driver_sql(code.format(asked.ledger_row))
    # Not even with what is stored, for that is not what proves.
    with own_database.engine.connect() as connection:
        connection.exec_driver_sql(
            "SELECT set_config('aios.proof', hash, true) FROM api_key WHERE principal = 'bob'"
        )
        with pytest.raises(DBAPIError, match="Nothing proves"):
            connection.exec_driver_sql(FORGED.format(who="bob", **values))
    assert approvals.request_of(own_database, asked.ledger_row).state == "pending"


def test_the_trigger_refuses_what_the_program_would_let_pass(own_database, ask):
    """Each rule again, past the program: an open installation, rows written by hand."""
    asked, _ = ask(author="user:me")
    values = {"request": asked.ledger_row, "digest": asked.evidence_digest}
    for change, told in (
        ({"who": "user:me"}, "is the author"),
        ({"who": "user:you", "digest": "0"}, "other evidence"),
        ({"who": "user:you", "request": 999}, "no request 999"),
    ):
        with pytest.raises(DBAPIError, match=told), own_database.begin() as connection:
            connection.exec_driver_sql(FORGED.format(**(values | change)))
    with pytest.raises(ApprovalError, match="no request"), own_database.begin() as connection:
        append(
            connection, kind="approval", subject="another model", key="k",
            payload={"request": asked.ledger_row, "approve": True,
                     "evidence_digest": asked.evidence_digest},
            principal="user:you",
        )  # fmt: skip


def test_rolling_back_wants_an_operator(own_database, keys, judge, swap):
    with acting_as(SCHEDULER):
        swap(own_database, judge("m", "1"))
        swap(own_database, judge("m", "2", champion="1"))
    first = history(own_database, "m")[-1]
    with acting_with(keys["bob"]), pytest.raises(AccessDenied, match="role operator"):
        roll_back(own_database, "m", to=first, expected="2", reason="worse")
    with acting_with(keys["olga"]):
        assert roll_back(own_database, "m", to=first, expected="2", reason="worse").revision == 3


def test_promoting_without_a_key_is_refused_once_there_are_keys(own_database, keys, judge, swap):
    with pytest.raises(AccessDenied, match="role author or operator"):
        swap(own_database, judge("m"))
    assert champion_of(own_database, "m") is None
