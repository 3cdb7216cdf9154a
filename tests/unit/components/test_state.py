"""What the plan is told: a verdict counts once it was carried out."""

import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.plan import approval_cause
from aios_platform.components.model_lifecycle.state import GAVE_UP, VERDICT, read_state
from aios_platform.contracts.decisions import Decision
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.ledger.approvals import request
from aios_platform.ledger.champions import promote
from aios_platform.ledger.entries import append
from tests.unit.contracts.test_declaration import MINIMAL
from tests.verdicts import verdict

pytestmark = pytest.mark.postgres


@pytest.fixture
def names(tmp_path) -> Names:
    model = f"m_{uuid.uuid4().hex[:8]}"
    return Names(ModelDeclaration.model_validate(MINIMAL | {"name": model}), tmp_path)


def judge(database, names, decision):
    judged = verdict(names.model, "1", decision=decision)
    with database.begin() as connection:
        append(
            connection,
            kind=VERDICT,
            subject=names.model,
            payload={"cause": "why", "verdict": judged.model_dump(mode="json")},
            key=f"verdict:{names.model}",
        )
    return judged


def verdicts(database, names, store):
    return read_state(names.declaration, names, store, database, datetime.now(UTC)).verdicts


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE])
def test_a_refusal_answers_its_cause(database, names, store, decision):
    judge(database, names, decision)
    assert verdicts(database, names, store) == {"why"}


def test_a_request_for_an_approval_answers_its_cause(database, names, store):
    judged = judge(database, names, Decision.PROMOTE)
    request(
        database,
        judged,
        author="somebody",
        expires_at=datetime.now(UTC) + timedelta(days=1),
        candidate={},
    )
    now = read_state(names.declaration, names, store, database, datetime.now(UTC))
    assert now.verdicts == {"why"}
    assert now.approved is None, "it waits"


def test_a_promotion_answers_its_cause_only_once_it_happened(database, names, store):
    judged = judge(database, names, Decision.PROMOTE)
    assert verdicts(database, names, store) == frozenset()
    promote(
        database,
        judged,
        model_digest="d" * 64,
        run_id="r",
        training_set_digest="7" * 64,
        trained_through="2013-09",
    )
    assert verdicts(database, names, store) == {"why"}


def test_an_approved_request_that_was_given_up_makes_way_for_the_next(
    database, names, store, monkeypatch
):
    approved = [SimpleNamespace(ledger_row=row, promoted=False) for row in (7, 9)]
    monkeypatch.setattr(
        "aios_platform.components.model_lifecycle.state.requests",
        lambda *_, state=None, **__: approved if state == "approved" else [],
    )

    def state(**options):
        return read_state(names.declaration, names, store, database, datetime.now(UTC), **options)

    assert state().approved == 7
    with database.begin() as connection:
        append(
            connection,
            kind=GAVE_UP,
            subject=names.model,
            payload={"cause": approval_cause(7)},
            key=f"{GAVE_UP}:{names.model}",
        )
    assert state().approved == 9
    assert state(patient=True).approved == 7, "a person's command tries it again"
