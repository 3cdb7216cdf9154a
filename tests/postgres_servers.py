"""The embedded Postgres of a home, ended from outside."""

import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil


def stop_postgres(home: Path, how: signal.Signals = signal.SIGINT) -> None:
    """Stop the home's server and wait for its end: in good order, or (SIGKILL) not."""
    note = home / "postgres" / "postmaster.pid"
    if not note.exists():
        return
    pid = int(note.read_text().splitlines()[0])
    with suppress(psutil.NoSuchProcess):
        server = psutil.Process(pid)
        victims = [server, *server.children(recursive=True)] if how == signal.SIGKILL else [server]
        for process in victims:
            # A child may end with its server, before it is its turn.
            with suppress(psutil.NoSuchProcess):
                process.send_signal(how)
        while psutil.pid_exists(pid) and server.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)
