"""Thin Dagster resources, one per store. They open; what they open does the work."""

from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING

import dagster as dg

from aios_platform.artifacts import ArtifactStore
from aios_platform.database import Database, database
from aios_platform.settings import settings

if TYPE_CHECKING:
    from feast import FeatureStore

    from aios_platform.registry.store import ModelRegistry


class Artifacts(dg.ConfigurableResource[None]):
    """The artifact root."""

    def open(self) -> ArtifactStore:
        """The store under the configured root."""
        return ArtifactStore(settings().artifact_root)


class Ledger(dg.ConfigurableResource[None]):
    """Our own schema in Postgres."""

    def open(self) -> Database:
        """The process's database.

        Raises:
            DatabaseUnavailable: It cannot be reached.
        """
        return database()


class Features(dg.ConfigurableResource[None]):
    """The Feast feature store of `feature_repo/`."""

    def open(self) -> "FeatureStore":
        """The process's feature store, with the repository's definitions applied.

        Raises:
            FeatureError: The repository is wrong.
        """
        return _feature_store()


@cache
def _feature_store() -> "FeatureStore":
    from aios_platform.features.repository import apply_repository
    from aios_platform.features.store import open_feature_store

    opened = database()
    repository = settings().feature_repo
    with opened.lock("feast registry"):
        store = open_feature_store(repository, opened.url("feast"))
        apply_repository(store, repository)
    return store


class Registry(dg.ConfigurableResource[None]):
    """The MLflow model registry."""

    def open(self) -> "ModelRegistry":
        """The registry on the platform's database.

        Raises:
            RegistryError: It cannot be reached.
        """
        from aios_platform.registry.store import ModelRegistry

        return ModelRegistry(database().url("mlflow"), f"{settings().artifact_root}/mlflow")


@dataclass(frozen=True)
class Stores:
    """Every store, each opened when it is first asked for.

    Raises:
        DatabaseUnavailable: From the property that was asked for.
    """

    artifacts: ArtifactStore = field(default_factory=lambda: Artifacts().open())

    @cached_property
    def database(self) -> Database:
        """Our own schema in Postgres."""
        return Ledger().open()

    @cached_property
    def registry(self) -> "ModelRegistry":
        """The MLflow model registry."""
        return Registry().open()

    @cached_property
    def features(self) -> "FeatureStore":
        """The Feast feature store."""
        return Features().open()
