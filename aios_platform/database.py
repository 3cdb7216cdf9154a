"""Postgres: the server (external, or embedded on demand), one database per tool, our migrations.

The embedded server (`embedded.py`) is a laptop's default; `AIOS_DATABASE_URL` names a server of
your own instead.
"""

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

from aios_platform.embedded import CONNECT_TIMEOUT_SECONDS, start_embedded
from aios_platform.errors import DatabaseUnavailable, SettingsError, StoreError
from aios_platform.settings import Settings, settings

# Dagster's and MLflow's tables have the same names, so each tool has a database of its own.
DATABASES = ("aios", "dagster", "mlflow", "feast")
# What a restore fills is called so until it is whole.
RESTORING = "_restoring"
# Number of the lock that who makes the databases holds.
PREPARING = 4207849484
DRIVER = "postgresql+psycopg2"
MIGRATIONS = Path(__file__).parent / "migrations"
# A server that went away without a word is given up after half a minute, not after hours.
TCP_PARAMETERS = {
    "connect_timeout": str(CONNECT_TIMEOUT_SECONDS),
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


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

    @contextmanager
    def connected(self, name: str) -> Iterator[Connection]:
        """A connection of its own to one of our databases; each statement is a transaction.

        Raises:
            DatabaseUnavailable: The server does not answer.
        """
        with self._alone(make_url(self.url(name))) as connection:
            yield connection

    @contextmanager
    def maintenance(self) -> Iterator[Connection]:
        """A connection of its own to the server's maintenance database.

        Raises:
            DatabaseUnavailable: The server does not answer.
        """
        with self._alone(self._server) as connection:
            yield connection

    @contextmanager
    def _alone(self, url: URL) -> Iterator[Connection]:
        engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        try:
            connection = engine.connect()
        except OperationalError as error:
            raise _unavailable(self._server, error) from error
        with connection:
            yield connection

    def prepare(self) -> None:
        """Create missing databases and bring our schema to its newest revision; safe to repeat."""
        try:
            with self.maintenance() as connection:
                connection.execute(text(f"SELECT pg_advisory_lock({PREPARING})"))
                present = set(connection.execute(text("SELECT datname FROM pg_database")).scalars())
                if f"aios{RESTORING}" in present:
                    raise StoreError(
                        f"A restore into {self.place} was begun and not ended.",
                        remedy="Run the same `aios restore` again, which ends it.",
                    )
                for name in DATABASES:
                    if name not in present:
                        connection.execute(text(f'CREATE DATABASE "{name}"'))
                self.migrate()
        except OperationalError as error:
            raise _unavailable(self._server, error) from error
        except ProgrammingError as error:
            raise DatabaseUnavailable(
                f"The databases {', '.join(DATABASES)} could not be prepared on {self.place}: "
                f"{_first_line(error)}",
                remedy="Give the user CREATEDB, or create the databases and make it their owner.",
            ) from error

    def migrate(self) -> None:
        """Bring our schema to its newest revision."""
        if self.revision() == newest_revision():
            return
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["engine"] = self.engine
        command.upgrade(config, "head")

    def revision(self) -> str | None:
        """The revision that our schema is at; None where it was never migrated."""
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
        StoreError: A restore into it was begun and not ended.
    """
    opened = connect_server(configuration)
    opened.prepare()
    return opened


def connect_server(configuration: Settings) -> Database:
    """The server that the settings name, as it is; the embedded one is started.

    Raises:
        SettingsError: The URL is not a Postgres URL.
        DatabaseUnavailable: The embedded server cannot start.
    """
    if configuration.database_url is not None:
        server = parse_server_url(configuration.database_url.get_secret_value())
        return Database(server, embedded=False)
    folder = configuration.home_path / "postgres"
    return Database(parse_server_url(start_embedded(folder)), embedded=True)


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
    missing = {name: value for name, value in TCP_PARAMETERS.items() if name not in url.query}
    return url.update_query_dict(missing)


def connection_string(url: URL) -> tuple[str, str | None]:
    """A URL as libpq's keywords and values, and its password, which is not among them."""
    from psycopg2.extensions import make_dsn

    parts = {"host": url.host, "port": url.port, "user": url.username, "dbname": url.database}
    given = {name: value for name, value in {**parts, **url.query}.items() if value is not None}
    return str(make_dsn(**given)), None if url.password is None else str(url.password)


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
