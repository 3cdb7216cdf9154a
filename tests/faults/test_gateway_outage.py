"""The gateway's database gone, silent, and back: what serves goes on, and nothing is lost."""

import signal
from collections.abc import Iterator

import psutil
import pytest
from sqlalchemy import text

from aios_platform.artifacts import ArtifactStore
from aios_platform.embedded import start_embedded
from aios_platform.settings import settings
from tests.faults.gateway_process import GatewayProcess, gateway
from tests.postgres_servers import stop_postgres
from tests.served_models import ROW, declare, make_champion, network

pytestmark = [pytest.mark.postgres]

MODEL = "outlasting"


@pytest.fixture(scope="module")
def ledger(own_home):
    from aios_platform.database import database

    return database()


@pytest.fixture(scope="module")
def store(own_home) -> ArtifactStore:
    return ArtifactStore(settings().artifact_root)


@pytest.fixture(scope="module")
def served(own_home, ledger, store) -> Iterator[GatewayProcess]:
    declare(own_home / "defs", MODEL)
    make_champion(ledger, store, network(seed=1), model=MODEL)
    with gateway(
        own_home,
        database=ledger,
        artifacts=settings().artifact_root,
        defs=own_home / "defs",
        before="from aios_platform.serving import recording; recording.HANGING_SECONDS = 1.0",
    ) as started:
        yield started


class Counted:
    """Asks, and knows how many were answered."""

    def __init__(self, served: GatewayProcess) -> None:
        self._served = served
        self.answered = 0

    def ask(self, **headers: str) -> dict:
        answer = self._served.predict(MODEL, {"instance": ROW}, **headers)
        assert answer.status == 200, answer.body
        self.answered += 1
        return answer.json


@pytest.fixture(scope="module")
def caller(served) -> Counted:
    return Counted(served)


def recorded(ledger) -> int:
    with ledger.begin() as connection:
        return connection.execute(
            text("SELECT coalesce(sum(rows), 0) FROM served_batch WHERE model = :model"),
            {"model": MODEL},
        ).scalar_one()


def reachable(served: GatewayProcess) -> dict[str, float]:
    return {
        name: served.metric("aios_store_reachable", store=name) for name in ("ledger", "records")
    }


def test_without_its_database_it_serves_says_so_and_forgets_nothing(
    served, caller, ledger, store, own_home
):
    caller.ask()
    assert served.ask("GET", "/readyz").json["degraded"] is False
    ledger.close()
    stop_postgres(own_home, signal.SIGKILL)

    def noticed() -> bool:
        caller.ask()
        return reachable(served) == {"ledger": 0, "records": 0}

    served.until(noticed)
    state = served.ask("GET", "/readyz")
    assert (state.status, state.json["ready"], state.json["degraded"]) == (200, True, True)
    told = served.predict(MODEL, {"instance": ROW}, idempotency_key="k1")
    assert (told.status, told.json["code"]) == (503, "store_unreachable")
    assert int(told.headers["retry-after"]) > 0
    caller.ask()
    start_embedded(own_home / "postgres")
    caller.ask(idempotency_key="k1")
    served.until(lambda: reachable(served) == {"ledger": 1, "records": 1})
    assert served.ask("GET", "/readyz").json["degraded"] is False
    served.until(lambda: recorded(ledger) >= caller.answered)
    assert recorded(ledger) == caller.answered
    assert served.metric("aios_records_lost_total", model=MODEL) == 0
    make_champion(ledger, store, network(seed=2), model=MODEL, version="2")
    served.until(lambda: caller.ask()["version"] == "2")


def test_a_silent_database_holds_nobody_up(served, caller, ledger, own_home):
    pid = int((own_home / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    server = psutil.Process(pid)
    every = [server, *server.children(recursive=True)]
    for process in every:
        process.suspend()
    try:

        def noticed() -> bool:
            caller.ask()
            return served.ask("GET", "/readyz").json["degraded"]

        served.until(noticed)
        told = served.predict(MODEL, {"instance": ROW}, idempotency_key="k2")
        assert (told.status, told.json["code"]) == (503, "store_unreachable")
        caller.ask()
    finally:
        for process in every:
            process.resume()
    served.until(lambda: not served.ask("GET", "/readyz").json["degraded"])
    served.until(lambda: recorded(ledger) >= caller.answered)
    assert recorded(ledger) == caller.answered


def test_told_to_stop_meanwhile_it_stops(served, own_home, ledger):
    ledger.close()
    stop_postgres(own_home, signal.SIGKILL)
    assert served.end() == 0
    assert "are lost" not in served.log
