"""MLflow's backend: asked once whether it answers, and its errors as errors of the platform."""

from collections.abc import Iterator
from contextlib import contextmanager

from aios_platform.errors import DatabaseUnavailable, RegistryError


def glance(tracking_uri: str, model: str, alias: str) -> str | None:
    """The version that an alias points at, read from MLflow's tables without MLflow.

    For a look every minute from a process that has not imported MLflow, which takes seconds. It
    says less than the registry does, so take only an expected answer from it.

    Args:
        tracking_uri: URL of MLflow's database.
        model: Name of the registered model.
        alias: The alias.

    Returns:
        The version, if the alias is set and the version is there; None in every other case, also
        when the tables are not as expected.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(tracking_uri, poolclass=sqlalchemy.NullPool)
    try:
        with engine.connect() as connection:
            found = connection.execute(
                sqlalchemy.text(
                    "SELECT aliases.version FROM registered_model_aliases AS aliases "
                    "JOIN model_versions AS versions "
                    "ON versions.name = aliases.name AND versions.version = aliases.version "
                    "WHERE aliases.name = :model AND aliases.alias = :alias "
                    "AND versions.current_stage <> 'Deleted_Internal'"
                ),
                {"model": model, "alias": alias},
            ).scalar()
    except sqlalchemy.exc.SQLAlchemyError:
        return None
    return None if found is None else str(found)


def reach(tracking_uri: str) -> None:
    """Ask the database once: MLflow itself tries for minutes before it gives up."""
    if "://" not in tracking_uri or tracking_uri.startswith(("http", "sqlite", "file")):
        return
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(tracking_uri, poolclass=sqlalchemy.NullPool)
        with engine.connect():
            pass
    except sqlalchemy.exc.OperationalError as error:
        raise DatabaseUnavailable(
            f"The registry's database does not answer: {error.orig}",
            remedy="Start Postgres, or correct AIOS_DATABASE_URL.",
        ) from error


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """What MLflow and its backend raise, as errors of the platform."""
    import requests
    import sqlalchemy
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, KeyError) as error:
        if getattr(error, "error_code", "") == "TEMPORARILY_UNAVAILABLE":
            raise DatabaseUnavailable(
                f"The registry's database does not answer, to {doing}: {error}",
                remedy="Start Postgres; then run the same command again.",
            ) from error
        raise RegistryError(
            f"MLflow could not {doing}: {error}",
            remedy="Correct what MLflow names; then run the same command again.",
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, requests.exceptions.RequestException) as error:
        raise DatabaseUnavailable(
            f"The registry cannot be reached to {doing}: {error}",
            remedy="Start MLflow's backend; then run the same command again.",
        ) from error
