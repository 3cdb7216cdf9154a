"""Thin Dagster resources, one per store. They open; what they open does the work."""

from typing import TYPE_CHECKING

import dagster as dg

from aios_platform.artifacts import ArtifactStore
from aios_platform.database import Database, database
from aios_platform.settings import settings

if TYPE_CHECKING:
    from feast import FeatureStore

    from aios_platform.registry.store import ModelRegistry


class Artifacts(dg.ConfigurableResource):
    """The artifact root."""

    def open(self) -> ArtifactStore:
        """The store under the configured root."""
        return ArtifactStore(settings().artifact_root)


class Ledger(dg.ConfigurableResource):
    """Our own schema in Postgres."""

    def open(self) -> Database:
        """The process's database.

        Raises:
            DatabaseUnavailable: It cannot be reached.
        """
        return database()
