"""Keys over HTTP: who is let in, how the others are told, and that nobody's secret is logged."""

import http.client
import io
import json
import logging
import socket
import threading
import time

import pytest
import uvicorn

from aios_platform.access import callers
from aios_platform.access.principals import acting_with, add
from aios_platform.errors import SettingsError
from aios_platform.ledger.identity import new_key
from aios_platform.serving import server
from aios_platform.serving.access import Access
from aios_platform.serving.application import Application
from aios_platform.serving.connection import sweep
from aios_platform.serving.protocol import GatewayProtocol
from aios_platform.settings import settings

pytestmark = [pytest.mark.postgres]

MODEL = "flight_delay"
PRIVATE = "Ada-Lovelace-1815"
SECONDS = 30


@pytest.fixture
def logged():
    """Every line that anybody logs, as it is."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    loggers = [logging.getLogger(), logging.getLogger("aios_platform")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    yield written.getvalue
    for logger, level in zip(loggers, before, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture
def keys(own_database):
    """Keys of an admin, and of a caller of one model."""
    root = add(own_database, "root", ["admin"])
    with acting_with(root):
        shop = add(own_database, "shop", [])
        callers.grant(own_database, "shop", MODEL, 1)
    return {"root": root, "shop": shop}


@pytest.fixture
def port(own_database, keys, logged, monkeypatch):
    """A gateway that wants keys, on a port of its own."""
    gateway = server.build_gateway(own_database, settings())
    gateway.access = Access(own_database, required=True)
    monkeypatch.setattr(GatewayProtocol, "gateway", gateway, raising=False)
    config = uvicorn.Config(
        Application(gateway, most_bytes=1 << 20, beside=sweep),
        http=GatewayProtocol, ws="none", lifespan="on", log_config=None, access_log=False,
    )  # fmt: skip
    running = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        until = time.monotonic() + SECONDS
        while not running.started:
            assert thread.is_alive()
            assert time.monotonic() < until
            time.sleep(0.01)
        yield listening.getsockname()[1]
        running.should_exit = True
        thread.join(SECONDS)


def predict(port: int, key: str | None, model: str = MODEL, body: bytes | None = None):
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    asked = json.dumps({"instance": {"tail_number": PRIVATE}}).encode() if body is None else body
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("POST", f"/v1/models/{model}:predict", asked, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())
    finally:
        connection.close()


def test_who_is_let_in_and_how_the_others_are_told(port, keys, logged):
    unknown = new_key()[0]
    for key in (None, unknown, keys["shop"][:-1], f"{PRIVATE} {keys['shop']}"):
        status, _, told = predict(port, key)
        assert (status, told["code"]) == (401, "unauthenticated")
    status, _, told = predict(port, keys["root"])
    assert (status, told["code"]) == (403, "forbidden")
    status, _, told = predict(port, keys["shop"], model="other")
    assert (status, told["code"]) == (403, "forbidden")
    # Let in, in an installation that has no champion yet.
    status, _, told = predict(port, keys["shop"])
    assert (status, told["code"]) == (503, "no_champion")
    status, headers, told = predict(port, keys["shop"])
    assert (status, told["code"]) == (429, "rate_limited")
    assert 0 < float(headers["retry-after"]) <= 1
    for body in (b"{" + PRIVATE.encode(), b"\xff" + PRIVATE.encode()):
        predict(port, keys["shop"], body=body)
    for secret in (PRIVATE, *(key.split("_", 2)[2] for key in (unknown, *keys.values()))):
        assert secret not in logged()


def test_the_public_is_refused_while_nobody_holds_a_key(own_database, monkeypatch):
    monkeypatch.setattr(server, "database", lambda: own_database)
    with pytest.raises(SettingsError, match="no API key was issued"):
        server.serve(server.Options(host="0.0.0.0", port=0), print)
