"""`aios queue` and `aios worker` as a person or a pipeline runs them."""

import io
import json
import sys

import pytest

from aios_platform.access.principals import acting_with, add
from aios_platform.cli import main
from aios_platform.serving.postgres_queue import PostgresQueue
from aios_platform.serving.queue import Failed, Fault, Scored
from tests.unit.serving.queues import results, waiting

pytestmark = [pytest.mark.postgres]
MODEL = "flight_delay"


@pytest.fixture
def aios(own_database, monkeypatch, capsys):
    """Runs a command on a queue of the test's own; status and output."""
    monkeypatch.setattr("aios_platform.database.database", lambda: own_database)
    monkeypatch.setattr("aios_platform.serving.queue_scorer.database", lambda: own_database)
    # A worker sets it; for the rest of this process it is as before.
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    # It takes log lines and warnings away from the test.
    monkeypatch.setattr("aios_platform.telemetry.configure", lambda _: None)

    def run(*arguments: str, given: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["aios", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    return run


@pytest.fixture
def queue(own_database):
    return PostgresQueue(own_database)


def test_put_shows_in_the_status_and_its_result_when_it_is_there(aios, queue, tmp_path):
    file = tmp_path / "body.json"
    file.write_text('{"instances": []}')
    assert aios("queue", MODEL, "put", "--key", "a", "--body", str(file)) == (0, "")
    assert aios("queue", MODEL, "put", "--key", "b", given='{"instances": [1]}') == (0, "")
    assert aios("queue", MODEL)[1].startswith(f"{MODEL}: 2 due, 0 held or to be tried again")
    assert aios("queue", MODEL, "result", "--key", "a") == (3, "")
    queue.settle([Scored(message, "3", '{"p": 0.5}') for message in queue.take(MODEL, 1)])
    assert json.loads(aios("queue", MODEL, "result", "--key", "a")[1]) == {"p": 0.5}
    assert json.loads(aios("queue", MODEL, "result", "--key", "a", "--json")[1])["version"] == "3"
    state = json.loads(aios("queue", MODEL, "status", "--json")[1])
    assert (state["waiting"], state["scored"], state["dead"]) == (1, 1, 0)


def test_dead_letters_are_listed_and_put_back(aios, queue, own_database):
    for key in ("a", "b", "c"):
        queue.put(MODEL, key, {})
    queue.settle([Failed(m, f"odd {m.key}", Fault.MESSAGE) for m in queue.take(MODEL, 3)])
    code, said = aios("queue", MODEL, "dead", "--limit", "2")
    assert (code, [line.split()[2] for line in said.splitlines()]) == (0, ["c", "b"])
    assert "odd c" in said
    assert len(aios("queue", MODEL, "dead", "--json")[1].splitlines()) == 3
    assert aios("queue", MODEL, "retry", "--key", "a", "--key", "b") == (
        0, "Messages put back: 2.\n",
    )  # fmt: skip
    assert set(waiting(own_database)) == {"a", "b"}
    assert json.loads(aios("queue", MODEL, "retry", "--json")[1]) == {"retried": 1}


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (("put",), "{}"), (("put", "--key", "a"), "[1]"), (("put", "--key", "a"), "{"),
        (("put", "--key", "a"), '{"a": NaN}'), (("put", "--key", "a", "--key", "b"), "{}"),
        (("put", "--key", "a", "--body", "nowhere.json"), ""), (("result",), ""),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_misused_is_an_error_and_puts_nothing(aios, own_database, arguments, given):
    assert aios("queue", MODEL, *arguments, given=given)[0] == 1
    assert waiting(own_database) == {}


def test_an_unknown_model_is_named(aios):
    for arguments in (("queue", "flight_dealy"), ("worker", MODEL, "flight_dealy", "--once")):
        code, said = aios(*arguments)
        assert code == 1
        assert "Did you mean 'flight_delay'?" in said


def test_feeding_it_needs_the_role_operator(aios, own_database, queue):
    with acting_with(add(own_database, "root", ["admin"])):
        key = add(own_database, "ann", ["auditor"])
    with acting_with(key):
        for arguments in (("put", "--key", "a"), ("retry",)):
            code, said = aios("queue", MODEL, *arguments, given="{}")
            assert (code, "does not hold the role operator" in said) == (1, True)
    assert waiting(own_database) == {}


def test_without_a_champion_a_worker_leaves_messages_where_they_are(aios, own_database, queue):
    queue.put(MODEL, "a", {"instances": []})
    assert aios("worker", MODEL, "--once") == (0, "Messages scored: 0.\n")
    attempts, error, _ = waiting(own_database)["a"]
    assert (attempts, error.split(":")[0], results(own_database)) == (0, "no_champion", {})
