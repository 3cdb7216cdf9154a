"""Makes a backup: every database as of one moment, then the artifacts that they name.

An artifact is written before the row that names it, and never changed. So whatever the databases
name as of the moment of their snapshots is there when the artifacts are copied after it.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError

from aios_platform.backup.manifest import Head, Manifest, StoredFile, write
from aios_platform.backup.roots import Root, require_space
from aios_platform.database import (
    DATABASES,
    Database,
    connection_string,
    newest_revision,
)
from aios_platform.embedded import client_program
from aios_platform.errors import StoreError
from aios_platform.ledger.verification import verify
from aios_platform.settings import child_environment


def back_up(database: Database, artifact_root: str, destination: Path) -> Manifest:
    """Copy the whole installation into a folder, which is there whole or not at all.

    Runs, gateway and daemon may go on meanwhile.

    Args:
        database: The server, prepared.
        artifact_root: Folder or fsspec URL of the artifacts.
        destination: A folder that is empty or not there.

    Raises:
        StoreError: The place is not empty, the disk is full, or a store cannot be read.
        ArtifactCorrupt: An artifact is not what was written once.
        LedgerBroken: The ledger does not hold: a backup of it would replace better ones.
    """
    root, destination = Root(artifact_root), destination.expanduser().resolve()
    _require_empty(destination)
    verify(database).require()
    writing = destination.with_name(f".{destination.name}.writing")
    with database.exclusive("backup") as lock:
        if not lock.held:
            raise StoreError(
                "Another backup of this installation is being made.", remedy="Wait until it ends."
            )
        require_space(destination, root.bytes(), "The copy of the artifacts")
        try:
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir(parents=True)
            manifest = _fill(database, root, writing)
            write(manifest, writing)
            _sync(writing)
            writing.rename(destination)
            _sync_folder(destination.parent)
        except OSError as error:
            raise StoreError(
                f"The backup cannot be written to {destination}: {error.strerror or error}.",
                remedy="Free space or choose another place; nothing was left.",
            ) from error
        finally:
            shutil.rmtree(writing, ignore_errors=True)
    return manifest


def _fill(database: Database, root: Root, folder: Path) -> Manifest:
    with ExitStack() as stack:
        # At once, and ours first: what its rows name in the others was there before them.
        snapshots = {name: stack.enter_context(_snapshot(database, name)) for name in DATABASES}
        ours = snapshots["aios"][0]
        head = ours.execute(text("SELECT seq, hash FROM ledger_head")).one()
        sizes = [
            connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
            for connection, _ in snapshots.values()
        ]
        dumps = {
            name: _dump(database, name, snapshot, folder)
            for name, (_, snapshot) in snapshots.items()
        }
        server = str(ours.execute(text("SHOW server_version")).scalar_one())
    return Manifest(
        made_at=datetime.now(UTC),
        platform=version("aios-platform"),
        postgres=server,
        revision=newest_revision(),
        head=Head(seq=head.seq, hash=head.hash),
        artifact_root=root.url,
        database_bytes=sum(sizes),
        databases=dumps,
        artifacts=tuple(root.copy_out(name, folder) for name in root.names()),
    )


@contextmanager
def _snapshot(database: Database, name: str) -> Iterator[tuple[Connection, str]]:
    with database.connected(name) as connection:
        connection.execute(text("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        yield connection, str(connection.execute(text("SELECT pg_export_snapshot()")).scalar_one())
        with suppress(DBAPIError):
            connection.execute(text("COMMIT"))


def _dump(database: Database, name: str, snapshot: str, folder: Path) -> StoredFile:
    target = folder / "databases" / f"{name}.dump"
    target.parent.mkdir(exist_ok=True)
    postgres_program(
        "pg_dump", database.url(name), "--format=custom", f"--snapshot={snapshot}",
        "--no-owner", "--no-privileges", f"--file={target}",
    )  # fmt: skip
    with target.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    name_inside = str(target.relative_to(folder))
    return StoredFile(name=name_inside, bytes=target.stat().st_size, sha256=digest)


def postgres_program(program: str, url: str, *arguments: str) -> None:
    """Run one of Postgres's client programs on a database.

    Raises:
        StoreError: It failed; with what it said.
    """
    # A password on the command line could be read by every user of the machine.
    place, password = connection_string(make_url(url))
    command = [client_program(program), "--no-password", f"--dbname={place}", *arguments]
    done = subprocess.run(
        command,
        env=child_environment({"PGPASSWORD": password} if password else {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise StoreError(
            f"{program} failed on the database {make_url(url).database}: {said[-1]}.",
            remedy="Free space, or mend what it names, and run the same command again; nothing was "
            "left half-done.",
        )


def _require_empty(place: Path) -> None:
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise StoreError(
            f"{place} is not an empty folder.",
            remedy="Give a new name; a backup never replaces anything.",
        )


def _sync(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
