import base64
import hashlib
import json
from datetime import UTC, datetime

import pytest

from aios_platform.alerts import delivery
from aios_platform.alerts.outputs import WebhookOutput
from aios_platform.errors import AlertError, SettingsError
from tests.unit.alerts.receivers import a_batch, an_alert

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def signature(key: bytes, number: str, sent_at: str, body: bytes) -> str:
    """HMAC as RFC 2104 defines it, and the rest as the specification does."""
    padded = key.ljust(64, b"\0")
    signed = number.encode() + b"." + sent_at.encode() + b"." + body
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + signed).digest()
    digest = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()
    return "v1," + base64.b64encode(digest).decode()


def test_the_receiver_can_verify_whom_it_is_from(web):
    alert = an_alert(evidence={"rows": 5}, ledger_row=3)
    WebhookOutput(f"{web.url}/hook?a=b#part", SECRET).send(a_batch(alert))
    [(path, headers, body)] = web.requests
    assert (path, headers["content-type"]) == ("/hook?a=b", "application/json")
    sent_at = headers["webhook-timestamp"]
    assert abs(int(sent_at) - datetime.now(UTC).timestamp()) < 60
    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-signature"] == signature(KEY, "msg_1", sent_at, body)
    told = json.loads(body)
    assert (told["type"], told["data"]["subject"]) == ("alert.raised", "m")
    [one] = told["data"]["alerts"]
    assert (one["evidence"], one["ledger_row"], one["kind"]) == ({"rows": 5}, 3, "data_fault")
    assert one["runbook"] == "docs/runbook.md#data_fault"


def test_the_specifications_own_example_is_signed_as_it_says():
    # From the reference implementations' tests.
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    got = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert got == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_that_is_not_base64_is_taken_as_it_is(web):
    WebhookOutput(web.url, "a plain secret of some length").send(a_batch())
    [(_, headers, body)] = web.requests
    expected = signature(
        b"a plain secret of some length", "msg_1", headers["webhook-timestamp"], body
    )
    assert headers["webhook-signature"] == expected


def test_an_attempt_has_its_own_time_and_the_same_id_and_body(web):
    moments = iter([1_700_000_000, 1_700_000_100])
    output = WebhookOutput(
        web.url, SECRET, clock=lambda: datetime.fromtimestamp(next(moments), UTC)
    )
    batch = a_batch()
    for _ in range(2):
        output.send(batch)
    (_, first, body), (_, second, again) = web.requests
    assert (first["webhook-id"], body) == (second["webhook-id"], again)
    assert first["webhook-timestamp"] != second["webhook-timestamp"]
    assert first["webhook-signature"] != second["webhook-signature"]


@pytest.mark.parametrize("status", [300, 302, 307, 308, 400, 404, 410, 429, 500, 503])
def test_only_2xx_is_success_and_no_redirect_is_followed(web, status):
    web.answers = [status]
    with pytest.raises(AlertError, match=f"answered {status}"):
        WebhookOutput(web.url, SECRET).send(a_batch())
    assert len(web.requests) == 1
    WebhookOutput(web.url, SECRET).send(a_batch())


def test_one_that_hangs_is_given_up(web):
    web.answers = [None]
    with pytest.raises(AlertError, match="did not answer in time"):
        WebhookOutput(web.url, SECRET, timeout=0.2).send(a_batch())


def test_one_that_drips_for_ever_is_given_up_too(web, monkeypatch):
    monkeypatch.setattr(delivery, "SEND_SECONDS", 0.3)
    web.answers = ["drip"]
    said = delivery._attempt(WebhookOutput(web.url, SECRET, timeout=5), a_batch())
    assert "did not end within" in said


def test_nobody_there_and_the_wrong_protocol_are_errors_of_ours(web):
    with pytest.raises(AlertError, match=r"http://127\.0\.0\.1:1 did not .* refused"):
        WebhookOutput("http://127.0.0.1:1/secret-path", SECRET).send(a_batch())
    with pytest.raises(AlertError, match=r"https://127\.0\.0\.1"):
        WebhookOutput(web.url.replace("http", "https"), SECRET, timeout=2).send(a_batch())
    with pytest.raises(AlertError, match="did not take"):
        WebhookOutput("http://no-such-host.invalid/", SECRET, timeout=2).send(a_batch())


def test_an_unknown_certificate_is_not_accepted(certificate):
    import http.server
    import ssl
    from threading import Thread

    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.handle_error = lambda *_: None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.handle_request, daemon=True)
    thread.start()
    with pytest.raises(AlertError, match="certificate was not accepted"):
        WebhookOutput(f"https://localhost:{server.server_port}", SECRET).send(a_batch())
    thread.join(5)
    server.server_close()


def test_a_user_of_the_url_becomes_a_header_and_is_never_said(web, logged):
    output = WebhookOutput(web.url.replace("//", "//bob:pa%2Fss@") + "/hidden-path", SECRET)
    web.answers = [200, 500]
    output.send(a_batch())
    [(_, headers, _)] = web.requests
    assert headers["authorization"] == "Basic " + base64.b64encode(b"bob:pa/ss").decode()
    with pytest.raises(AlertError) as raised:
        output.send(a_batch())
    assert web.url in str(raised.value)
    said = str(raised.value) + repr(raised.value.__cause__) + logged.text
    for secret in ("bob", "pa%2Fss", "pa/ss", "hidden-path", SECRET):
        assert secret not in said


@pytest.mark.parametrize(
    "url",
    ["ftp://a/", "file:///etc/passwd", "a.example", "http://", "http://a:port/", "http://a:99999/",
     "http://a/b\r\nX-Header: 1", "http://a/b c", "http://a/\tb", "javascript:1", ""],
)  # fmt: skip
def test_what_is_no_web_address_is_refused_without_repeating_it(url):
    with pytest.raises(SettingsError, match="AIOS_ALERT_WEBHOOK_URL") as raised:
        WebhookOutput(url, SECRET)
    assert not url or url not in str(raised.value).replace("http:// ", "")


@pytest.mark.parametrize("secret", ["", "short", "whsec_", "whsec_!!!", "whsec_c2hvcnQ="])
def test_a_secret_that_protects_nothing_is_refused(secret):
    with pytest.raises(SettingsError, match="AIOS_ALERT_WEBHOOK_SECRET"):
        WebhookOutput("http://127.0.0.1/", secret)


def test_a_summary_cannot_add_a_header(web):
    alert = an_alert(summary="a\r\nX-Injected: yes\n\nb", subject="m\r\nX-Injected: yes")
    WebhookOutput(web.url, SECRET).send(a_batch(alert))
    [(_, headers, body)] = web.requests
    assert "x-injected" not in headers
    [one] = json.loads(body)["data"]["alerts"]
    assert one["summary"] == "a X-Injected: yes b"
