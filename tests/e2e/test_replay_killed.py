"""A replay whose process, or whose database, is killed again and again, ends as a calm one does."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.asking import MOST_ATTEMPTS, claimed_run
from aios_platform.components.model_lifecycle.names import COMMAND as COMMAND_TAG
from aios_platform.components.model_lifecycle.names import LAUNCHED_BY_TAG
from aios_platform.components.model_lifecycle.runner import run_until_done
from aios_platform.contracts.replays import Replay
from aios_platform.database import open_database
from aios_platform.errors import LifecycleError
from aios_platform.ledger.entries import entries
from aios_platform.replay import drive
from aios_platform.replay.progress import result_name
from aios_platform.settings import PROJECT_ROOT, Settings
from tests.e2e import replaying, small_flights
from tests.postgres_servers import stop_postgres

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(900),
]

# The command itself, but for the model, which no declaration of the project names.
COMMAND = """
import sys
from aios_platform import definitions, telemetry
from aios_platform.cli import arguments, main
from aios_platform.monitoring import report
from tests.e2e import small_flights
from tests.e2e.replaying import small
report.drift_page = lambda **_: None
telemetry.configure("INFO")
telemetry.configure = lambda *_: None
arguments.names_of = lambda _: small()
definitions.defs = lambda: small_flights.definitions(small())
sys.argv = ["aios", "replay", "flight_delay", "--from", "2013-04", "--to", "2013-06"]
main()
"""


class Command:
    """`aios replay` of the small model, as a process whose progress can be read."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", COMMAND],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PROJECT_ROOT,
            env={k: v for k, v in os.environ.items() if not k.startswith("AIOS_")}
            | {"AIOS_HOME": str(home)},
        )  # fmt: skip
        self.output = ""

    def lines(self) -> Iterator[str]:
        for line in self._process.stdout:
            self.output += line
            yield line

    def until(self, text: str) -> None:
        for line in self.lines():
            if text in line:
                return
        pytest.fail(f"'{text}' was never printed:\n{self.output}")

    def killed_at(self, text: str) -> None:
        self.until(text)
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def finish(self) -> int:
        for _ in self.lines():
            pass
        self._process.communicate()
        return self._process.returncode


@pytest.fixture(scope="module")
def last(grown, young) -> Iterator[tuple[Command, Path, Replay]]:
    """The command that ends what others began, and what the calm replay came to."""
    home, copy, _ = young
    replaying.put_back(copy, home)
    commands = []

    def command() -> Command:
        commands.append(Command(home))
        return commands[-1]

    try:
        command().killed_at("features         2013-05")
        cut_off = command()
        cut_off.until("network 0, epoch 0")
        stop_postgres(home, signal.SIGKILL)
        assert cut_off.finish() == 1, cut_off.output
        told = " ".join(cut_off.output.split())
        assert "error: Postgres" in told
        assert "run the same command again" in told
        assert "Traceback" not in told
        done = command()
        assert done.finish() == 0, done.output
        yield done, home, grown.found
    finally:
        for each in commands:
            each.end()


def test_it_comes_to_the_same_bit_for_bit(last):
    _, home, calm = last
    store = ArtifactStore(str(home / "artifacts"))
    found = Replay.model_validate_json(store.read_named(result_name("flight_delay")))
    assert found.digest == calm.digest
    for one, other in zip(found.windows, calm.windows, strict=True):
        wall = {"seconds", "trainings", "decision"}
        assert one.model_dump(exclude=wall) == other.model_dump(exclude=wall)
        assert one.decision.model_dump(exclude={"ledger_row"}) == other.decision.model_dump(
            exclude={"ledger_row"}
        )
        assert [(t.version, t.verdict) for t in one.trainings] == [
            (t.version, t.verdict) for t in other.trainings
        ]
    assert (found.runs, found.trainings) == (calm.runs, calm.trainings)


def test_nothing_was_done_twice_and_nothing_given_up(last):
    _, home, _ = last
    database = open_database(Settings(home=home))
    rows = entries(database, subject="flight_delay", limit=1000)
    database.close()
    assert not [row for row in rows if row.kind == "gave_up"]
    promotions = [r.payload["champion"]["version"] for r in rows if r.kind == "promotion"]
    assert len(promotions) == len(set(promotions))
    decided = [
        (r.payload["decision"]["window"], r.payload["decision"]["revision"])
        for r in rows if r.kind == "retrain_decision"
    ]  # fmt: skip
    assert len(decided) == len(set(decided))


def test_the_page_is_where_the_command_says(last):
    command, home, _ = last
    page = home / "artifacts" / "reports" / "flight_delay" / "replay" / "2013-04--2013-06.html"
    assert str(page) in command.output.replace("\n", "")
    assert "2013-06" in page.read_text()


def test_a_process_killed_as_often_as_a_run_may_fail_gives_up_nothing_and_no_run_is_forgotten(
    again, monkeypatch
):
    replay = again("2013-06")
    replay.until(closed="2013-05")
    monkeypatch.setattr(drive, "run_until_done", up_to_the_training)
    replay.until(matured="2013-05")
    monkeypatch.undo()
    through = replay.names.declaration.windows.window("2013-05").end
    replay.progress = replay.progress.model_copy(update={"through": through})
    for _ in range(MOST_ATTEMPTS):
        die_in_the_next_run(replay)
        monkeypatch.setattr(drive, "run_until_done", die)
        with pytest.raises(Killed):
            replay.until(matured="2013-05")
    monkeypatch.undo()
    monkeypatch.setattr(drive, "_done", die)
    with pytest.raises(Killed):
        replay.until(matured="2013-05")
    monkeypatch.undo()
    assert [run.job for run in replay.noted().runs[-2:]] == ["score", "measure"]
    assert len(replay.rows("verdict")) == 2, "it had ended, and was not written down"
    replay.until(matured="2013-05")
    measured, trained = replay.progress.runs[-2:]
    assert (measured.job, trained.job) == ("measure", "retrain")
    assert trained.cause == "decision on window 2013-05"
    assert (trained.window, trained.failure) == ("2013-05", "")
    assert 0 < trained.training_seconds < trained.seconds
    assert replay.rows("gave_up") == []
    assert replay.alerts("retraining_failed") == []


class Killed(BaseException):
    """Stands for a process that dies."""


def die(*arguments, **named):
    raise Killed


def up_to_the_training(*arguments, **named):
    for result in run_until_done(*arguments, **named):
        yield result
        if result.run.job == "measure":
            return


def die_in_the_next_run(replay) -> None:
    """Leave what a process leaves that is killed in a run: its claim, and a run that goes on."""
    run_id = str(uuid.uuid4())
    stores, names = replay.stores, replay.names
    clock = names.declaration.windows.window("2013-05").end + timedelta(days=2)
    asked = claimed_run(
        names, replay.instance, stores.artifacts, stores.database, clock, run_id=run_id
    )
    assert str(asked.run.job) == "retrain", asked
    job = small_flights.definitions(names).resolve_job_def(asked.request.job_name)
    replay.instance.create_run_for_job(
        job, run_id=run_id, status=dg.DagsterRunStatus.STARTED,
        tags={**asked.request.tags, LAUNCHED_BY_TAG: COMMAND_TAG},
    )  # fmt: skip


def test_two_replays_of_one_model_are_not_at_work_at_once(again):
    replay = again("2013-06")
    with replay.stores.database.exclusive(f"replay {replay.names.model}") as other:
        assert other.held
        with pytest.raises(LifecycleError, match="is at work here"):
            replay.until(closed="2013-05")
    assert replay.instance.get_runs_count() == 0
