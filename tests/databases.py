"""Databases of one test's own, beside the shared one, on the same embedded server."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, text

from aios_platform.database import Database


class ScratchDatabase(Database):
    """Our schema in a database of another name.

    Args:
        beside: Whose server to use.
        name: Name of the database.
        user: Role to connect as; default the server's superuser.
    """

    def __init__(self, beside: Database, name: str, user: str | None = None) -> None:
        server = beside._server if user is None else beside._server.set(username=user)
        super().__init__(server, embedded=beside.embedded)
        self.name = name

    def url(self, name: str) -> str:
        ours = self.name if name == "aios" else name
        return self._server.set(database=ours).render_as_string(hide_password=False)

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = create_engine(self.url("aios"), pool_size=2, max_overflow=60)
        return self._engine

    def create(self, *, template: str | None = None, owner: str | None = None) -> None:
        """Create it: a copy of another, or migrated to the newest revision."""
        of, by = (f" TEMPLATE {template}" if template else "", f" OWNER {owner}" if owner else "")
        with self.maintenance() as connection:
            connection.execute(text(f"CREATE DATABASE {self.name}{of}{by}"))
            # A test's rows need not survive a power cut.
            connection.execute(text(f"ALTER DATABASE {self.name} SET synchronous_commit = off"))
        if template is None:
            self.migrate()

    def drop(self) -> None:
        self.close()
        with self.maintenance() as connection:
            connection.execute(text(f"DROP DATABASE {self.name} WITH (FORCE)"))

    @contextmanager
    def maintenance(self) -> Iterator:
        """A connection of the superuser to the server's maintenance database."""
        server = self._server.set(username="postgres")
        engine = create_engine(server, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()

    @contextmanager
    def tampering(self) -> Iterator:
        """A transaction of a superuser who has switched the ledger's triggers off."""
        with self.engine.begin() as connection:
            for table in ("ledger", "ledger_head", "champion"):
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            yield connection
            guards = connection.execute(
                text(
                    "SELECT relname, tgname FROM pg_trigger "
                    "JOIN pg_class ON pg_class.oid = tgrelid WHERE NOT tgisinternal "
                    "AND relname IN ('ledger', 'ledger_head', 'champion')"
                )
            )
            for table, trigger in guards.all():
                connection.execute(text(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"))
