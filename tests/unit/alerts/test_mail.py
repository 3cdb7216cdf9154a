import ssl
from email.utils import parsedate_to_datetime

import pytest

from aios_platform.alerts.outputs import EmailOutput
from aios_platform.contracts.alerts import Severity
from aios_platform.errors import AlertError, SettingsError
from tests.unit.alerts.receivers import MailServer, a_batch, an_alert

SENDER, TO = "AIOS <aios@example.org>", ["ann@example.org", " Bob <bob@example.org>"]


@pytest.fixture
def tls(certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


def test_a_mail_says_what_happened_and_what_to_do():
    server = MailServer()
    batch = a_batch(
        an_alert(severity=Severity.CRITICAL, summary="Zu viele Zeilen fehlen: 50 % ≈ mehr.",
                 evidence={"rows": 5}, ledger_row=3),
        an_alert(key="other"),
    )  # fmt: skip
    with server.serving() as place:
        EmailOutput(f"smtp://{place}", SENDER, TO).send(batch)
    [mail] = server.mails
    assert mail["Subject"] == (
        "[AIOS] critical: m: Zu viele Zeilen fehlen: 50 % ≈ mehr. (and 1 more)"
    )
    assert (mail["From"], mail["To"]) == ("aios@example.org", "ann@example.org, bob@example.org")
    assert mail["Message-ID"] == "<msg_1@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert parsedate_to_datetime(mail["Date"]) == batch.composed_at.replace(microsecond=0)
    text = mail.get_content()
    for part in ("CRITICAL: Zu viele", '"rows": 5', "docs/runbook.md#data_fault",
                 "aios ledger show --row 3", "WARNING: Half of the rows"):  # fmt: skip
        assert part in text
    assert not [command for command in server.commands if command.startswith("AUTH")]


def test_a_repeat_is_the_same_mail():
    server, batch = MailServer(), a_batch()
    with server.serving() as place:
        for _ in range(2):
            EmailOutput(f"smtp://{place}", SENDER, TO).send(batch)
    assert server.raw[0] == server.raw[1]


def test_no_summary_can_add_a_header_or_a_recipient_or_end_the_mail():
    server = MailServer()
    evil = "x\r\nBcc: eve@example.org\r\n\r\n.\r\nRCPT TO:<eve@example.org>"
    alert = an_alert(
        summary=evil, subject=evil, key=evil, evidence={evil: evil, "dot": "\r\n.\r\n"}
    )
    batch = a_batch(alert).model_copy(update={"subject": evil})
    with server.serving() as place:
        EmailOutput(f"smtp://{place}", SENDER, TO).send(batch)
    [mail] = server.mails
    assert mail["Bcc"] is None
    assert len(mail["Subject"].splitlines()) == 1
    recipients = [command for command in server.commands if command.upper().startswith("RCPT")]
    assert recipients == ["RCPT TO:<ann@example.org>", "RCPT TO:<bob@example.org>"]


def test_a_user_logs_in_and_is_never_said(logged):
    server = MailServer()
    with server.serving() as place:
        EmailOutput(f"smtp://user:pa%40ss@{place}", SENDER, TO).send(a_batch())
        assert "AUTH PLAIN AHVzZXIAcGFAc3M=" in server.commands
        server.refuses = {"AUTH": "535 user pa@ss AHVzZXIAcGFAc3M= is wrong"}
        with pytest.raises(AlertError, match="it answered 535") as raised:
            EmailOutput(f"smtp://user:pa%40ss@{place}", SENDER, TO).send(a_batch())
    said = str(raised.value) + repr(raised.value.__cause__) + logged.text
    for secret in ("user", "pa@ss", "pa%40ss", "AHVz"):
        assert secret not in said


@pytest.mark.parametrize("scheme", ["smtps", "smtp+starttls"])
def test_a_certificate_is_trusted_only_when_it_is_known(tls, certificate, scheme, monkeypatch):
    server = MailServer(tls, at_once=scheme == "smtps")
    with server.serving() as place:
        url = f"{scheme}://user:password@localhost:{place.rpartition(':')[2]}"
        with pytest.raises(AlertError, match="certificate was not accepted"):
            EmailOutput(url, SENDER, TO).send(a_batch())
        assert (server.raw, [c for c in server.commands if c.startswith("AUTH")]) == ([], [])
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        EmailOutput(url, SENDER, TO).send(a_batch())
    assert server.encrypted == [True]


def test_a_server_that_offers_no_encryption_gets_no_mail():
    server = MailServer()
    with server.serving() as place, pytest.raises(AlertError, match="SMTPNotSupportedError"):
        EmailOutput(f"smtp+starttls://{place}", SENDER, TO).send(a_batch())
    assert server.raw == []


def test_a_password_does_not_go_over_a_network_in_the_clear():
    with pytest.raises(SettingsError, match="in the clear") as raised:
        EmailOutput("smtp://user:hidden@mail.example.org", SENDER, TO)
    assert "hidden" not in str(raised.value)
    EmailOutput("smtp://user:hidden@localhost", SENDER, TO)


def test_a_mail_that_one_of_two_gets_is_taken_and_the_other_is_named(logged):
    server = MailServer(refuses={"RCPT TO:<bob@example.org>": "550 nobody"})
    with server.serving() as place:
        EmailOutput(f"smtp://{place}", SENDER, TO).send(a_batch())
        assert "not for bob@example.org" in logged.text
        with pytest.raises(AlertError, match="SMTPRecipientsRefused"):
            EmailOutput(f"smtp://{place}", SENDER, TO[1:]).send(a_batch())
    assert len(server.raw) == 1


@pytest.mark.parametrize(
    ("refuses", "told"),
    [
        ({"MAIL": "451 later"}, "it answered 451"),
        ({"DATA": "554 spam"}, "it answered 554"),
        ({"EHLO": "421 busy", "HELO": "421 busy"}, "it answered 421"),
    ],
)
def test_what_the_server_does_not_take_is_an_error_of_ours(refuses, told):
    server = MailServer(refuses=refuses)
    with server.serving() as place, pytest.raises(AlertError, match=told):
        EmailOutput(f"smtp://{place}", SENDER, TO).send(a_batch())


@pytest.mark.parametrize("goodbye", ["500 what?", ""])
def test_how_the_server_says_goodbye_changes_nothing(goodbye):
    server = MailServer(refuses={"QUIT": goodbye})
    with server.serving() as place:
        EmailOutput(f"smtp://{place}", SENDER, TO).send(a_batch())
    assert len(server.raw) == 1


def test_nobody_there_is_an_error_of_ours():
    with pytest.raises(AlertError, match=r"on 127\.0\.0\.1:1 .*refused"):
        EmailOutput("smtp://127.0.0.1:1", SENDER, TO).send(a_batch())


@pytest.mark.parametrize("url", ["http://a", "smtp://", "a.example", "smtp://a:b:c", "smtp://a\n"])
def test_what_is_no_mail_server_is_refused(url):
    with pytest.raises(SettingsError, match="AIOS_ALERT_SMTP_URL"):
        EmailOutput(url, SENDER, TO)


@pytest.mark.parametrize("address", ["", "bob", "a@b\r\nBcc: eve@example.org", "a@b, c@d", "ä@b.c"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(SettingsError, match="AIOS_ALERT_EMAIL_FROM"):
        EmailOutput("smtp://a", address, TO)
    with pytest.raises(SettingsError, match="AIOS_ALERT_EMAIL_TO"):
        EmailOutput("smtp://a", SENDER, [address])
