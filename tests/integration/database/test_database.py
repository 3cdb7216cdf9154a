"""The embedded server under the faults that a laptop gives it, and a server reached over TCP."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from aios_platform.database import DATABASES, open_database, parse_server_url, place_of
from aios_platform.errors import DatabaseUnavailable, SettingsError
from aios_platform.settings import Settings

pytestmark = [pytest.mark.postgres]

OPEN = """
import sys, time
from pathlib import Path
from sqlalchemy import text
from aios_platform.database import open_database
from aios_platform.settings import Settings
opened = open_database(Settings(home=Path(sys.argv[1])))
with opened.begin() as connection:
    print(connection.execute(text("SELECT count(*) FROM ledger")).scalar(), flush=True)
if len(sys.argv) > 2:
    time.sleep(float(sys.argv[2]))
"""


def python(home: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(home), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("AIOS_")},
    )


def postmaster(home: Path) -> int:
    return int((home / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def succeeded(process: subprocess.Popen[str]) -> bool:
    output, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    return output.strip() == "0"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    return folder


def test_three_processes_that_start_it_at_once_all_get_it(home):
    started = [python(home) for _ in range(3)]
    assert [succeeded(process) for process in started] == [True] * 3


def test_it_starts_again_and_stops_with_its_last_user(home):
    first = python(home, "30")
    assert first.stdout.readline().strip() == "0"
    pid = postmaster(home)
    assert succeeded(python(home))
    assert psutil.pid_exists(pid), "the first user still needs it"
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=30)
    wait_until(lambda: not psutil.pid_exists(pid))


def test_it_starts_after_its_owner_and_itself_were_killed(home):
    owner = python(home, "60")
    assert owner.stdout.readline().strip() == "0"
    os.kill(owner.pid, signal.SIGKILL)
    server = psutil.Process(postmaster(home))
    for process in [server, *server.children(recursive=True)]:
        process.kill()
    owner.communicate(timeout=30)
    assert succeeded(python(home))


def test_a_stale_note_of_a_process_that_is_somebody_elses_is_not_believed(home):
    assert succeeded(python(home))
    note = home / "postgres" / "postmaster.pid"
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        lines = [str(bystander.pid), str(home / "postgres"), "1", "5432", str(home / "postgres")]
        note.write_text("\n".join([*lines, "", "0 0", "ready   ", ""]))
        assert succeeded(python(home))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_killed_owner_leaves_a_server_that_the_next_one_joins_and_stops(home):
    owner = python(home, "60")
    assert owner.stdout.readline().strip() == "0"
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate(timeout=30)
    pid = postmaster(home)
    assert succeeded(python(home))
    wait_until(lambda: not psutil.pid_exists(pid))


def test_a_kill_during_the_first_initialisation_leaves_no_half_cluster(tmp_path):
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    owner = python(tmp_path)
    wait_until(lambda: (tmp_path / "postgres.initialising").exists())
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate(timeout=30)
    assert not (tmp_path / "postgres").exists()
    assert succeeded(python(tmp_path))


def test_every_tool_has_its_own_database(database):
    from sqlalchemy import create_engine, text

    engine = create_engine(database.server_url)
    with engine.connect() as connection:
        names = set(connection.execute(text("SELECT datname FROM pg_database")).scalars())
    engine.dispose()
    assert set(DATABASES) <= names
    assert database.url("dagster").startswith("postgresql+psycopg2://")


def test_a_server_that_is_down_is_named_without_its_password():
    settings = Settings(database_url="postgresql://aios:s3cret@127.0.0.1:9/postgres")
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:9 does not answer") as caught:
        open_database(settings)
    assert "s3cret" not in str(caught.value)
    assert "AIOS_DATABASE_URL" in caught.value.remedy


@pytest.mark.parametrize(
    "wrong", ["not a url", "mysql://u:s3cret@h/db", "://s3cret", "postgresql://u:p@s3cret:x@h/d"]
)
def test_a_wrong_url_is_refused_without_repeating_it(wrong):
    with pytest.raises(SettingsError, match="AIOS_DATABASE_URL") as caught:
        parse_server_url(wrong)
    assert "s3cret" not in str(caught.value)


def test_a_bare_url_gets_the_driver_that_dagster_can_use():
    url = parse_server_url("postgresql://u:p@db.example:5433")
    assert url.drivername == "postgresql+psycopg2"
    assert url.database == "postgres"
    assert place_of(url) == "db.example:5433"


def wait_until(condition, seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "did not happen in time"
        time.sleep(0.02)


def test_an_exclusive_lock_that_was_let_go_is_free_at_once(database):
    for _ in range(200):
        with database.exclusive("again and again") as lock:
            assert lock.held


def test_an_exclusive_lock_is_had_once_and_freed_with_its_holder(database):
    with (
        database.exclusive("a model's plan") as first,
        database.exclusive("a model's plan") as second,
        database.exclusive("another's") as other,
    ):
        assert (first.held, second.held, other.held) == (True, False, True)
        assert first.still_held()
        assert not second.still_held()
    with database.exclusive("a model's plan") as again:
        assert again.held
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from aios_platform.database import Database; "
            "from sqlalchemy import make_url; "
            "lock = Database(make_url(sys.argv[1]), embedded=False).exclusive('killed'); "
            "print(lock.__enter__().held, flush=True); time.sleep(60)",
            database.server_url,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "True"
    with database.exclusive("killed") as held:
        assert not held.held
    holder.kill()
    holder.wait(10)
    holder.stdout.close()
    deadline = time.monotonic() + 20
    freed = False
    while not freed and time.monotonic() < deadline:
        with database.exclusive("killed") as lock:
            freed = lock.held
        time.sleep(0.05)
    assert freed
