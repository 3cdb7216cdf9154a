"""A deployment as processes: Postgres over TCP with a password, a window by GraphQL, an answer."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from aios_platform.artifacts import ArtifactStore
from aios_platform.database import connect_server
from aios_platform.embedded import PasswordServer
from aios_platform.settings import PROJECT_ROOT, Settings
from tests.integration.daemon.stand import free_port
from tests.served_models import declare, make_champion, network

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR is not set"),
]
WINDOW = "2013-01"
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
ROW = {"size": 3.5, "weight": 0.25, "colour": "red"}


class Stack:
    def __init__(self, folder: Path) -> None:
        self.home, self.folder = folder / "home", folder
        names = ("port", "code-port", "mlflow-port", "gateway-port", "postgres-port")
        self.ports = {name: free_port() for name in names}
        options = [part for name, port in self.ports.items() for part in (f"--{name}", str(port))]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIOS_", "DAGSTER_"))}
        self.said = (folder / "said").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "aios_platform", "stack", *options,
             "--module", "tests.e2e.still_flights"],
            cwd=PROJECT_ROOT, stdout=self.said, stderr=subprocess.STDOUT,
            env=kept | {"AIOS_HOME": str(self.home), "AIOS_DEFS": str(folder / "defs")},
        )  # fmt: skip

    def output(self) -> str:
        logs = self.home / "stack" / "logs"
        more = "".join(f"\n== {p.name}\n{p.read_text()[-2000:]}" for p in sorted(logs.glob("*")))
        return (self.folder / "said").read_text() + more

    def ready(self, limit: float = 400) -> None:
        end = time.monotonic() + limit
        while "Ctrl-C stops all" not in (self.folder / "said").read_text():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < end, self.output()
            time.sleep(0.5)

    def ask(self, port: str, path: str, body: dict) -> dict:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[port]}{path}",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def graphql(self, query: str, **variables) -> dict:
        found = self.ask("port", "/graphql", {"query": query, "variables": variables})
        assert "errors" not in found, found
        return found["data"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stack")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    declare(folder / "defs")
    running = Stack(folder)
    try:
        running.ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGINT)
            try:
                running.process.wait(120)
            finally:
                running.process.kill()
        running.said.close()


def test_a_window_is_materialised_through_the_web_server(stack):
    launched = stack.graphql(
        LAUNCH,
        params={
            "selector": {
                "repositoryLocationName": "aios_platform",
                "repositoryName": "__repository__",
                "pipelineName": "flight_delay__score",
                "assetSelection": [{"path": ["flight_delay", "raw"]}],
            },
            "executionMetadata": {
                "tags": [
                    {"key": "dagster/partition", "value": WINDOW},
                    {"key": "aios/as_of", "value": "2013-02-10T00:00:00+00:00"},
                ]
            },
            "mode": "default",
        },
    )["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run = launched["run"]["runId"]
    end, status = time.monotonic() + 400, ""
    while status not in ("SUCCESS", "FAILURE", "CANCELED"):
        assert time.monotonic() < end, stack.output()
        time.sleep(1)
        status = stack.graphql(STATUS, id=run)["runOrError"]["status"]
    assert status == "SUCCESS", stack.output()
    store = ArtifactStore(str(stack.home / "stack" / "artifacts"))
    assert store.require("flight_delay/raw/flights", WINDOW).rows > 1000


def test_the_gateway_answers_with_what_was_promoted_in_that_postgres(stack):
    home = stack.home / "stack"
    # It runs: this only reads its password.
    url = PasswordServer(home / "postgres", stack.ports["postgres-port"]).start()
    database = connect_server(Settings(database_url=url, home=home))
    with database.begin() as connection:
        assert connection.execute(text("SELECT current_user")).scalar_one() == "aios"
        assert connection.execute(text("SHOW listen_addresses")).scalar_one() == "127.0.0.1"
    make_champion(database, ArtifactStore(str(home / "artifacts")), network())
    end, answer = time.monotonic() + 120, None
    while answer is None:
        assert time.monotonic() < end, stack.output()
        # 503 until the gateway has seen the promotion.
        with suppress(urllib.error.HTTPError):
            answer = stack.ask("gateway-port", "/v1/models/toy:predict", {"instances": [ROW]})
        time.sleep(0.3)
    assert 0 < answer["predictions"][0]["probability"] < 1
    database.close()


def test_without_the_password_nobody_comes_in(stack):
    import psycopg2

    for user in ("aios", "postgres"):
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(
                host="127.0.0.1", port=stack.ports["postgres-port"], user=user,
                password="guessed", dbname="postgres", connect_timeout=5,
            )  # fmt: skip


def test_a_backup_of_it_goes_over_tcp_and_names_no_password(stack, tmp_path):
    home = stack.home / "stack"
    url = PasswordServer(home / "postgres", stack.ports["postgres-port"]).start()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "aios_platform", "backup", str(tmp_path / "b")],
        cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=200, check=False,
        env=os.environ | {"AIOS_HOME": str(home), "AIOS_DATABASE_URL": url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    password = (home / "postgres" / "password").read_text()
    assert "4 databases" in done.stdout
    assert password not in done.stdout + (tmp_path / "b" / "manifest.json").read_text()
    assert password not in stack.output()


def test_ctrl_c_stops_all_of_it(stack):
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(180) == 0, stack.output()
    for name, port in stack.ports.items():
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
        assert name
