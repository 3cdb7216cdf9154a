"""Small Feast repositories on our offline store, and an oracle by brute force."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

START = datetime(2024, 1, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    """A moment so many hours after the start of 2024."""
    return START + timedelta(hours=hours)


@pytest.fixture
def feast_store(tmp_path: Path) -> Callable[..., Any]:
    """Makes a Feast store with a file registry on our offline store."""

    def make(*objects: Any, online: Any = None, **offline: Any) -> Any:
        from feast import FeatureStore, RepoConfig

        store = FeatureStore(
            config=RepoConfig(
                project="test",
                provider="local",
                registry=str(tmp_path / "registry.db"),
                repo_path=tmp_path,
                offline_store={
                    "type": "aios_platform.features.offline_store.AsOfJoinOfflineStore",
                    **offline,
                },
                online_store=online,
                entity_key_serialization_version=3,
            )
        )
        if objects:
            store.apply(list(objects))
        return store

    return make
