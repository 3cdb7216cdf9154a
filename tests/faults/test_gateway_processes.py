"""Processes of the gateway killed, told to stop, and given other versions, all of it under load."""

from collections.abc import Iterator
from functools import partial

import pytest
from sqlalchemy import text

from aios_platform.artifacts import ArtifactStore
from tests.faults.callers import Callers
from tests.faults.gateway_process import GatewayProcess, gateway
from tests.faults.slow_models import moody
from tests.served_models import ROW, declare, make_champion, network

pytestmark = [pytest.mark.postgres]

MODELS = KEYED, PLAIN, SWAPPED = "keyed_calls", "plain_calls", "swapped"
LEASES_END = """
UPDATE idempotent_answer SET held_until = clock_timestamp() WHERE model = :model AND status IS NULL
"""
ROWS = "SELECT coalesce(sum(rows), 0) FROM served_batch WHERE model = :model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gateways")


@pytest.fixture(scope="module")
def store(folder) -> ArtifactStore:
    return ArtifactStore(str(folder / "artifacts"))


@pytest.fixture(scope="module")
def places(database, folder, store) -> dict:
    """Where a gateway finds models, one of which takes some milliseconds."""
    for name in MODELS:
        declare(folder / "defs", name)
    for name in (KEYED, PLAIN):
        make_champion(database, store, moody(40), model=name)
    make_champion(database, store, network(seed=1), model=SWAPPED)
    return {
        "database": database, "artifacts": str(folder / "artifacts"), "defs": folder / "defs",
    }  # fmt: skip


@pytest.fixture(scope="module")
def pair(places, folder) -> Iterator[GatewayProcess]:
    """Two worker processes on one port."""
    with gateway(folder / "pair", **places, workers=2) as started:
        started.until(lambda: started.log.count(" serves version ") == 2 * len(MODELS))
        yield started


@pytest.fixture(scope="module")
def single(places, folder) -> Iterator[GatewayProcess]:
    with gateway(folder / "single", **places) as started:
        yield started


def recorded(database, model: str) -> int:
    with database.begin() as connection:
        return connection.execute(text(ROWS), {"model": model}).scalar_one()


def row(number: int) -> dict:
    return ROW | {"size": number % 400}


def test_a_killed_worker_costs_only_what_it_was_answering(pair, database):
    callers = Callers(pair.port, KEYED, row, keyed=True).start()
    callers.until_each_has(3)
    other, victim = sorted(pair.children, key=lambda child: len(child.net_connections("tcp")))
    victim.kill()
    victim.wait()
    with database.begin() as connection:
        connection.execute(text(LEASES_END), {"model": KEYED})
    callers.until_each_has(3)
    pair.until(lambda: len(pair.children) == 2 and victim not in pair.children)
    assert other in pair.children
    callers.until_each_has(3)
    callers.stop()
    calls = callers.every
    assert {call.answer.status for call in calls} == {200}
    broken = [call for call in calls if call.broken]
    assert 1 <= len(broken) <= len(callers.calls)
    # Asked once more, each gives the answer that it gave, and nothing new is recorded.
    for call in broken:
        again = pair.predict(
            KEYED, {"instance": row(int(call.key.split("-")[1]))}, idempotency_key=call.key
        )
        assert again.body == call.answer.body
    pair.until(lambda: recorded(database, KEYED) >= len(calls))
    assert recorded(database, KEYED) == len(calls)


def test_no_request_is_dropped_when_the_version_changes(pair, database, store):
    callers = Callers(pair.port, SWAPPED, row).start()
    for version in ("2", "3", "4"):
        callers.until_each_has(20)
        make_champion(database, store, network(seed=int(version)), model=SWAPPED, version=version)
        pair.until(partial(callers.all_got, version))
    callers.stop()
    assert callers.dropped == []
    for calls in callers.calls:
        assert {call.answer.status for call in calls} == {200}
        assert {call.answer.json["prediction"]["source"] for call in calls} == {"full"}
    # What a version answered it always answers: never one's figure under another's name.
    by = {(c.answer.json["version"], c.key.split("-")[1]): set() for c in callers.every}
    for call in callers.every:
        found = call.answer.json
        by[found["version"], call.key.split("-")[1]].add(found["prediction"]["probability"])
    assert all(len(figures) == 1 for figures in by.values())


@pytest.mark.parametrize("which", ["single", "pair"])
def test_what_was_asked_is_answered_before_the_end(which, database, request):
    stopped = request.getfixturevalue(which)
    before = recorded(database, PLAIN)
    callers = Callers(stopped.port, PLAIN, row).start()
    callers.until_each_has(5)
    assert stopped.end() == 0
    callers.join()
    assert callers.dropped == []
    assert {call.answer.status for call in callers.every} == {200}
    assert recorded(database, PLAIN) - before == len(callers.every)
