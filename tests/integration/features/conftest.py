"""Two months of real flights with their feature tables, on the embedded Postgres."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.windows import Window
from aios_platform.settings import PROJECT_ROOT

FLIGHTS = PROJECT_ROOT / "aios_platform" / "defs" / "flight_delay"


@dataclass
class Flights:
    """The flights model with two windows of raw rows and feature tables."""

    declaration: ModelDeclaration
    sql: Path
    store: ArtifactStore
    windows: list[Window]
    repo: Path
    feast: Any


def make_repo(folder: Path, project: str, artifact_root: str) -> Path:
    """A copy of the platform's Feast repository under another project."""
    shutil.copytree(PROJECT_ROOT / "feature_repo", folder)
    path = folder / "feature_store.yaml"
    config = yaml.safe_load(path.read_text())
    config["project"] = project
    config["offline_store"]["artifact_root"] = artifact_root
    path.write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="session")
def flights(tmp_path_factory: pytest.TempPathFactory, database: Any) -> Flights:
    from aios_platform.defs.flight_delay.source import read_window
    from aios_platform.features.repository import apply_repository
    from aios_platform.features.store import open_feature_store
    from aios_platform.features.tables import build_feature_tables

    folder = tmp_path_factory.mktemp("flights")
    document = yaml.safe_load((FLIGHTS / "defs.yaml").read_text())
    declaration = ModelDeclaration.model_validate(document["attributes"])
    store = ArtifactStore(str(folder / "artifacts"))
    windows = [declaration.windows.window(key) for key in ("2013-01", "2013-02")]
    for window in windows:
        for name, table in read_window(window).items():
            store.write(f"flight_delay/raw/{name}", window.key, table)
        build_feature_tables(declaration, FLIGHTS / "features", window, store)
    repo = make_repo(folder / "repo", "flights_test", store.root)
    feast = open_feature_store(repo, database.url("feast"))
    apply_repository(feast, repo)
    return Flights(declaration, FLIGHTS / "features", store, windows, repo, feast)
