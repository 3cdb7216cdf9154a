"""The Feast feature store of the platform: how it is opened."""

from pathlib import Path
from typing import TYPE_CHECKING

from aios_platform.contracts.record import nearest
from aios_platform.errors import FeatureError
from aios_platform.settings import export

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

URL_VARIABLE = "AIOS_FEAST_URL"


def feast_environment(database_url: str) -> dict[str, str]:
    """Variables that `feature_store.yaml` refers to; also for running the feast command.

    Args:
        database_url: SQLAlchemy URL of Feast's database, `postgresql+psycopg2://...`.
    """
    return {URL_VARIABLE: database_url, "FEAST_USAGE": "False"}


def open_feature_store(repo: Path, database_url: str) -> "FeatureStore":
    """Open the Feast repository on this database.

    Args:
        repo: Folder with `feature_store.yaml`.
        database_url: SQLAlchemy URL of Feast's database.

    Raises:
        FeatureError: The repository's configuration is wrong.
    """
    export(feast_environment(database_url))
    from feast import FeatureStore
    from feast.repo_config import FeastConfigError

    try:
        return FeatureStore(repo_path=str(repo))
    except (FeastConfigError, FileNotFoundError) as error:
        raise FeatureError(
            f"The Feast repository {repo} cannot be opened: {error}",
            remedy="Correct its feature_store.yaml.",
        ) from error


def feature_service(store: "FeatureStore", name: str) -> "FeatureService":
    """The feature service of this name.

    Raises:
        FeatureError: There is none; the nearest name is in the message.
    """
    from feast.errors import FeatureServiceNotFoundException

    try:
        return store.get_feature_service(name)
    except FeatureServiceNotFoundException:
        names = [service.name for service in store.list_feature_services()]
        raise FeatureError(
            f"There is no feature service '{name}' in the registry. {nearest(name, names)}",
            remedy="Declare it in feature_repo, or correct features.service in the declaration.",
        ) from None
