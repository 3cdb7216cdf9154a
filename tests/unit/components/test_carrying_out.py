"""Who is asked before a verdict is carried out."""

import uuid

import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle import carrying_out
from aios_platform.components.model_lifecycle.carrying_out import Status, carry_out
from aios_platform.components.model_lifecycle.handoff import Candidate, Judged
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.datasets import FeatureSchema, TrainingSet
from aios_platform.contracts.decisions import Decision
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.ledger.approvals import requests
from aios_platform.ledger.champions import champion_of
from aios_platform.resources.stores import Stores
from tests.unit.contracts.test_declaration import MINIMAL
from tests.verdicts import verdict

pytestmark = [
    pytest.mark.postgres,
    # Dagster's resources, on a Pydantic that is newer than they are.
    pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20"),
]


@pytest.fixture(autouse=True)
def _only_the_swap(monkeypatch):
    monkeypatch.setattr(carrying_out, "follow", lambda model, stores: "")
    monkeypatch.setattr(carrying_out, "ensure_package", lambda *version: None)


def declared(tmp_path, **gate) -> Names:
    model = f"m_{uuid.uuid4().hex[:8]}"
    return Names(ModelDeclaration.model_validate(MINIMAL | {"name": model, "gate": gate}), tmp_path)


def judged(names, version, champion, decision=Decision.PROMOTE) -> Judged:
    record = TrainingSet(
        frames=(), exam=(), features=FeatureSchema(fields=()), service_digest="5" * 64,
        as_of="2014-01-01T00:00:00+00:00", cells_replayed=1,
    )  # fmt: skip
    made = verdict(names.model, version, champion=champion, decision=decision)
    return Judged(
        verdict=made,
        candidate=Candidate(
            version=version, run_id="r", model_digest=made.candidate_digest or "d" * 64,
            training_set_digest="7" * 64, trained_through="2013-09", training_set=record,
            author="somebody",
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "first", "second"),
    [
        ({}, Status.PROMOTED, Status.PROMOTED),
        ({"approval": "human"}, Status.PENDING, None),
        ({"bootstrap": {"approval": "human"}}, Status.PENDING, None),
        (
            {"approval": "human", "bootstrap": {"approval": "automatic"}},
            Status.PROMOTED,
            Status.PENDING,
        ),
    ],
)
def test_the_policy_says_whether_a_person_is_asked(database, store, tmp_path, gate, first, second):
    names, stores = declared(tmp_path, **gate), Stores(ArtifactStore(store.root))
    carried = carry_out(names, judged(names, "1", None), stores)
    assert carried.status is first
    live = champion_of(database, names.model)
    assert (live is not None) == (first is Status.PROMOTED)
    assert len(requests(database, model=names.model)) == (first is Status.PENDING)
    again = carry_out(names, judged(names, "1", None), stores)
    assert (again.status, champion_of(database, names.model)) == (first, live)
    if second is not None:
        carried = carry_out(names, judged(names, "2", "1"), stores)
        assert carried.status is second
        assert champion_of(database, names.model).version == (
            "2" if second is Status.PROMOTED else "1"
        )


@pytest.mark.parametrize("decision", [Decision.REJECT, Decision.INCONCLUSIVE])
def test_what_is_not_to_be_promoted_asks_nobody(database, store, tmp_path, decision):
    names, stores = declared(tmp_path, approval="human"), Stores(ArtifactStore(store.root))
    carried = carry_out(names, judged(names, "1", None, decision), stores)
    assert carried.status not in (Status.PROMOTED, Status.PENDING)
    assert champion_of(database, names.model) is None
    assert requests(database, model=names.model) == []
