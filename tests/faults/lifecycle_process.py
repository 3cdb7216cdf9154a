"""`aios run` of the tiny model in a process that dies, or is refused, at a boundary of its choice.

Imports take longer than the model's whole life. So one process imports, and forks a child for each
attempt that is asked for: a line of JSON in, a line of JSON out. It opens nothing itself.
"""

import errno
import gc
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

STEPS = ("STEP_START", "ASSET_MATERIALIZATION", "STEP_SUCCESS")
DIGEST = re.compile(r"(?<=/blobs/)../|[0-9a-f]{12,}(-[0-9a-f]{12,})*")
ACTED, FAILED = "acted: ", "error: "


class Boundaries:
    """Both sides of every write, by the order in which they are come to.

    Args:
        names: The first of these that is come to is where something happens.
        act: What happens there.
        told: Where the names of the boundaries are written.
    """

    def __init__(self, names: Collection[str], act: Callable[[], None], told: int) -> None:
        self._names, self._act, self._told = set(names), act, told

    def come_to(self, name: str) -> None:
        plain = DIGEST.sub("#", name)
        os.write(self._told, f"{plain}\n".encode())
        if plain in self._names:
            self._names = set()
            os.write(self._told, f"{ACTED}{plain}\n".encode())
            self._act()

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        self.come_to(f"before {name}")
        yield
        self.come_to(f"after {name}")

    def watch(self) -> None:
        """Come to a boundary around what publishes files, commits rows, and ends steps."""
        from dagster import DagsterInstance
        from sqlalchemy import text

        from aios_platform.artifacts import ArtifactStore
        from aios_platform.database import Database

        publish, once = ArtifactStore._publish, ArtifactStore.write_once
        begin, event = Database.begin, DagsterInstance.handle_new_event

        def watched_publish(store: Any, temporary: str, uri: str) -> None:
            with self.around(f"publish {uri.removeprefix(store.root)}"):
                publish(store, temporary, uri)

        def watched_once(store: Any, name: str, content: bytes) -> bool:
            with self.around(f"publish /{name}"):
                return once(store, name, content)

        @contextmanager
        def watched_begin(database: Any) -> Iterator[Any]:
            with begin(database) as connection:
                yield connection
                writes = connection.scalar(text("SELECT pg_current_xact_id_if_assigned()"))
                if writes is not None:
                    self.come_to("before commit")
            if writes is not None:
                self.come_to("after commit")

        def watched_event(instance: Any, entry: Any, **more: Any) -> None:
            found = entry.dagster_event
            if found is None or found.event_type_value not in STEPS:
                return event(instance, entry, **more)
            with self.around(f"{found.event_type_value} {found.step_key}"):
                return event(instance, entry, **more)

        ArtifactStore._publish, ArtifactStore.write_once = watched_publish, watched_once
        Database.begin, DagsterInstance.handle_new_event = watched_begin, watched_event


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def fill_disk() -> None:
    """From here on nothing can be made durable."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    os.fsync = full


def nothing() -> None:
    """An attempt that is not disturbed."""


ACTS = {"kill": kill, "stop": stop, "full": fill_disk, "none": nothing}


def run(asked: dict[str, Any], told: int) -> None:
    """Live the tiny model's life, or as much of it as is left; or `aios promote` a version."""
    from aios_platform import telemetry
    from aios_platform.cli.arguments import code_location
    from aios_platform.components.model_lifecycle.promoting import promote_version
    from aios_platform.components.model_lifecycle.runner import run_until_done
    from aios_platform.resources import dagster_storage
    from aios_platform.resources.stores import Stores
    from tests.faults import tiny

    telemetry.configure("ERROR")
    if asked["fault"] == "stop":
        # As if every connection had been in use when it stopped: none is tried and replaced.
        dagster_storage.IDLE_SECONDS = math.inf
    Boundaries(asked["names"], ACTS[asked["fault"]], told).watch()
    names, as_of = tiny.names(), datetime.fromisoformat(asked["as_of"])
    _, instance, store, database = code_location()
    if asked["promote"]:
        promote_version(names, asked["promote"], Stores(), as_of)
        return
    for _ in run_until_done(
        names,
        tiny.definitions(names),
        instance,
        store,
        database,
        as_of,
    ):
        pass


def attempt(asked: dict[str, Any]) -> dict[str, Any]:
    """One run in a child; how it ended, and the boundaries that it came to."""
    from aios_platform.errors import AiosError

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        # What it prints is not an answer.
        os.dup2(2, 1)
        code = 1
        try:
            run(asked, writing)
            code = 0
        except AiosError as error:
            said = f"{error.what} | {error.remedy}".replace("\n", " ")
            os.write(writing, f"{FAILED}{said}\n".encode())
            code = 3
        finally:
            os._exit(code)
    os.close(writing)
    status = None
    if asked["fault"] == "stop":
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            # Whoever asked does meanwhile what it likes.
            answer({"stopped": child})
            sys.stdin.readline()
            os.kill(child, signal.SIGCONT)
            status = None
    with os.fdopen(reading) as lines:
        seen = lines.read().splitlines()
    if status is None:
        _, status = os.waitpid(child, 0)
    marks = (ACTED, FAILED)
    acted, error = (
        next((line.removeprefix(mark) for line in seen if line.startswith(mark)), "")
        for mark in marks
    )
    return {
        "status": os.waitstatus_to_exitcode(status),
        "acted": acted,
        "error": error,
        "boundaries": [line for line in seen if not line.startswith(marks)],
    }


def answer(said: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Import, and then do what is asked until there is nothing more to read."""
    import pandas  # noqa: F401
    import pytorch_lightning  # noqa: F401
    from evidently import Report  # noqa: F401

    import tests.faults.tiny  # noqa: F401

    gc.freeze()
    for line in sys.stdin:
        answer(attempt(json.loads(line)))


if __name__ == "__main__":
    main()
