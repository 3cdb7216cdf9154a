"""The command killed in the middle of everything, and typed again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.database import open_database
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import entries
from aios_platform.settings import PROJECT_ROOT, Settings
from tests.e2e import small_flights
from tests.postgres_servers import stop_postgres

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.timeout(900),
    pytest.mark.long,
]

COMMAND = """
from datetime import UTC, datetime
from aios_platform import telemetry
from aios_platform.cli.arguments import code_location
from aios_platform.components.model_lifecycle.runner import run_until_done
from aios_platform.errors import AiosError
from tests.e2e import small_flights
telemetry.configure("INFO")
names = small_flights.names()
_, instance, store, database = code_location()
as_of = datetime(2013, 7, 10, tzinfo=UTC)
definitions = small_flights.definitions(names)
try:
    for result in run_until_done(names, definitions, instance, store, database, as_of):
        print("done:", result.run.job, flush=True)
except AiosError as error:
    raise SystemExit(f"error: {error}")
print("finished", flush=True)
"""


class Command:
    """`aios run` of the small model, as a process whose progress can be read."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND],
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

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def finish(self) -> int:
        for _ in self.lines():
            pass
        self._process.communicate()
        return self._process.returncode


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def last(home) -> Command:
    """The command after it was killed in four places and lost its database once."""
    for moment in ("raw              2013-01", "online_features  2013-01", "network 0, epoch 0"):
        command = Command(home)
        command.until(moment)
        command.kill()
    command = Command(home)
    command.until("candidate        4 windows")
    stop_postgres(home, signal.SIGKILL)
    assert command.finish() != 0
    [told] = [line for line in command.output.splitlines() if line.startswith("error:")]
    assert "Postgres" in told
    assert "run the same command again" in told
    command = Command(home)
    command.until("verdict          promote")
    command.kill()
    command = Command(home)
    assert command.finish() == 0, command.output
    return command


def test_the_last_command_finishes_what_the_others_began(last):
    assert last.output.rstrip().endswith("finished")


def test_there_is_one_champion_and_one_promotion(last, home):
    database = open_database(Settings(home=home))
    champion = champion_of(database, "flight_delay")
    assert champion.trained_through == "2013-04"
    assert len(entries(database, subject="flight_delay", kind="promotion")) == 1
    windows = [
        row.payload["decision"]["window"]
        for row in entries(database, subject="flight_delay", kind="retrain_decision")
    ]
    assert sorted(windows) == ["2013-05", "2013-06"]
    database.close()


def test_the_same_training_data_gave_one_registered_version(last, home):
    database = open_database(Settings(home=home))
    from aios_platform.registry.store import ModelRegistry

    registry = ModelRegistry(database.url("mlflow"), str(home / "artifacts" / "mlflow"))
    versions = registry.versions("flight_delay")
    assert len({version.digest for version in versions}) == len(versions) == 1
    assert registry.champion_alias("flight_delay") == versions[0].version
    database.close()


def test_no_row_was_lost_or_doubled(last, home):
    store = ArtifactStore(str(home / "artifacts"))
    names = small_flights.names()
    for key in ("2013-05", "2013-06"):
        raw = store.require(names.raw_rows, key)
        assert raw.version == 1
        predictions = store.require(names.predictions, key)
        assert predictions.version == 1
        assert predictions.rows == raw.rows


def test_the_online_store_has_every_window(last, home):
    from aios_platform.features.store import open_feature_store

    database = open_database(Settings(home=home))
    store = open_feature_store(Settings().feature_repo, database.url("feast"))
    online = store._get_provider().online_store
    # The repository has views of other models, too.
    views = [view.name for view in store.list_feature_views(tags={"model": "flight_delay"})]
    assert len(views) == len(small_flights.names().feature_tables)
    months = {f"2013-{month:02}" for month in range(1, 7)}
    for view in views:
        assert set(online.materialized(store.config, view)) == months
    database.close()
