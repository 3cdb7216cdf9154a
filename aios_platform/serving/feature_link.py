"""The connection to the online store: one statement, prepared once, without a thread.

Postgres is spoken to through libpq itself (`psycopg.pq`) on the event loop: a cursor costs ten
times the processor time of the exchange. A store that does not answer is probed by one task,
while reads fail at once.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

import psycopg
from psycopg import pq, sql
from sqlalchemy import make_url

from aios_platform.errors import DatabaseUnavailable, FeatureError

logger = logging.getLogger(__name__)

NAME = b"aios_online_read"
BYTEA_ARRAY = 1001
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
SETTINGS = (
    "SET default_transaction_read_only = on; SET jit = off; "
    "SET max_parallel_workers_per_gather = 0; SET plan_cache_mode = force_generic_plan; "
    "SET enable_seqscan = off; SET enable_bitmapscan = off; "
)
# Classes of SQLSTATE that say that a statement is wrong, not that the server is in trouble.
WRONG = ("0A", "22", "26", "42")

Answer = tuple[bytes | None, ...]


class PreparedConnection:
    """A connection with the statement prepared on it.

    Args:
        connection: The open connection.
        on_lost: Called once when it breaks.
    """

    def __init__(self, connection: psycopg.AsyncConnection, on_lost: Callable[[], None]) -> None:
        # Kept, or it would close what it was opened for.
        self._connection = connection
        self._pgconn = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._socket = connection.fileno()
        self._on_lost = on_lost
        self._answer: asyncio.Future[pq.abc.PGresult] | None = None
        self._result: pq.abc.PGresult | None = None
        self.lost = False
        self._loop.add_reader(self._socket, self._readable)

    async def prepare(self, statement: bytes, parameters: int) -> None:
        """Prepare the statement.

        Raises:
            FeatureError: The server refuses it.
            DatabaseUnavailable: The connection broke.
        """
        types = [BYTEA_ARRAY] * parameters
        await self._exchange(lambda: self._pgconn.send_prepare(NAME, statement, types))

    async def fetch(self, parameters: Sequence[bytes]) -> Answer:
        """Run the statement.

        Raises:
            FeatureError: The server refuses it.
            DatabaseUnavailable: The connection broke.
        """
        formats = [1] * len(parameters)
        result = await self._exchange(
            lambda: self._pgconn.send_query_prepared(NAME, parameters, formats, 1)
        )
        return tuple(result.get_value(0, column) for column in range(result.nfields))

    async def _exchange(self, send: Callable[[], None]) -> pq.abc.PGresult:
        if self.lost:
            raise _unavailable("the connection is closed")
        self._answer = self._loop.create_future()
        self._result = None
        try:
            send()
            self._flush()
            result = await self._answer
        except psycopg.Error as error:
            self.close()
            raise _unavailable(_first_line(str(error))) from error
        finally:
            self._answer = None
        if result.status in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            return result
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        message = _first_line(result.get_error_message())
        if state[:2] in WRONG:
            raise FeatureError(
                f"The online store refuses to read the model's features: {message}",
                remedy="Apply the Feast repository and materialize the asset 'online_features'.",
            )
        self.close()
        raise _unavailable(message)

    def _flush(self) -> None:
        try:
            if self._pgconn.flush():
                self._loop.add_writer(self._socket, self._flush)
            else:
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._break(error)

    def _readable(self) -> None:
        try:
            self._pgconn.consume_input()
            while not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    break
                self._result = result
            else:
                return
        except psycopg.Error as error:
            self._break(error)
            return
        if self._result is not None and self._answer is not None and not self._answer.done():
            self._answer.set_result(self._result)

    def _break(self, error: psycopg.Error) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self.lost:
            return
        self.lost = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._pgconn.finish()
        self._on_lost()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(psycopg.OperationalError("the connection was closed"))


class StoreLink:
    """Keeps a prepared connection to the store, for one exchange at a time.

    Args:
        url: SQLAlchemy URL of Feast's database.
        statement: What is prepared.
        parameters: How many parameters it has, each a `bytea[]`.
        schema: Postgres schema of the tables, before `public`.
        connect_seconds: Longest wait for a connection.
        statement_seconds: Longest wait for an answer.
    """

    def __init__(
        self,
        url: str,
        statement: sql.Composed,
        parameters: int,
        schema: str,
        *,
        connect_seconds: float,
        statement_seconds: float,
    ) -> None:
        address = make_url(url).set(drivername="postgresql")
        self._url = address.render_as_string(hide_password=False)
        self._place = f"{address.host or address.query.get('host', 'the local socket')}"
        self._statement = statement
        self._parameters = parameters
        self._settings = sql.SQL(SETTINGS) + sql.SQL(
            "SET statement_timeout = {}; SET search_path = {}, public"
        ).format(sql.Literal(max(1, int(statement_seconds * 1000))), sql.Identifier(schema))
        self._connect_seconds = connect_seconds
        self._statement_seconds = statement_seconds
        self._connection: PreparedConnection | None = None
        self._refused: FeatureError | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._closed = False
        self.reachable = True

    async def fetch(self, parameters: Sequence[bytes]) -> Answer:
        """Run the statement; over a new connection if the one it had broke.

        Raises:
            FeatureError: The server refuses the statement.
            DatabaseUnavailable: The store does not answer.
        """
        try:
            async with asyncio.timeout(self._statement_seconds):
                try:
                    return await (await self._connected()).fetch(parameters)
                except DatabaseUnavailable:
                    return await (await self._connected()).fetch(parameters)
        except TimeoutError:
            if self._connection is not None:
                self._connection.close()
            self._down("no answer in time")
            raise _unavailable("no answer in time") from None

    async def close(self) -> None:
        """Close the connection, and open no other."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._connection is not None:
            self._connection.close()

    async def _connected(self) -> PreparedConnection:
        if self._connection is None:
            self._connect()
            await self._tried.wait()
        if self._refused is not None:
            raise self._refused
        if self._connection is None:
            raise _unavailable("the store does not answer")
        return self._connection

    def _connect(self) -> None:
        if self._closed or (self._connecting is not None and not self._connecting.done()):
            return
        self._tried.clear()
        self._connecting = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        """Try to connect until it works; reads wait for the first try only."""
        pause = FIRST_PAUSE
        while True:
            try:
                async with asyncio.timeout(self._connect_seconds):
                    connection = await self._open()
            except FeatureError as error:
                self._refused = error
            except (OSError, psycopg.Error, DatabaseUnavailable, TimeoutError) as error:
                self._down(_first_line(str(error)) or type(error).__name__)
            else:
                self._refused = None
                self._connection = connection
                break
            self._tried.set()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if not self.reachable:
            logger.warning("The online store on %s answers again.", self._place)
        self.reachable = True
        self._tried.set()

    async def _open(self) -> PreparedConnection:
        connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        prepared: PreparedConnection | None = None
        try:
            await connection.execute(self._settings)
            prepared = PreparedConnection(connection, self._lost)
            await prepared.prepare(self._statement.as_bytes(connection), self._parameters)
        except BaseException:
            await connection.close()
            if prepared is not None:
                prepared.close()
            raise
        return prepared

    def _lost(self) -> None:
        if self._connection is not None:
            self._connection = None
            self._connect()

    def _down(self, reason: str) -> None:
        if self.reachable:
            logger.warning("The online store on %s does not answer: %s", self._place, reason)
        self.reachable = False
        self._refused = None
        self._tried.set()


def _unavailable(reason: str) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"The online store does not answer: {reason}", remedy="Start the server."
    )


def _first_line(message: str) -> str:
    return (message.strip().splitlines() or [""])[0]
