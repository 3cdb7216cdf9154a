"""Makes an installation from a backup: in an empty place, or not at all.

The databases are filled under other names (`aios_restoring`, ...), and renamed once all of them and
every artifact are there; ours comes last. While one of those names exists no other command opens
the installation (`Database.prepare`), and the same restore, made again, takes it up.
"""

from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from aios_platform.artifacts import ArtifactStore
from aios_platform.backup import manifest as manifests
from aios_platform.backup.making import postgres_program
from aios_platform.backup.manifest import Manifest
from aios_platform.backup.roots import Root, require_space
from aios_platform.database import DATABASES, PREPARING, RESTORING, Database, newest_revision
from aios_platform.errors import DatabaseUnavailable, LedgerBroken, StoreError
from aios_platform.ledger.anchors import anchors
from aios_platform.ledger.verification import verify


def restore(server: Database, artifact_root: str, source: Path, home: Path) -> Manifest:
    """Fill an empty installation from a backup.

    Args:
        server: The server, not prepared: it has none of our databases, or empty ones.
        artifact_root: Folder or fsspec URL for the artifacts; empty, or not there.
        source: The folder that `back_up` wrote.
        home: Where an embedded server keeps its databases.

    Raises:
        ArtifactMissing: A file of the backup is gone; nothing was written.
        ArtifactCorrupt: A file of the backup is not what was written; nothing was written.
        LedgerBroken: The ledger in it does not hold, or ends elsewhere than the manifest says.
        StoreError: The target is not empty, too small, or was begun to be filled from elsewhere.
    """
    source = source.expanduser().resolve()
    manifest = check(source)
    root, mark = Root(artifact_root), manifest.fingerprint
    with server.maintenance() as connection:
        if not connection.execute(text(f"SELECT pg_try_advisory_lock({PREPARING})")).scalar_one():
            raise StoreError(
                f"Another process opens or restores the databases on {server.place}.",
                remedy="Stop it, or wait until it ends.",
            )
        try:
            if _ready(connection) != mark:
                _require_empty(connection, server, root, mark)
                _require_space(server, root, manifest, home)
                _stage(connection, server, root, source, manifest)
            _publish(connection, root)
        except DBAPIError as error:
            raise DatabaseUnavailable(
                f"The databases on {server.place} cannot be restored: "
                f"{str(error.orig).strip().splitlines()[0]}",
                remedy="The user needs CREATEDB. Then run the same command again.",
            ) from error
    return manifest


def check(source: Path) -> Manifest:
    """Read a backup through, and compare every file with its digest.

    Raises:
        ArtifactMissing: A file is gone.
        ArtifactCorrupt: A file is not what was written.
        StoreError: It was made by a newer version.
    """
    manifest = manifests.read(source)
    manifests.verify(source, manifest)
    if manifest.revision > newest_revision():
        raise StoreError(
            f"The backup {source} has the schema {manifest.revision}; this version knows up to "
            f"{newest_revision()}.",
            remedy=f"Restore it with version {manifest.platform} of the platform or later.",
        )
    return manifest


class _Staged(Database):
    """One installation under the names that a restore fills."""

    def __init__(self, server: Database) -> None:
        super().__init__(server._server, embedded=server.embedded)

    def url(self, name: str) -> str:
        there = self._server.set(database=f"{name}{RESTORING}")
        return there.render_as_string(hide_password=False)


def _ready(connection: Connection) -> str | None:
    """Digest of the manifest whose restore only has to be published."""
    found = connection.execute(
        text("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = :name"),
        {"name": f"aios{RESTORING}"},
    ).scalar()
    return None if found is None else str(found)


def _require_empty(connection: Connection, server: Database, root: Root, mark: str) -> None:
    begun = root.mark()
    if _ready(connection) is not None or begun not in (None, mark):
        raise StoreError(
            f"The restore of another backup was begun here ({server.place}, {root.place}).",
            remedy="Run that restore again, which ends it, or give an empty place.",
        )
    if begun is None and root.names():
        raise StoreError(
            f"The artifact root {root.place} is not empty.",
            remedy="Restore into an empty place: another AIOS_HOME or AIOS_ARTIFACTS.",
        )
    for name in sorted(_present(connection) & set(DATABASES)):
        with server.connected(name) as there:
            tables = there.execute(
                text(
                    "SELECT count(*) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = "
                    "relnamespace WHERE relkind IN ('r', 'p', 'v', 'm', 'S') "
                    "AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"
                )
            ).scalar_one()
        if tables:
            raise StoreError(
                f"The database '{name}' on {server.place} is not empty.",
                remedy="Restore into an empty place: another AIOS_HOME or AIOS_DATABASE_URL.",
            )


def _require_space(server: Database, root: Root, manifest: Manifest, home: Path) -> None:
    needed: dict[Path, int] = {}
    if root.local:
        needed[Path(root.place)] = manifest.artifact_bytes
    if server.embedded:
        needed[home] = manifest.database_bytes
    together = sum(needed.values())
    for path in needed:
        require_space(path, together, "The restore")


def _stage(
    connection: Connection, server: Database, root: Root, source: Path, manifest: Manifest
) -> None:
    staged, mark = _Staged(server), manifest.fingerprint
    _drop_staged(connection)
    try:
        # First of all: from now on no other command opens the installation.
        for name in DATABASES:
            connection.execute(text(f'CREATE DATABASE "{name}{RESTORING}" TEMPLATE template0'))
        root.set_mark(mark)
        for file in manifest.artifacts:
            root.copy_in(file.name.removeprefix("artifacts/"), source / file.name)
        for name, file in manifest.databases.items():
            postgres_program(
                "pg_restore", staged.url(name), "--single-transaction", "--exit-on-error",
                "--no-owner", "--no-privileges", str(source / file.name),
            )  # fmt: skip
        _require_head(staged, root, manifest)
        staged.migrate()
        _move_runs(staged, manifest.artifact_root, root.url)
        staged.close()
        connection.execute(text(f"COMMENT ON DATABASE aios{RESTORING} IS '{mark}'"))
    except BaseException as error:
        staged.close()
        with suppress(DBAPIError, OSError):
            root.clear()
            _drop_staged(connection)
        if isinstance(error, OSError):
            raise StoreError(
                f"The artifacts cannot be written to {root.place}: {error.strerror or error}.",
                remedy="Free space, and run the same command again; nothing was left.",
            ) from error
        raise


def _require_head(staged: Database, root: Root, manifest: Manifest) -> None:
    found = verify(staged, anchors(ArtifactStore(root.url)))
    found.require()
    if (found.last, found.hash) != (manifest.head.seq, manifest.head.hash):
        raise LedgerBroken(
            f"The ledger in the backup ends at row {found.last} ({found.hash[:12]}); its manifest "
            f"says row {manifest.head.seq} ({manifest.head.hash[:12]}).",
            remedy="Use another backup; nothing was restored.",
        )


def _move_runs(staged: Database, old: str, new: str) -> None:
    """MLflow notes whole paths: let them name the root that the artifacts lie under now."""
    columns = (
        ("experiments", "artifact_location"), ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"), ("model_versions", "source"),
        ("model_versions", "storage_location"),
    )  # fmt: skip
    with staged.connected("mlflow") as connection:
        for table, column in columns:
            if (
                old == new
                or connection.execute(text(f"SELECT to_regclass('{table}')")).scalar() is None
            ):
                continue
            connection.execute(
                text(
                    f"UPDATE {table} SET {column} = replace({column}, :old, :new) "  # noqa: S608
                    f"WHERE position(:old IN {column}) > 0"
                ),
                {"old": f"{old}/mlflow", "new": f"{new}/mlflow"},
            )


def _publish(connection: Connection, root: Root) -> None:
    root.drop_mark()
    # Ours last: with it the installation is there.
    for name in (*(n for n in DATABASES if n != "aios"), "aios"):
        present = _present(connection)
        if f"{name}{RESTORING}" in present:
            if name in present:
                connection.execute(text(f'DROP DATABASE "{name}"'))
            connection.execute(text(f'ALTER DATABASE "{name}{RESTORING}" RENAME TO "{name}"'))
    connection.execute(text("COMMENT ON DATABASE aios IS NULL"))


def _drop_staged(connection: Connection) -> None:
    for name in DATABASES:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}{RESTORING}" WITH (FORCE)'))


def _present(connection: Connection) -> set[str]:
    return set(connection.execute(text("SELECT datname FROM pg_database")).scalars())
