"""Clients that do not send, do not read, or never end: closed in time, and nobody else waits."""

import itertools
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from aios_platform.artifacts import ArtifactStore
from tests.faults.gateway_process import GatewayProcess, gateway
from tests.served_models import ROW, declare, make_champion, network

pytestmark = [pytest.mark.postgres]

MODEL = "patient"
CLIENTS = 200
MOST = 300
SECONDS = 1.0
IMPATIENT = f"""
from aios_platform.serving import connection
connection.HEADER_SECONDS = connection.BODY_SECONDS = connection.READ_SECONDS = {SECONDS}
connection.SWEEP_SECONDS = 0.1
connection.BoundedConnection.most_connections = {MOST}
"""
HEAD = f"POST /v1/models/{MODEL}:predict HTTP/1.1\r\nhost: g\r\n".encode()
SILENT, HEADERS, BODY, CHUNKS = "silent", "headers", "body", "chunks"
BEGUN = {
    SILENT: b"",
    HEADERS: HEAD,
    BODY: HEAD + b"content-length: 100\r\n\r\n{",
    CHUNKS: HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
}
DRIP = {HEADERS: b"a: b\r\n", BODY: b" ", CHUNKS: b"1\r\n \r\n"}


@pytest.fixture(scope="module")
def served(database, tmp_path_factory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("gateway")
    store = ArtifactStore(str(folder / "artifacts"))
    declare(folder / "defs", MODEL)
    make_champion(database, store, network(), model=MODEL)
    with gateway(
        folder,
        database=database,
        artifacts=str(folder / "artifacts"),
        defs=folder / "defs",
        before=IMPATIENT,
    ) as started:
        yield started


def connections(served: GatewayProcess) -> int:
    found = psutil.Process(served.process.pid).net_connections("tcp")
    return sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == served.port for c in found)


def rest(client: socket.socket) -> bytes:
    """What a client still gets to read."""
    got = b""
    with suppress(ConnectionError):
        while more := client.recv(65536):
            got += more
    return got


@pytest.mark.parametrize("kind", BEGUN)
def test_slow_clients_are_closed_and_the_others_answered(served, kind):
    clients = [served.connect() for _ in range(CLIENTS)]
    begun = time.monotonic()
    for client in clients:
        client.sendall(BEGUN[kind])
    served.until(lambda: connections(served) > CLIENTS // 2)
    answered = 0
    while connections(served):
        assert served.predict(MODEL, {"instance": ROW}).status == 200
        answered += 1
        for client in clients if kind in DRIP else ():
            with suppress(ConnectionError):
                client.sendall(DRIP[kind])
    assert time.monotonic() - begun > 0.9 * SECONDS
    assert answered >= 3
    for client in clients:
        assert b" 408 " in rest(client) or kind in DRIP
        client.close()


def test_of_too_many_clients_the_last_are_sent_away_at_once(served):
    body = json.dumps({"instance": ROW}).encode()
    clients = [served.connect() for _ in range(MOST)]
    for client in clients:
        client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert b" 200 OK" in client.recv(65536)
    with served.connect() as late:
        assert b" 429 " in rest(late)
    for client in clients:
        client.close()
    served.until(lambda: served.predict(MODEL, {"instance": ROW}).status == 200)


def test_a_client_that_does_not_read_is_closed_and_takes_no_memory(served):
    body = json.dumps({"instances": [ROW] * 5000}).encode()
    asked = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    process = psutil.Process(served.process.pid)
    before, sent = process.memory_info().rss, 0
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", served.port))
        client.settimeout(0.1)
        served.until(lambda: connections(served))
        try:
            while connections(served):
                with suppress(TimeoutError):
                    sent += client.send(asked[sent % len(asked) :])
        except ConnectionError:
            pass
    assert sent > 5 * len(asked)
    assert process.memory_info().rss - before < 64 << 20
    assert served.predict(MODEL, {"instance": ROW}).status == 200


def test_slow_clients_do_not_keep_it_from_ending(served):
    clients = [served.connect() for _ in range(CLIENTS)]
    for client, kind in zip(clients, itertools.cycle(BEGUN), strict=False):
        client.sendall(BEGUN[kind])
    served.until(lambda: connections(served) > CLIENTS // 2)
    assert served.end() == 0
    for client in clients:
        client.close()
