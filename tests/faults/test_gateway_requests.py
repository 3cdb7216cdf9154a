"""What callers may send by mistake or by malice: refused early, and never a failure of ours."""

import gzip
import json

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.gateway_process import JSON, Answer, GatewayProcess
from tests.faults.raw_http import GOOD, MODEL, PATH, answers, chunked, exchange, instance, post
from tests.served_models import ROW

pytestmark = [pytest.mark.postgres]


MIB = 1 << 20


ODD = {
    "empty": (b"", 400),
    "no JSON": (b"{", 400),
    "NaN": (instance(size="NaN"), 400),
    "Infinity": (instance(size="-Infinity"), 400),
    "1e999": (instance(size="1e999"), 422),
    "beyond float32": (instance(weight="1e39"), 422),
    "5000 digits": (instance(size="9" * 5000), 422),
    "a number as text": (instance(size='"nan"'), 422),
    "a truth as number": (instance(size="true"), 422),
    "a number as truth": (instance(colour="1"), 422),
    "null": (instance(size="null"), 422),
    "a list": (instance(size="[1]"), 422),
    "out of bounds": (instance(size="1001"), 422),
    "unknown value": (instance(colour='"green"'), 422),
    "a long text": (instance(colour=f'"{"a" * 100_000}"'), 422),
    "an unknown key": (instance(shape='"round"'), 422),
    "no key": (b'{"instance":{"size":1}}', 422),
    "a key twice": (GOOD.replace(b'"weight"', b'"size"', 1).replace(b"}}", b',"weight":1}}'), 400),
    "two envelopes": (b'{"instance":{},"instance":%s' % GOOD.split(b":", 1)[1], 422),
    "an escaped key twice": (instance(**{"si\\u007ae": "1"}), 400),
    "an instance and instances": (GOOD[:-1] + b',"instances":[]}', 422),
    "no rows": (b'{"instances":[]}', 422),
    "many rows": (b'{"instances":[%s]}' % b",".join([GOOD[12:-1]] * 101), 413),
    "a list at the top": (b"[1]", 422),
    "deep": (b"[" * 100_000, 422),
    "deep, closed": (b'{"instance":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 422),
    "deep objects": (b'{"a":' * 100_000, 422),
    "invalid UTF-8": (instance(colour='"red"').replace(b"red", b"\xff\xfe"), 400),
    "a lone surrogate": (instance(colour='"\\ud800"'), 400),
    "a null character": (b"\0" + GOOD, 400),
    "UTF-16": (GOOD.decode().encode("utf-16"), 400),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, 400),
    "something behind": (GOOD + b"{}", 400),
}


VALUES = st.one_of(
    st.sampled_from(
        ["3.5", "1e999", "null", '"red"', "true", "[]", "{}", "-0", "NaN", '"\\ud800"']
    ),
    st.floats().map(repr),
    st.integers().map(str),
    st.text(max_size=20).map(json.dumps),
)
BODIES = st.one_of(
    st.binary(max_size=100),
    st.builds(instance, size=VALUES, weight=VALUES, colour=VALUES),
    st.builds(
        lambda at, byte: GOOD[:at] + byte + GOOD[at + 1 :],
        st.integers(0, len(GOOD)),
        st.binary(max_size=2),
    ),
)


@pytest.mark.parametrize("name", ODD)
def test_a_body_is_refused_or_answered_the_same_on_both_ways(odd_gateway, name):
    body, status = ODD[name]
    named = "x-request-id: odd"
    [short] = answers(exchange(odd_gateway, post(body, named, CLOSE)))
    [long] = answers(exchange(odd_gateway, chunked(body, named, CLOSE, size=8192)))
    assert short.status == status, short.body
    assert short.json["code"] != "internal_error"
    assert len(short.body) < 2000
    assert short._replace(headers={}) == long._replace(headers={})
    assert _kept(short) == _kept(long)


def _kept(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name != "date"}


@settings(max_examples=60, deadline=None)
@given(body=BODIES)
def test_both_ways_through_the_protocol_answer_alike(odd_gateway, body):
    named = {"content-type": "application/json", "x-request-id": "fuzz"}
    short = odd_gateway.ask("POST", PATH, body, named)
    long = odd_gateway.ask("POST", PATH, iter([body]), named)
    assert short.status < 500
    assert (short.status, short.body, _kept(short)) == (long.status, long.body, _kept(long))


def test_pipelined_requests_are_answered_in_their_order(odd_gateway):
    names = [f"x-request-id: {n}" for n in range(8)]
    wrong = b"{"
    asked = [
        post(GOOD, names[0]), chunked(GOOD, names[1]), post(GOOD, names[2]), post(wrong, names[3]),
        chunked(wrong, names[4]), post(GOOD, names[5]), chunked(GOOD, names[6]),
        post(GOOD, names[7], CLOSE),
    ]  # fmt: skip
    for parts in ([b"".join(asked)], asked, [bytes([b]) for b in b"".join(asked)]):
        found = answers(exchange(odd_gateway, *parts))
        assert [answer.json["request_id"] for answer in found] == [str(n) for n in range(8)]
        assert [answer.status for answer in found] == [200, 200, 200, 400, 400, 200, 200, 200]


CLOSE = "connection: close"
HEAD = f"POST {PATH} HTTP/1.1\r\nhost: g\r\n".encode()
BROKEN = {
    "not HTTP": (b"\x16\x03\x01\x02\x00", 400),
    "no path": (b"GET HTTP/1.1\r\n\r\n", 400),
    "a tunnel": (b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: g\r\n\r\n", 400),
    "two lengths": (HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", 400),
    "length and chunks": (HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}", 400),
    "negative length": (HEAD + b"content-length: -1\r\n\r\n", 400),
    "length in words": (HEAD + b"content-length: two\r\n\r\n", 400),
    "a bad chunk": (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
    "a bad header": (HEAD + b"a b: c\r\n\r\n", 400),
    "many headers": (HEAD + b"a: b\r\n" * 200 + b"\r\n", 431),
    "long headers": (HEAD + (b"a: %s\r\n" % (b"b" * 1000)) * 40 + b"\r\n", 431),
    "one endless header": (HEAD + b"a: " + b"b" * 10 * MIB, 431),
    "an endless path": (b"GET /" + b"a" * 10 * MIB, 431),
    "a declared giant": (HEAD + b"content-length: 104857600\r\n\r\n", 413),
    "compressed": (post(gzip.compress(GOOD), "content-encoding: gzip", CLOSE), 415),
    "another type": (
        post(GOOD, CLOSE).replace(b"application/json", b"text/csv"),
        415,
    ),
    "a header twice": (
        post(GOOD, "aios-contract: 1", "aios-contract: 2", CLOSE),
        400,
    ),
    "an odd header": (post(GOOD, "aios-deadline-ms: nan", CLOSE), 400),
    "an unknown contract": (post(GOOD, "aios-contract: 7", CLOSE), 404),
    "an unknown model": (post(GOOD, CLOSE, path="/v1/models/x:predict"), 404),
    "a strange model": (post(GOOD, CLOSE, path="/v1/models/%00%ff:predict"), 404),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_http_is_told_so_and_hung_up_on(odd_gateway, name):
    sent, status = BROKEN[name]
    [answer] = answers(exchange(odd_gateway, sent))
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"


UPGRADE = ("connection: upgrade", "upgrade: h2c")


def test_another_protocol_is_not_spoken(odd_gateway):
    """The parser drops the body of such a request; without one, the wish is passed over."""
    [answer] = answers(exchange(odd_gateway, post(GOOD, *UPGRADE)))
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    asked = "\r\n".join(["GET /healthz HTTP/1.1", "host: g", *UPGRADE, "", ""]).encode()
    [answer] = answers(exchange(odd_gateway, asked))
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_a_caller_that_asks_first_is_told_to_go_on(odd_gateway):
    with odd_gateway.connect() as connection:
        whole = post(GOOD, "expect: 100-continue")
        connection.sendall(whole[: -len(GOOD)])
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(GOOD)
        assert b" 200 OK" in connection.recv(65536)


@pytest.mark.parametrize("head", ["content-length: 104857600", "transfer-encoding: chunked"])
@pytest.mark.parametrize("path", [PATH, f"/v1/models/{MODEL}:stream", f"/v2/models/{MODEL}/infer"])
def test_a_giant_is_refused_early_takes_no_memory_and_is_told_why(odd_gateway, path, head):
    before = memory(odd_gateway)
    part = b"1" * MIB if "length" in head else b"%x\r\n%s\r\n" % (MIB, b"1" * MIB)
    lines = [f"POST {path} HTTP/1.1", "host: g", "content-type: application/json", head, "", ""]
    [answer] = answers(exchange(odd_gateway, "\r\n".join(lines).encode(), *[part] * 100))
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")
    assert memory(odd_gateway) - before < 40 * MIB
    assert odd_gateway.predict(MODEL, {"instance": ROW}).status == 200


def memory(odd_gateway: GatewayProcess) -> int:
    return psutil.Process(odd_gateway.process.pid).memory_info().rss


@pytest.mark.parametrize("name", ODD)
def test_an_odd_body_is_no_stream_either(odd_gateway, name):
    body, status = ODD[name]
    answer = odd_gateway.ask("POST", f"/v1/models/{MODEL}:stream", body, {"content-type": JSON})
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")


def test_nothing_of_it_was_a_failure_of_the_gateway(odd_gateway):
    assert odd_gateway.predict(MODEL, {"instance": ROW}).status == 200
    assert odd_gateway.metric("aios_refused_total", code="internal_error") == 0
    assert "Traceback" not in odd_gateway.log
