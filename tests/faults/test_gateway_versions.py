"""Versions that cannot serve, or not in time: another answers, and everybody is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from aios_platform.alerts.outbox import alerts
from aios_platform.artifacts import ArtifactStore
from aios_platform.settings import settings
from tests.faults.gateway_process import GatewayProcess, gateway
from tests.faults.slow_models import SLOW, moody
from tests.served_models import ROW, declare, make_champion, network

pytestmark = [pytest.mark.postgres]

SPOILT, MOODY, ALONE, SAFE = "spoilt", "moody", "alone", "safe"
SLOW_ROW = ROW | {"size": SLOW + 1}


@pytest.fixture(scope="module")
def store(own_home) -> ArtifactStore:
    return ArtifactStore(settings().artifact_root)


@pytest.fixture(scope="module")
def ledger(own_home):
    from aios_platform.database import database

    return database()


@pytest.fixture(scope="module")
def served(own_home, ledger, store) -> Iterator[GatewayProcess]:
    defs = own_home / "defs"
    shared = {
        "batching": {"max_rows": 1},
        "deadline_ms": 100,
        "breaker": {"failures": 3, "open_seconds": 1},
    }
    declare(defs, SPOILT)
    declare(defs, MOODY, **shared)
    declare(defs, ALONE, **shared, fallback=[])
    declare(defs, SAFE, **shared, safe_default=0.25)
    for name in (SPOILT, MOODY):
        make_champion(ledger, store, network(seed=1), model=name)
    slow = moody(40, slow_layers=3000)
    make_champion(ledger, store, slow, model=MOODY, version="2")
    for name in (ALONE, SAFE):
        make_champion(ledger, store, slow, model=name)
    with gateway(
        own_home, database=ledger, artifacts=settings().artifact_root, defs=defs
    ) as started:
        yield started


def serves(served: GatewayProcess, model: str) -> str:
    return served.ask("GET", f"/v1/models/{model}").json["version"]


def open_alerts(ledger, model: str) -> list[str]:
    return [found.alert.kind for found in alerts(ledger, subject=model, open_only=True)]


def source(served: GatewayProcess, model: str, row: dict = ROW, **headers: str) -> str:
    """Who answered, or why nobody did."""
    answer = served.predict(model, {"instance": row}, **headers)
    return answer.json["prediction"]["source"] if answer.status == 200 else answer.json["code"]


def test_a_damaged_version_does_not_serve_and_a_later_one_does(served, ledger, store):
    before = served.predict(SPOILT, {"instance": ROW}).json["prediction"]
    content = network(seed=3)
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    _, path = store.put(content, ".onnx")
    Path(path).chmod(0o644)
    Path(path).write_bytes(damaged)
    make_champion(ledger, store, content, model=SPOILT, version="2")
    served.until(lambda: open_alerts(ledger, SPOILT) == ["version_unusable"])
    assert serves(served, SPOILT) == "1"
    assert served.predict(SPOILT, {"instance": ROW}).json["prediction"] == before
    assert served.metric("aios_swaps_total", model=SPOILT, outcome="failed") == 1
    make_champion(ledger, store, network(seed=4), model=SPOILT, version="3")
    served.until(lambda: serves(served, SPOILT) == "3")
    served.until(lambda: open_alerts(ledger, SPOILT) == [])
    after = served.predict(SPOILT, {"instance": ROW}).json
    assert (after["version"], after["prediction"]["source"]) == ("3", "full")
    assert after["prediction"]["probability"] != before["probability"]


def test_a_version_that_became_slow_is_left_alone_for_a_while(served):
    served.until(lambda: source(served, MOODY) == "full")
    seen = set()
    while not served.metric("aios_breaker_open", model=MOODY, version="2"):
        seen.add(source(served, MOODY, SLOW_ROW))
    assert seen <= {"previous", "deadline_exceeded"}
    # Also what it could answer is kept from it now.
    assert source(served, MOODY) == "previous"
    assert served.metric("aios_fallbacks_total", model=MOODY, hop="previous") >= 1
    assert served.metric("aios_breaker_open", model=MOODY, version="1") == 0
    served.until(lambda: source(served, MOODY) == "full")
    served.until(lambda: not served.metric("aios_breaker_open", model=MOODY, version="2"))


def test_without_a_predecessor_the_safe_default_answers(served):
    served.until(lambda: source(served, SAFE, SLOW_ROW) == "default")
    answer = served.predict(SAFE, {"instance": SLOW_ROW}).json["prediction"]
    assert answer == {"probability": 0.25, "source": "default", "fallback": True}
    served.until(lambda: source(served, SAFE) == "full")


def test_without_any_fallback_the_caller_is_told_in_time(served):
    served.until(lambda: source(served, ALONE) == "full")
    for _ in range(3):
        assert source(served, ALONE, SLOW_ROW) == "deadline_exceeded"
    assert source(served, ALONE) == "no_answer"
    served.until(lambda: source(served, ALONE) == "full")


def test_the_haste_of_one_caller_costs_nobody_else(served):
    served.until(lambda: source(served, ALONE) == "full")
    failed = served.log.count(f"{ALONE} version 1 failed")
    for _ in range(5):
        hasty = source(served, ALONE, SLOW_ROW, aios_deadline_ms="5")
        assert hasty == "deadline_exceeded"
    assert served.log.count(f"{ALONE} version 1 failed") == failed
    served.until(lambda: source(served, ALONE) == "full")
