"""What is wrong with an installation, and how to mend it: the checks of `aios doctor`.

Nothing is changed: no database is made or migrated, no model is imported. One file is written under
the artifact root and removed.
"""

import importlib.metadata
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import text

from aios_platform.components.model_lifecycle.component import check_references
from aios_platform.components.model_lifecycle.discovery import declared_models
from aios_platform.contracts.record import Record
from aios_platform.database import DATABASES, Database, connect_server, newest_revision
from aios_platform.errors import AiosError
from aios_platform.extensions import Kind, installed, load
from aios_platform.ledger.claims import daemon_runs
from aios_platform.settings import PROJECT_ROOT, Settings

LEAST_FREE_BYTES = 2 << 30
MOST_CLOCK_SECONDS = 5.0
MOST_NAMED = 5


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    LOOK = "look"
    """It works; somebody should know of it."""
    WRONG = "wrong"


class Finding(Record):
    """What one check came to."""

    check: str
    state: State
    said: str
    remedy: str | None = None


def findings(configuration: Settings) -> Iterator[Finding]:
    """Run the checks, one after the other; none raises.

    Args:
        configuration: Settings of the installation.
    """
    checks: dict[str, Callable[[], Finding]] = {
        "packages": _packages,
        "extensions": _extensions,
        "declarations": _declarations,
        "disk": lambda: _disk(configuration),
        "artifacts": lambda: _artifacts(configuration),
    }
    for name, check in checks.items():
        yield _checked(name, check)
    opened: list[Database] = []
    reached = _checked("database", lambda: _server(configuration, opened))
    yield reached
    if reached.state is State.OK:
        [database] = opened
        yield _checked("clock", lambda: _clock(database))
        schema = _checked("schema", lambda: _schema(database))
        yield schema
        if schema.state is State.OK:
            yield _checked("daemon", lambda: _daemon(database))
    for database in opened:
        database.close()


def _checked(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except AiosError as error:
        return Finding(check=name, state=State.WRONG, said=error.what, remedy=error.remedy)
    except Exception as error:
        # A check that fails is a finding; its text may hold a URL with a secret.
        return Finding(
            check=name,
            state=State.WRONG,
            said=f"The check itself failed: {type(error).__name__}.",
            remedy="Mend what the name says, and look at the log with AIOS_LOG_LEVEL=DEBUG.",
        )


def _packages() -> Finding:
    lock = PROJECT_ROOT / "requirements.lock"
    if not lock.exists():
        return Finding(check="packages", state=State.LOOK, said="No requirements.lock beside the "
                       "platform: versions are not compared.")  # fmt: skip
    wanted = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock.read_text(), re.M))
    other = []
    for name, version in wanted.items():
        # What is not installed may belong to an extra that is not used here.
        with suppress(importlib.metadata.PackageNotFoundError):
            found = importlib.metadata.version(name)
            # A local build of the same version, 2.9.1+cpu, is that version.
            if found.partition("+")[0] != version:
                other.append(f"{name} {found} (locked: {version})")
    if other:
        return Finding(
            check="packages",
            state=State.LOOK,
            said=f"{len(other)} packages are not of the version that was tested: {_some(other)}.",
            remedy="make setup",
        )
    return Finding(check="packages", state=State.OK, said="Versions are those of the lock.")


def _extensions() -> Finding:
    parts = [(kind, name) for kind in Kind for name in installed(kind)]
    for kind, name in parts:
        load(kind, name)
    return Finding(check="extensions", state=State.OK, said=f"{len(parts)} added parts load.")


def _declarations() -> Finding:
    models = declared_models()
    for names in models.values():
        check_references(names)
    return Finding(
        check="declarations", state=State.OK, said=f"{len(models)} models: {', '.join(models)}."
    )


def _disk(configuration: Settings) -> Finding:
    home = configuration.home_path
    there = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(there).free
    return _measured(
        "disk",
        f"{free / 2**30:,.1f} GiB are free under {home}.",
        wrong=free < LEAST_FREE_BYTES,
        remedy="Free some, or set AIOS_HOME to another disk.",
    )


def _artifacts(configuration: Settings) -> Finding:
    from fsspec.core import url_to_fs

    root = configuration.artifact_root
    filesystem, folder = url_to_fs(root)
    content, place = uuid.uuid4().bytes, f"{folder}/doctor-{uuid.uuid4().hex}"
    try:
        filesystem.makedirs(folder, exist_ok=True)
        filesystem.pipe_file(place, content)
        read = filesystem.cat_file(place)
        filesystem.rm_file(place)
    except Exception as error:
        return Finding(
            check="artifacts",
            state=State.WRONG,
            said=f"{root} cannot be written, read and cleared: {type(error).__name__}.",
            remedy="Give this user rights on it, or correct AIOS_ARTIFACTS.",
        )
    if read != content:
        return Finding(
            check="artifacts",
            state=State.WRONG,
            said=f"{root} gives back other bytes than were written.",
            remedy="Take a store with strong read-after-write consistency.",
        )
    return Finding(check="artifacts", state=State.OK, said=f"{root} can be written and read.")


def _server(configuration: Settings, opened: list[Database]) -> Finding:
    database = connect_server(configuration)
    opened.append(database)
    with database.maintenance() as connection:
        version = connection.execute(text("SHOW server_version")).scalar_one()
    kind = "embedded " if database.embedded else ""
    return Finding(
        check="database", state=State.OK, said=f"{kind}Postgres {version} on {database.place}."
    )


def _schema(database: Database) -> Finding:
    with database.maintenance() as connection:
        present = set(connection.execute(text("SELECT datname FROM pg_database")).scalars())
    missing = [name for name in DATABASES if name not in present]
    if missing:
        return Finding(
            check="schema",
            state=State.LOOK,
            said=f"Not made yet: {', '.join(missing)}.",
            remedy="The first command that needs them makes them, e.g. aios status.",
        )
    revision = database.revision()
    if revision != newest_revision():
        newer = revision is not None and revision > newest_revision()
        return Finding(
            check="schema",
            state=State.WRONG if newer else State.LOOK,
            said=f"The schema is at {revision or 'no revision'}; this version of the platform has "
            f"{newest_revision()}.",
            remedy="Install the newer version of the platform that migrated it."
            if newer
            else "aios backup; the next other command migrates it.",
        )
    return Finding(check="schema", state=State.OK, said=f"The schema is at {revision}.")


def _clock(database: Database) -> Finding:
    with database.maintenance() as connection:
        theirs = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    apart = abs((datetime.now(UTC) - theirs).total_seconds())
    return _measured(
        "clock",
        f"This machine's clock and the database's are {apart:.1f} s apart.",
        wrong=apart > MOST_CLOCK_SECONDS,
        remedy="Let both machines follow the same time server.",
    )


def _daemon(database: Database) -> Finding:
    if daemon_runs(database):
        return Finding(check="daemon", state=State.OK, said="A daemon schedules.")
    return Finding(
        check="daemon",
        state=State.LOOK,
        said="No daemon runs: nothing happens by itself.",
        remedy="aios ui, or aios daemon.",
    )


def _measured(check: str, said: str, *, wrong: bool, remedy: str) -> Finding:
    if wrong:
        return Finding(check=check, state=State.WRONG, said=said, remedy=remedy)
    return Finding(check=check, state=State.OK, said=said)


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
