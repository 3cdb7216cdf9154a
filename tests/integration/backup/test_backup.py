"""A backup of a real installation, restored into an empty place; damaged, cut short and killed."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import text

from aios_platform.artifacts import ArtifactStore
from aios_platform.backup import manifest as manifests
from aios_platform.backup.making import back_up
from aios_platform.backup.restoring import check, restore
from aios_platform.database import DATABASES, RESTORING, connect_server, open_database
from aios_platform.errors import ArtifactCorrupt, ArtifactMissing, LedgerBroken, StoreError
from aios_platform.ledger.anchors import anchor
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import append, entries
from aios_platform.ledger.verification import verify
from aios_platform.settings import Settings, child_environment
from tests.served_models import make_champion, network

pytestmark = [pytest.mark.postgres]
PREDICTIONS = pa.table({"id": ["a", "b"], "probability": [0.25, 0.75]})


@pytest.fixture(scope="module")
def installation(own_home):
    """A champion, predictions, an anchor, and a run that MLflow knows."""
    from aios_platform.registry.store import ModelRegistry

    configuration = Settings()
    database, store = open_database(configuration), ArtifactStore(configuration.artifact_root)
    make_champion(database, store, network())
    store.write("toy/predictions", "2013-01", PREDICTIONS)
    anchor(database, store)
    ModelRegistry(database.url("mlflow"), f"{store.root}/mlflow")._client.create_experiment(
        "toy", artifact_location=f"{store.root}/mlflow/toy"
    )
    return database, store


@pytest.fixture(scope="module")
def copy(installation, tmp_path_factory):
    """A backup of it."""
    database, store = installation
    folder = tmp_path_factory.mktemp("backups") / "one"
    back_up(database, store.root, folder)
    return folder


@pytest.fixture(scope="module")
def other_home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    folder.chmod(0o755)
    return Settings(home=folder)


@pytest.fixture
def target(other_home):
    """An empty installation; its server goes on, so that only the first test waits for it."""
    server = connect_server(other_home)

    def empty() -> None:
        with server.maintenance() as connection:
            for name in DATABASES:
                for full in (name, f"{name}{RESTORING}"):
                    connection.execute(text(f'DROP DATABASE IF EXISTS "{full}" WITH (FORCE)'))
        shutil.rmtree(other_home.artifact_root, ignore_errors=True)

    empty()
    yield Target(server, other_home)
    empty()


class Target:
    def __init__(self, server, configuration):
        self.server, self.configuration = server, configuration
        self.root = configuration.artifact_root

    def restore(self, source):
        return restore(self.server, self.root, source, self.configuration.home_path)

    def databases(self):
        with self.server.maintenance() as connection:
            found = set(connection.execute(text("SELECT datname FROM pg_database")).scalars())
        return {name for name in found if name.removesuffix(RESTORING) in DATABASES}

    @property
    def untouched(self):
        return not self.databases() and not Path(self.root).exists()

    def command(self, source, before=""):
        """`aios restore` as a process of its own, after some lines that disturb it."""
        script = (
            f"{before}\nimport sys\nsys.argv = ['aios', 'restore', {str(source)!r}]\n"
            "from aios_platform.cli import main\nmain()"
        )
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            env=child_environment({"AIOS_HOME": str(self.configuration.home_path)}),
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


def test_an_empty_place_becomes_the_same_installation(installation, copy, target):
    database, store = installation
    made = target.restore(copy)
    restored, there = open_database(target.configuration), ArtifactStore(target.root)
    found = verify(restored)
    found.require()
    assert (found.last, found.hash) == (made.head.seq, made.head.hash)
    assert (found.last, found.hash) == (verify(database).last, verify(database).hash)
    assert champion_of(restored, "toy") == champion_of(database, "toy")
    assert there.read(there.require("toy/predictions", "2013-01")).equals(PREDICTIONS)
    names = {p.relative_to(store.root) for p in Path(store.root).rglob("*") if p.is_file()}
    assert names == {p.relative_to(there.root) for p in Path(there.root).rglob("*") if p.is_file()}
    with restored.connected("mlflow") as connection:
        rows = connection.execute(text("SELECT artifact_location FROM experiments")).scalars()
        assert f"{there.root}/mlflow/toy" in set(rows)
    # And it goes on: the guards let the next row in, and only at the end of the chain.
    with restored.begin() as connection:
        append(connection, kind="note", subject="toy", payload={"n": 1}, key="after")
    assert verify(restored).last == made.head.seq + 1
    restored.close()


def test_what_is_named_as_of_the_backup_is_in_it_while_others_write(installation, target, tmp_path):
    database, store = installation
    begun, stop = threading.Event(), threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            digest, _ = store.put(f"evidence {number}".encode())
            with database.begin() as connection:
                append(
                    connection, kind="note", subject="busy", payload={"n": number},
                    key=f"busy:{number}", evidence=[digest],
                )  # fmt: skip
            begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert begun.wait(60)
        made = back_up(database, store.root, tmp_path / "busy")
    finally:
        stop.set()
        writer.join()
    assert verify(database).last > made.head.seq
    target.restore(tmp_path / "busy")
    restored, there = open_database(target.configuration), ArtifactStore(target.root)
    rows = entries(restored, subject="busy", limit=100_000)
    assert rows
    for row in rows:
        there.get(row.evidence[0])
    restored.close()


def test_artifacts_come_from_an_object_store_and_go_into_one(installation, target, tmp_path):
    import fsspec

    database, store = installation
    fs = fsspec.filesystem("memory")
    fs.put(f"{store.root}/", "/bucket/aios/", recursive=True)
    try:
        made = back_up(database, "memory://bucket/aios", tmp_path / "b")
        assert made.artifact_root == "memory://bucket/aios"
        restore(
            target.server, "memory://other/root", tmp_path / "b", target.configuration.home_path
        )
        there = ArtifactStore("memory://other/root")
        assert there.read(there.require("toy/predictions", "2013-01")).equals(PREDICTIONS)
        with pytest.raises(StoreError, match=r"artifact root .* is not empty"):
            restore(
                target.server, "memory://other/root", tmp_path / "b", target.configuration.home_path
            )
        assert open_database(target.configuration).embedded
    finally:
        for root in ("/bucket", "/other"):
            fs.rm(root, recursive=True)


def test_a_killed_backup_is_made_by_the_same_command(installation, tmp_path):
    place = tmp_path / "b"
    script = (
        "import os, sys\n"
        "from aios_platform.backup import making\n"
        "making.write = lambda *_: os.kill(os.getpid(), 9)\n"
        f"sys.argv = ['aios', 'backup', {str(place)!r}]\n"
        "from aios_platform.cli import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env=child_environment({}), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert not place.exists()
    database, store = installation
    back_up(database, store.root, place)
    check(place)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


DAMAGE = {
    "bit of a dump": ("databases/aios.dump", "flip", ArtifactCorrupt),
    "bit of an artifact": ("artifacts/blobs", "flip", ArtifactCorrupt),
    "end of an artifact": ("artifacts/datasets", "cut", ArtifactCorrupt),
    "dump": ("databases/mlflow.dump", "remove", ArtifactMissing),
    "manifest": ("manifest.json", "remove", ArtifactMissing),
    "bit of the manifest": ("manifest.json", "flip", ArtifactCorrupt),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_backup_is_refused_before_anything_is_written(what, copy, target, tmp_path):
    name, how, expected = DAMAGE[what]
    damaged = tmp_path / "damaged"
    shutil.copytree(copy, damaged)
    path = damaged / name
    if path.is_dir():
        path = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    if how == "remove":
        path.unlink()
    else:
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content[:-1] if how == "cut" else content)
    with pytest.raises(expected):
        target.restore(damaged)
    assert target.untouched


def test_a_ledger_that_does_not_end_where_the_manifest_says_is_refused(copy, target, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(copy, other)
    content = json.loads((other / "manifest.json").read_text())["manifest"]
    content["head"]["seq"] -= 1
    manifests.write(manifests.Manifest.model_validate(content), other)
    with pytest.raises(LedgerBroken, match="its manifest says row"):
        target.restore(other)
    assert target.untouched


def test_a_place_that_is_not_empty_is_left_alone(installation, copy, target, tmp_path):
    database, store = installation
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(StoreError, match="not an empty folder"):
        back_up(database, store.root, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["letter"]

    Path(target.root).mkdir()
    (Path(target.root) / "letter").write_text("dear")
    with pytest.raises(StoreError, match=r"artifact root .* is not empty"):
        target.restore(copy)
    shutil.rmtree(target.root)
    open_database(target.configuration).close()
    with pytest.raises(StoreError, match=r"The database 'aios' .* is not empty"):
        target.restore(copy)
    assert target.databases() == set(DATABASES)


def test_a_disk_that_is_too_small_is_told_beforehand(copy, target, monkeypatch):
    monkeypatch.setattr("aios_platform.backup.roots.free_bytes", lambda _: 1000)
    with pytest.raises(StoreError, match="1,000 are free"):
        target.restore(copy)
    assert target.untouched


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
"""


def test_a_disk_that_fills_up_leaves_nothing(installation, copy, target, tmp_path):
    done = target.command(copy, before=FULL)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert target.untouched

    place = tmp_path / "full"
    script = (
        f"{FULL}\nimport sys\nsys.argv = ['aios', 'backup', {str(place)!r}]\n"
        "from aios_platform.cli import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env=child_environment({}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "nothing was left" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_damaged_artifact_is_not_backed_up(installation, tmp_path):
    database, store = installation
    _, uri = store.put(b"will be damaged")
    Path(uri).write_bytes(b"was damaged")
    try:
        with pytest.raises(ArtifactCorrupt, match="does not have the digest in its name"):
            back_up(database, store.root, tmp_path / "b")
        assert not list(tmp_path.iterdir())
    finally:
        Path(uri).unlink()


KILLS = {
    "artifacts": ("aios_platform.backup.roots.Root", "copy_in", 2),
    "databases": ("aios_platform.backup.restoring", "postgres_program", 2),
    "verification": ("aios_platform.backup.restoring", "_require_head", 1),
    "ready": ("aios_platform.backup.restoring", "_publish", 1),
    "renaming": ("aios_platform.backup.restoring", "_present", 4),
}


@pytest.mark.parametrize("point", KILLS)
def test_a_killed_restore_is_ended_by_the_same_command(point, installation, copy, target, tmp_path):
    where, name, call = KILLS[point]
    done = target.command(
        copy,
        before=(
            "import os, pkgutil\n"
            f"place = pkgutil.resolve_name({where!r}); name = {name!r}\n"
            "real, calls = getattr(place, name), []\n"
            "def deadly(*args, **kwargs):\n"
            "    calls.append(1)\n"
            f"    if len(calls) == {call}: os.kill(os.getpid(), 9)\n"
            "    return real(*args, **kwargs)\n"
            "setattr(place, name, deadly)\n"
        ),
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Nobody makes an installation of the half that is there.
    with pytest.raises(StoreError, match="was begun and not ended"):
        open_database(target.configuration)

    database, store = installation
    later = tmp_path / "later"
    back_up(database, store.root, later)
    with pytest.raises(StoreError):
        target.restore(later)

    made = target.restore(copy)
    restored, there = open_database(target.configuration), ArtifactStore(target.root)
    found = verify(restored)
    found.require()
    assert (found.last, found.hash) == (made.head.seq, made.head.hash)
    assert there.read(there.require("toy/predictions", "2013-01")).equals(PREDICTIONS)
    assert target.databases() == set(DATABASES)
    restored.close()
