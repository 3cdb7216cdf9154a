"""The Feast feature store of the platform: how it is opened."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from aios_platform.errors import FeatureError
from aios_platform.profiles import feature_store_file
from aios_platform.settings import export, settings

if TYPE_CHECKING:
    from feast import FeatureStore

URL_VARIABLE = "AIOS_FEAST_URL"


def feast_environment(database_url: str) -> dict[str, str]:
    """Variables that `feature_store.yaml` refers to; also for running the feast command.

    Args:
        database_url: SQLAlchemy URL of Feast's database, `postgresql+psycopg2://...`.
    """
    redis = settings().redis
    return {
        URL_VARIABLE: database_url,
        "FEAST_USAGE": "False",
        **({} if redis is None else {"AIOS_REDIS": redis.get_secret_value()}),
    }


def open_feature_store(repo: Path, database_url: str) -> "FeatureStore":
    """Open the Feast repository on this database.

    Args:
        repo: Folder with `feature_store.yaml`.
        database_url: SQLAlchemy URL of Feast's database.

    Raises:
        FeatureError: The repository's configuration is wrong.
        SettingsError: What its online store needs is not installed.
    """
    file = feature_store_file(settings(), repo)
    export(feast_environment(database_url))
    # Importing Feast turns everybody's warnings on again.
    with warnings.catch_warnings():
        from feast import FeatureStore
        from feast.repo_config import FeastConfigError

    try:
        return FeatureStore(repo_path=str(repo), fs_yaml_file=file)
    except (FeastConfigError, FileNotFoundError) as error:
        raise FeatureError(
            f"The Feast repository {repo} cannot be opened: {error}",
            remedy=f"Correct its {file.name}.",
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Feast's progress prints and its advice out of our output."""
    logger = logging.getLogger("feast")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="feast")
            yield
    finally:
        logger.setLevel(level)
