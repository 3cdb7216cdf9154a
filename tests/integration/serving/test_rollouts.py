"""Candidates beside a live version: who gets their answers, what is kept, how they leave."""

import json
import uuid

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.rollouts import RolloutMode, RolloutState
from aios_platform.inference.session import Session
from aios_platform.monitoring.served_content import decode
from tests.gateways import local_gateway, metric, roll_out
from tests.served_models import brittle, declaration, make_champion, network

pytestmark = pytest.mark.postgres

LIVE, CANDIDATE = network(seed=1), network(seed=2)
ROWS = [
    {"size": float(size), "weight": size / 7, "colour": "red", "id": f"r{size}"}
    for size in range(40)
]


def expected(content: bytes) -> list[float]:
    return Session(content).predict(pa.Table.from_pylist(ROWS)).tolist()


@pytest.fixture
def served(database, store):
    """A gateway with a live version of a model of the test's own."""

    def serve(**serving):
        model = f"m_{uuid.uuid4().hex[:8]}"
        make_champion(database, store, LIVE, model=model)
        started = local_gateway(database, store, [declaration(model, **serving)])
        return model, started

    return serve


def share_is(gateway, model, share):
    gateway.until(
        lambda: (
            (trial := gateway.deployment(model).trial) is not None and trial.rollout.share == share
        )
    )


def test_a_request_that_two_versions_share_is_answered_and_recorded_row_by_row(served, store):
    model, starting = served()
    with starting as gateway:
        roll_out(gateway.database, model, CANDIDATE, store, step=1)
        share_is(gateway, model, 0.5)
        answer = gateway.predict(model, {"instances": ROWS}, **{"X-Request-Id": "both"}).json
        once = gateway.predict(model, {"instances": ROWS}, Idempotency_Key="k").json
    versions = [row["version"] for row in answer["predictions"]]
    assert set(versions) == {"1", "candidate"}
    by_version = {"1": expected(LIVE), "candidate": expected(CANDIDATE)}
    for place, row in enumerate(answer["predictions"]):
        assert row["probability"] == pytest.approx(by_version[row["version"]][place], abs=1e-6)
        assert row["id"] == ROWS[place]["id"]
    assert [row["version"] for row in once["predictions"]] == versions
    recorded = {}
    for version, content in gateway.rows(
        "SELECT version, content FROM served_batch WHERE model = :m", m=model
    ):
        for row in decode(bytes(content)).answers.to_pylist():
            recorded.setdefault(row["request_id"], {})[row["place"]] = version
    assert len(recorded) == 2
    for places in recorded.values():
        assert places == dict(enumerate(versions))
    counted = gateway.rows(
        "SELECT role, sum(requests), sum(rows) FROM serving_minute WHERE model = :m GROUP BY role",
        m=model,
    )
    assert {tuple(row) for row in counted} == {
        ("live", 2, 2 * versions.count("1")),
        ("canary", 2, 2 * versions.count("candidate")),
    }


def test_an_entity_stays_with_the_candidate_while_the_share_rises_and_returns_at_its_end(
    served, store
):
    model, starting = served()
    with starting as gateway:
        before: set[str] = set()
        for step, share in enumerate((0.1, 0.5, 0.9, 1.0)):
            roll_out(gateway.database, model, CANDIDATE, store, step=step)
            share_is(gateway, model, share)
            answers = gateway.together(model, [{"instance": row} for row in ROWS])
            chosen = {
                row["id"]
                for row, answer in zip(ROWS, answers, strict=True)
                if answer.json["version"] == "candidate"
            }
            assert before <= chosen
            before = chosen
        assert len(before) == len(ROWS)
        roll_out(gateway.database, model, CANDIDATE, store, state=RolloutState.ABORTED)
        gateway.until(lambda: gateway.deployment(model).trial is None)
        answers = gateway.together(model, [{"instance": row} for row in ROWS])
        assert {answer.json["version"] for answer in answers} == {"1"}


def test_where_the_candidate_fails_the_live_version_answers(served, store):
    model, starting = served(fallback=[])
    with starting as gateway:
        roll_out(gateway.database, model, brittle(), store, step=3)
        share_is(gateway, model, 1.0)
        answer = gateway.predict(model, {"instance": ROWS[3]}).json
    assert answer["version"] == "1"
    assert answer["prediction"]["source"] == "previous"
    assert answer["prediction"]["probability"] == pytest.approx(expected(LIVE)[3], abs=1e-6)
    assert metric("aios_fallbacks_total", model=model, hop="previous") == 1
    counted = gateway.rows(
        "SELECT role, sum(failures) FROM serving_minute WHERE model = :m GROUP BY role", m=model
    )
    assert [tuple(row) for row in counted] == [("canary", 1)]


def test_a_shadow_is_compared_row_by_row_and_no_caller_sees_it(served, store):
    model, starting = served()
    with starting as gateway:
        roll_out(gateway.database, model, CANDIDATE, store, mode=RolloutMode.SHADOW)
        gateway.until(lambda: gateway.deployment(model).trial is not None)
        answer = gateway.predict(model, {"instances": ROWS}).json
        lines = gateway.ask(
            "POST",
            f"/v1/models/{model}:stream",
            json.dumps({"instances": ROWS * 10}).encode(),
            {"content-type": "application/json"},
        ).body.splitlines()
    assert answer["version"] == "1"
    assert {row["source"] for row in answer["predictions"]} == {"full"}
    assert {json.loads(line)["version"] for line in lines[:-1]} == {"1"}
    pairs = gateway.rows(
        "SELECT request_id, place, live, candidate FROM shadow_pair WHERE model = :m", m=model
    )
    assert len(pairs) == 11 * len(ROWS)
    # Also those of a request that was answered in parts.
    assert len({(request, place) for request, place, *_ in pairs}) == len(pairs)
    mine = sorted(pair[1:] for pair in pairs if pair[0] == answer["request_id"])
    assert [pair[0] for pair in mine] == list(range(len(ROWS)))
    assert np.allclose([pair[1] for pair in mine], expected(LIVE), atol=1e-6)
    assert np.allclose([pair[2] for pair in mine], expected(CANDIDATE), atol=1e-6)


def test_a_failing_shadow_is_recorded_as_such_and_harms_nobody(served, store):
    model, starting = served()
    with starting as gateway:
        roll_out(gateway.database, model, brittle(), store, mode=RolloutMode.SHADOW)
        gateway.until(lambda: gateway.deployment(model).trial is not None)
        assert gateway.predict(model, {"instance": ROWS[3]}).json["version"] == "1"
    [(candidate, failure)] = gateway.rows(
        "SELECT candidate, failure FROM shadow_pair WHERE model = :m", m=model
    )
    assert candidate is None
    assert "not a probability" in failure
