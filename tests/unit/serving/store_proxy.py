"""A socket between a client and Postgres that can go silent, refuse, and come back."""

import asyncio
from pathlib import Path

from sqlalchemy import make_url


class StoreProxy:
    """Passes connections on to the real server while it is up.

    Args:
        folder: Where its socket is made.
        url: SQLAlchemy URL of the real server, on a socket.
    """

    def __init__(self, folder: Path, url: str) -> None:
        real = make_url(url)
        self._socket = f".s.PGSQL.{real.port or 5432}"
        self._real = Path(str(real.query["host"])) / self._socket
        self._folder = folder
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._passing = asyncio.Event()
        self.url = real.update_query_dict({"host": str(folder)}).render_as_string(
            hide_password=False
        )
        self.connections = 0
        self.questions = 0

    async def up(self) -> None:
        """Accept connections and pass everything on."""
        self._passing.set()
        if self._server is None:
            path = self._folder / self._socket
            self._server = await asyncio.start_unix_server(self._serve, path)

    def silent(self) -> None:
        """Swallow what the client says, and accept connections without an answer."""
        self._passing.clear()

    async def down(self) -> None:
        """Cut all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            (self._folder / self._socket).unlink(missing_ok=True)
        self._server = None
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def cut(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        self._tasks.append(asyncio.current_task())
        await self._passing.wait()
        server_reader, server_writer = await asyncio.open_unix_connection(self._real)
        self._writers.append(server_writer)
        answers = asyncio.create_task(self._pass(server_reader, writer, asked=False))
        self._tasks.append(answers)
        await self._pass(reader, server_writer, asked=True)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asked: bool
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._passing.wait()
                # A question is a Bind message.
                self.questions += asked and data[:1] == b"B"
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
