"""Fixtures that every part of the suite shares."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.homes import LOCATIONS, forget

# Before anything reads the settings: the suite never touches a developer's own state.
_HOME = Path(tempfile.mkdtemp(prefix="aios-test-"))
_HOME.chmod(0o755)
os.environ["AIOS_HOME"] = str(_HOME)
for _name in (*LOCATIONS, "AIOS_API_KEY", "AIOS_DATASETS"):
    os.environ.pop(_name, None)
os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(scope="session", autouse=True)
def _home() -> Iterator[None]:
    yield
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def database():
    """The embedded Postgres of this test process, migrated."""
    from aios_platform.database import database

    return database()


@pytest.fixture(scope="session")
def _empty_database(database) -> str:
    """A migrated database that is never written to; others are copied from it in no time."""
    from tests.databases import ScratchDatabase

    scratch = ScratchDatabase(database, "aios_empty")
    scratch.create()
    scratch.close()
    return scratch.name


@pytest.fixture
def own_database(database, _empty_database):
    """A ledger of one test's own, empty, on the server of this test process.

    Where a test issues API keys, or manipulates the ledger: others go on undisturbed.
    """
    import uuid

    from tests.databases import ScratchDatabase

    scratch = ScratchDatabase(database, f"scratch_{uuid.uuid4().hex[:10]}")
    scratch.create(template=_empty_database)
    yield scratch
    scratch.drop()


@pytest.fixture
def store(tmp_path: Path):
    """An artifact root of one test's own."""
    from aios_platform.artifacts import ArtifactStore

    return ArtifactStore(str(tmp_path / "artifacts"))


@pytest.fixture(scope="module")
def own_home(tmp_path_factory) -> Iterator[Path]:
    """A home, and so a Postgres and an artifact root, of one test module's own."""
    folder = tmp_path_factory.mktemp("home")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    forget()
    os.environ["AIOS_HOME"] = str(folder)
    yield folder
    forget()
    os.environ["AIOS_HOME"] = str(_HOME)
