import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from aios_platform.alerts import delivery
from aios_platform.alerts.delivery import anything_due, deliver_due, retry_after, told
from aios_platform.alerts.outbox import alerts, raise_alert, raise_within, resolve
from aios_platform.alerts.outputs import LogOutput, WebhookOutput
from aios_platform.contracts.alerts import Severity
from aios_platform.settings import PROJECT_ROOT
from tests.unit.alerts.receivers import Kept, an_alert

pytestmark = [pytest.mark.postgres]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "a secret that is long enough"


def after(**span) -> datetime:
    return NOW + timedelta(**span)


def test_the_due_alerts_of_one_subject_are_one_message_critical_ones_first(own_database):
    for key, subject, severity in [
        ("a", "m", "warning"), ("b", "n", "warning"), ("c", "m", "critical"), ("d", "m", "warning"),
    ]:  # fmt: skip
        raise_alert(own_database, an_alert(key=key, subject=subject, severity=severity))
    output = Kept()
    assert anything_due(own_database, ["log"], NOW)
    report = deliver_due(own_database, [output], NOW)
    assert (report.sent, report.failed) == (2, 0)
    assert output.keys == [["c", "a", "d"], ["b"]]
    assert not anything_due(own_database, ["log"], NOW)
    deliver_due(own_database, [output], after(days=1))
    assert len(output.batches) == 2


def test_a_flood_is_several_messages_with_the_critical_ones_in_the_first(own_database):
    for n in range(delivery.MOST_IN_MESSAGE + 2):
        raise_alert(own_database, an_alert(key=f"{n}"))
    raise_alert(own_database, an_alert(key="worst", severity=Severity.CRITICAL))
    output = Kept()
    deliver_due(own_database, [output], NOW)
    assert [len(keys) for keys in output.keys] == [delivery.MOST_IN_MESSAGE, 3]
    assert output.keys[0][0] == "worst"


def test_what_is_not_taken_is_sent_again_less_and_less_often_and_not_lost(own_database, logged):
    raise_alert(own_database, an_alert())
    output, moment, waits = Kept(), NOW, []
    output.broken = True
    for _ in range(20):
        assert deliver_due(own_database, [output], moment).failed == 1
        assert not anything_due(own_database, ["log"], moment)
        [one] = told(own_database, 1)
        waits.append(one.next_attempt_at - moment)
        assert deliver_due(own_database, [output], one.next_attempt_at - timedelta(seconds=1)) == (
            delivery.DeliveryReport()
        )
        moment = one.next_attempt_at
    assert waits[:4] == [timedelta(seconds=s) for s in (30, 60, 120, 240)]
    assert waits == sorted(waits)
    assert waits[-1] == delivery.LONGEST_RETRY
    assert (one.state, one.attempts, one.error) == ("pending", 20, "It is down.")
    output.broken = False
    assert deliver_due(own_database, [output], moment).sent == 1
    assert output.keys == [["k"]]
    assert told(own_database, 1)[0].state == "sent"
    assert "Alerts of m will be sent again: It is down." in logged.text


def test_after_three_days_it_is_given_up_and_said(own_database, logged):
    waits = sum((retry_after(n) for n in range(1, delivery.MOST_ATTEMPTS)), timedelta())
    assert timedelta(days=3) <= waits < timedelta(days=3, hours=2)
    raise_alert(own_database, an_alert())
    output = Kept()
    output.broken = True
    deliver_due(own_database, [output], NOW)
    with own_database.begin() as connection:
        connection.execute(
            text("UPDATE alert_message SET attempts = :most - 1"), {"most": delivery.MOST_ATTEMPTS}
        )
    report = deliver_due(own_database, [output], after(hours=1))
    assert (report.failed, report.undeliverable) == (0, 1)
    assert "were given up for the output log after 79 attempts" in logged.text
    assert told(own_database, 1)[0].state == "undeliverable"
    output.broken = False
    assert deliver_due(own_database, [output], after(days=9)).sent == 0


def test_an_output_that_is_down_holds_nobody_up(own_database, configured):
    configured(webhook_url="http://127.0.0.1:1", webhook_secret=SECRET)
    for n in range(8):
        raise_alert(own_database, an_alert(key=f"{n}", subject=f"m{n}"))
    log, web = Kept("log"), Kept("webhook")
    web.broken = True
    report = deliver_due(own_database, [web, log], NOW)
    assert (report.sent, report.failed) == (8, delivery.MOST_FAILURES)
    web.broken = False
    assert deliver_due(own_database, [web, log], NOW).sent == 8 - delivery.MOST_FAILURES
    assert deliver_due(own_database, [web, log], after(minutes=1)).sent == delivery.MOST_FAILURES
    assert Counter(key for [key] in web.keys) == Counter({f"{n}": 1 for n in range(8)})


def test_a_fault_of_an_output_is_a_failed_attempt_and_its_text_is_not_kept(own_database, logged):
    class Faulty:
        name = "log"

        def send(self, batch) -> None:
            raise RuntimeError("https://user:hidden@host")

    raise_alert(own_database, an_alert())
    report = deliver_due(own_database, [Faulty()], NOW)
    [said] = report.failures
    assert said.startswith("RuntimeError in send, line ")
    assert "hidden" not in said + logged.text + str(told(own_database, 1))


def test_what_is_for_an_output_that_is_not_here_waits(own_database, configured):
    configured(webhook_url="http://127.0.0.1:1", webhook_secret=SECRET)
    raise_alert(own_database, an_alert())
    deliver_due(own_database, [Kept("log")], NOW)
    assert {one.output: one.state for one in told(own_database, 1)} == {
        "log": "sent", "webhook": "pending",
    }  # fmt: skip
    web = Kept("webhook")
    assert deliver_due(own_database, [web], NOW).sent == 1


def test_an_output_that_is_new_is_told_of_what_is_open(own_database, configured):
    raise_alert(own_database, an_alert())
    deliver_due(own_database, [Kept("log")], NOW)
    configured(webhook_url="http://127.0.0.1:1", webhook_secret=SECRET)
    assert raise_alert(own_database, an_alert()), "the webhook was not told yet"
    assert not raise_alert(own_database, an_alert())
    log, web = Kept("log"), Kept("webhook")
    deliver_due(own_database, [log, web], NOW)
    assert (log.keys, web.keys) == ([], [["k"]])


def test_a_clock_that_went_back_does_not_hold_up_what_waits(own_database):
    raise_alert(own_database, an_alert())
    output = Kept()
    output.broken = True
    deliver_due(own_database, [output], after(days=2))
    output.broken = False
    assert not anything_due(own_database, ["log"], after(days=2, seconds=1))
    assert deliver_due(own_database, [output], NOW).sent == 1


def test_a_message_stays_as_it_was_composed(own_database):
    raise_alert(own_database, an_alert(evidence={"n": 1}))
    output, sent = Kept(), []
    output.send = sent.append
    deliver_due(own_database, [output], NOW)
    with own_database.begin() as connection:
        connection.execute(text("UPDATE alert_message SET state = 'pending'"))
    raise_alert(own_database, an_alert(evidence={"n": 2}))
    resolve(own_database, "k")
    deliver_due(own_database, [output], after(hours=1))
    assert sent[0] == sent[1]


def test_a_webhook_that_is_down_for_hours_gets_it_once_with_one_id(own_database, configured, web):
    configured(webhook_url=web.url, webhook_secret=SECRET)
    raise_alert(own_database, an_alert())
    web.answers = [500, 503, 302]
    output, moment = WebhookOutput(web.url, SECRET), NOW
    while deliver_due(own_database, [output], moment).failed:
        moment += timedelta(hours=1)
    assert moment == after(hours=3)
    assert len(web.ids) == 4
    assert len(set(web.ids)) == 1
    assert len({body for _, _, body in web.requests}) == 1


DELIVERER = """
import os, signal, sys
from datetime import UTC, datetime
from aios_platform.alerts.delivery import deliver_due
from aios_platform.alerts.outputs import WebhookOutput
from aios_platform.database import Database, parse_server_url
server, name, url, kill = sys.argv[1:]
class Scratch(Database):
    def url(self, _):
        return self._server.set(database=name).render_as_string(hide_password=False)
class Killed(WebhookOutput):
    def send(self, batch):
        super().send(batch)
        if kill == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
database = Scratch(parse_server_url(server), embedded=False)
outputs = [Killed(url, "a secret that is long enough")]
deliver_due(database, outputs, datetime.now(UTC))
print("ready", flush=True)
sys.stdin.readline()
print(deliver_due(database, outputs, datetime.now(UTC)).sent)
"""


def deliverer(own_database, web, how="live") -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", DELIVERER, own_database.server_url,
         own_database.name, web.url, how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT,
        env={name: v for name, v in os.environ.items() if not name.startswith("AIOS_ALERT")},
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_deliverers_at_once_send_nothing_twice(own_database, configured, web):
    configured(webhook_url=web.url, webhook_secret=SECRET)
    both = [deliverer(own_database, web) for _ in range(2)]
    for n in range(60):
        raise_alert(own_database, an_alert(key=f"{n}", subject=f"m{n % 30}"))
    web.delay = 0.02
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    sent = [int(process.communicate(timeout=60)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(sent) == len(web.ids) == len(set(web.ids)) == 30
    assert min(sent) > 0, "they were not at work at the same time"
    assert not anything_due(own_database, ["webhook"], after(days=-400))


def test_killed_between_sending_and_recording_it_is_repeated_with_the_same_id(
    own_database, configured, web
):
    configured(webhook_url=web.url, webhook_secret=SECRET)
    process = deliverer(own_database, web, "kill")
    raise_alert(own_database, an_alert())
    process.communicate("go\n", timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert len(web.ids) == 1
    assert {one.state for one in told(own_database, 1)} == {"pending"}
    raise_alert(own_database, an_alert(key="later"))
    output, limit = WebhookOutput(web.url, SECRET), time.monotonic() + 20
    # The row is free as soon as the server sees that the process is gone.
    while anything_due(own_database, ["webhook"], datetime.now(UTC)):
        deliver_due(own_database, [output], datetime.now(UTC))
        assert time.monotonic() < limit
    assert len(web.ids) == 3
    assert Counter(web.ids)[web.ids[0]] == 2
    repeats = {body for _, headers, body in web.requests if headers["webhook-id"] == web.ids[0]}
    assert len(repeats) == 1
    assert b"later" not in repeats.pop()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("raise"), st.sampled_from("ab"), st.booleans()),
        st.tuples(st.just("resolve"), st.sampled_from("ab"), st.none()),
        st.tuples(st.just("deliver"), st.none(), st.booleans()),
        st.tuples(st.just("die"), st.none(), st.none()),
    ),
    max_size=14,
)


@given(STEPS)
@settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
def test_each_open_occurrence_is_told_exactly_once_whatever_happens(own_database, steps):
    """Held against a model: by id of the message, which is what a receiver drops repeats by."""
    with own_database.begin() as connection:
        connection.execute(text("TRUNCATE alert, alert_message, alert_delivery RESTART IDENTITY"))
    is_open: dict[str, int] = {}
    wanted, occurrence, moment = set(), 0, NOW
    output = Kept()
    taken: dict[str, list[int]] = {}

    def deliver() -> None:
        deliver_due(own_database, [output], moment)
        for batch in output.batches:
            ids = [raised.id for raised in batch.alerts]
            assert taken.setdefault(batch.id, ids) == ids

    for step, key, flag in steps:
        moment += timedelta(hours=2)
        if step == "raise":
            if key not in is_open:
                occurrence += 1
                is_open[key] = occurrence
            news = raise_alert(own_database, an_alert(key=key), deliver=flag)
            number = alerts(own_database, open_only=True, limit=9)
            number = next(found.id for found in number if found.alert.key == key)
            if flag:
                assert news or number in wanted
                wanted.add(number)
        elif step == "resolve":
            assert resolve(own_database, key) is (is_open.pop(key, None) is not None)
        elif step == "deliver":
            output.broken = flag
            deliver()
        else:
            # What it looks like when it was sent and not recorded.
            with own_database.begin() as connection:
                connection.execute(text("UPDATE alert_message SET state = 'pending', attempts = 0"))
    output.broken = False
    moment += timedelta(hours=2)
    deliver()
    counted = Counter(number for ids in taken.values() for number in ids)
    assert counted == Counter(dict.fromkeys(wanted, 1))
    assert len(alerts(own_database, open_only=True)) == len(is_open)
    assert len(alerts(own_database)) == occurrence


def test_an_alert_that_is_being_raised_is_told_when_that_is_done(own_database):
    output = Kept()
    with own_database.begin() as connection:
        raise_within(connection, an_alert())
        assert deliver_due(own_database, [output], NOW).sent == 0
    assert deliver_due(own_database, [output], NOW).sent == 1


def test_the_log_has_one_line_an_alert(own_database, logged):
    raise_alert(own_database, an_alert(severity=Severity.CRITICAL, evidence={"a": "x\ny"}))
    raise_alert(own_database, an_alert(key="b", summary="one\nALERT 9, forged"))
    deliver_due(own_database, [LogOutput()], NOW)
    lines = [record.getMessage() for record in logged.records if "ALERT" in record.getMessage()]
    assert lines == [
        "ALERT 1, critical, m: Half of the rows are missing. See docs/runbook.md#data_fault. "
        'Evidence: {"a": "x\\ny"}',
        "ALERT 2, warning, m: one ALERT 9, forged See docs/runbook.md#data_fault. Evidence: {}",
    ]
