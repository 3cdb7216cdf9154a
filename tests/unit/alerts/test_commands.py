"""`aios alerts` as a person or a pipeline runs it."""

import json
import sys

import pytest

from aios_platform.access.principals import acting_with, add
from aios_platform.alerts.outbox import alert_of, raise_alert
from aios_platform.cli import main
from aios_platform.contracts.alerts import Severity
from tests.unit.alerts.receivers import MailServer, an_alert

pytestmark = [pytest.mark.postgres]
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture
def aios(own_database, monkeypatch, capsys):
    """Runs a command on alerts of the test's own; status and output."""
    monkeypatch.setattr("aios_platform.database.database", lambda: own_database)
    # It takes log lines and warnings away from the test.
    monkeypatch.setattr("aios_platform.telemetry.configure", lambda _: None)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["aios", "alerts", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    return run


def test_list_shows_what_is_open_and_on_request_what_was(aios, own_database):
    assert aios("list") == (0, "No open alert.\n")
    raise_alert(own_database, an_alert(key="a"))
    raise_alert(own_database, an_alert(key="b", subject="n", severity=Severity.CRITICAL))
    raise_alert(own_database, an_alert(key="b", subject="n"))
    code, said = aios("list")
    assert (code, [line.split()[0] for line in said.splitlines()]) == (0, ["2", "1"])
    assert "critical n" in said
    assert "2 x  Half of the rows are missing." in said
    assert [json.loads(line)["id"] for line in aios("list", "m", "--json")[1].splitlines()] == [1]
    assert aios("resolve", "1", "--reason", "mended")[0] == 0
    assert [line.split()[0] for line in aios("list")[1].splitlines()] == ["2"]
    assert "(resolved by user:" in aios("list", "--all")[1]


def test_show_has_the_evidence_what_to_do_and_who_was_told(aios, own_database):
    raise_alert(own_database, an_alert(evidence={"rows": 5}, ledger_row=3))
    code, said = aios("show", "1")
    assert code == 0
    for part in ('"rows": 5', "docs/runbook.md#data_fault", "aios ledger show --row 3",
                 "told      log: pending"):  # fmt: skip
        assert part in said
    found = json.loads(aios("show", "1", "--json")[1])
    assert (found["alert"]["kind"], found["outputs"][0]["state"]) == ("data_fault", "pending")
    raise_alert(own_database, an_alert(key="past"), deliver=False)
    assert "told      nobody" in aios("show", "2")[1]
    code, said = aios("show", "9")
    assert (code, "no alert 9" in said) == (1, True)


def test_resolve_keeps_who_and_why_and_needs_an_operator(aios, own_database):
    raise_alert(own_database, an_alert())
    code, said = aios("resolve", "1", "--reason", " ")
    assert (code, "no reason given" in said) == (1, True)
    with acting_with(add(own_database, "root", ["admin"])):
        auditor = add(own_database, "ann", ["auditor"])
        operator = add(own_database, "bob", ["operator"])
    with acting_with(auditor):
        code, said = aios("resolve", "1", "--reason", "x")
    assert (code, "ann does not hold the role operator" in said) == (1, True)
    assert alert_of(own_database, 1).resolved_at is None
    with acting_with(operator):
        code, said = aios("resolve", "1", "--reason", "the feed was mended")
    assert (code, "by bob: the feed was mended" in said) == (0, True)
    assert alert_of(own_database, 1).resolved_by == "bob"


def test_test_says_of_each_output_whether_it_took_it(aios, configured, web):
    code, said = aios("test")
    assert (code, said.splitlines()[0]) == (0, "log      delivered")
    assert "Only the log is told" in said
    server = MailServer()
    with server.serving() as place:
        configured(
            webhook_url=web.url,
            webhook_secret=SECRET,
            smtp_url=f"smtp://{place}",
            email_from="aios@example.org",
            email_to="ann@example.org, bob@example.org,",
        )
        code, said = aios("test")
        assert (code, said.splitlines()) == (
            0, ["log      delivered", "webhook  delivered", "email    delivered"],
        )  # fmt: skip
        web.answers = [500]
        server.refuses = {"MAIL": "451 later"}
        code, said = aios("test")
    assert code == 1
    assert "webhook  The webhook on http://127.0.0.1" in said
    assert "it answered 451" in said
    [mail] = server.mails
    assert "nothing is wrong" in mail["Subject"]
    assert json.loads(web.requests[0][2])["data"]["alerts"][0]["kind"] == "test"
    found = [json.loads(line) for line in aios("test", "--json")[1].splitlines()]
    assert [(one["output"], one["delivered"]) for one in found] == [
        ("log", True), ("webhook", True), ("email", False),
    ]  # fmt: skip


def test_deliver_sends_what_is_due_and_fails_where_something_was_not_taken(
    aios, own_database, configured, web
):
    configured(webhook_url=web.url, webhook_secret=SECRET)
    raise_alert(own_database, an_alert())
    web.answers = [500]
    code, said = aios("deliver")
    assert code == 1
    assert "sent: 1, to be sent again: 1, given up: 0." in said
    assert "it answered 500" in said
    assert aios("deliver") == (0, "Messages sent: 0, to be sent again: 0, given up: 0.\n")
    raise_alert(own_database, an_alert(key="other"))
    code, said = aios("deliver", "--json")
    assert (code, json.loads(said)["sent"]) == (0, 2)
    assert SECRET not in said


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"webhook_url": "http://a"}, "AIOS_ALERT_WEBHOOK_SECRET"),
        ({"webhook_secret": SECRET, "webhook_url": " "}, "AIOS_ALERT_WEBHOOK_URL"),
        ({"smtp_url": "smtp://a"}, "AIOS_ALERT_EMAIL_FROM and AIOS_ALERT_EMAIL_TO"),
        ({"smtp_url": "smtp://a", "email_from": "a@b", "email_to": " , "}, "AIOS_ALERT_EMAIL_TO"),
        ({"email_to": "a@b"}, "AIOS_ALERT_SMTP_URL and AIOS_ALERT_EMAIL_FROM"),
    ],
)
def test_half_an_output_is_an_error_that_names_the_other_half(configured, variables, named):
    from aios_platform.errors import SettingsError

    with pytest.raises(SettingsError, match=f"is set without {named}") as raised:
        configured(**variables)
    assert SECRET not in str(raised.value)


def test_without_settings_only_the_log_is_told(configured):
    from aios_platform.alerts.outputs import configured_outputs

    assert configured().alert_outputs == ("log",)
    both = configured(webhook_url="http://a", webhook_secret=SECRET, smtp_url="smtp://a",
                      email_from="a@b", email_to="c@d")  # fmt: skip
    names = tuple(output.name for output in configured_outputs(both))
    assert names == both.alert_outputs == ("log", "webhook", "email")
