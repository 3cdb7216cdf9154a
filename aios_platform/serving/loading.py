"""Loads what the ledger says should serve; off the event loop, and before it takes traffic."""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import FieldKind, TrainingSet
from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.rollouts import Rollout
from aios_platform.contracts.serving import Hop
from aios_platform.database import Database
from aios_platform.errors import (
    AiosError,
    DatabaseUnavailable,
    FeatureError,
    SettingsError,
    StoreError,
    VersionUnusable,
)
from aios_platform.features.online_plan import OnlinePlan, online_plan
from aios_platform.features.pinned_sets import recall
from aios_platform.ledger.champions import champion_of, history
from aios_platform.ledger.health import healthy
from aios_platform.serving.contract import input_contracts
from aios_platform.serving.deployment import Loaded, Trial
from aios_platform.serving.fallbacks import Fallbacks
from aios_platform.serving.version import ServedVersion, load_simple, load_version
from aios_platform.settings import settings

if TYPE_CHECKING:
    from feast import FeatureStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origins:
    """Where versions and their features come from.

    Attributes:
        database: Ledger, and Feast's registry and online store beside it.
        artifacts: The artifact root.
        feature_repo: Folder of the Feast repository.
    """

    database: Database
    artifacts: ArtifactStore
    feature_repo: Path

    def load(self, declaration: ModelDeclaration, champion: Champion) -> Loaded:
        """Load and warm a champion, and who answers when it cannot.

        Raises:
            VersionUnusable: It cannot serve; the reason is a sentence for the log and the alert.
            DatabaseUnavailable: The ledger or the feature registry does not answer.
        """
        pinned = self._pinned(declaration.name, champion.training_set_digest)
        _refuse_what_is_not_served(declaration, pinned)
        table = declaration.source.tables[declaration.source.rows]
        for field in pinned.features.fields:
            if field.origin == "request" and field.name not in table.columns:
                raise VersionUnusable(
                    f"The version takes '{field.name}' from requests, which is declared no more.",
                    remedy=f"Declare the column in '{declaration.source.rows}' again, or promote "
                    "a version that was trained without it.",
                )
        plan = self.plan(declaration, pinned)
        live, package = load_version(
            self.artifacts,
            declaration.serving,
            model=declaration.name,
            version=champion.version,
            digest=champion.model_digest,
            features=pinned.features,
            service_digest=pinned.service_digest,
            answers=declaration.answers,
        )
        fallbacks = Fallbacks()
        if Hop.SIMPLE in declaration.serving.fallback and package is not None:
            try:
                fallbacks.simple = load_simple(self.artifacts, package, declaration.serving)
            except VersionUnusable as error:
                logger.warning("%s serves without its simple model: %s", declaration.name, error)
        if Hop.PREVIOUS in declaration.serving.fallback:
            fallbacks.previous = self._previous(declaration, champion, live)
        return Loaded(
            declaration=declaration,
            champion=champion,
            live=live,
            fallbacks=fallbacks,
            contracts=input_contracts(declaration, pinned.features, plan.kinds if plan else {}),
            plan=plan,
        )

    def load_trial(self, declaration: ModelDeclaration, rollout: Rollout, loaded: Loaded) -> Trial:
        """Load and warm a rollout's candidate, which answers what the live version is asked.

        Raises:
            VersionUnusable: It cannot, or it takes other inputs than the live version.
        """
        pinned = self._pinned(declaration.name, rollout.training_set_digest)
        if not _takes_the_same(pinned, loaded.live):
            raise VersionUnusable(
                f"Version {rollout.version} of {declaration.name} takes other features than the "
                f"live version {loaded.live.version}.",
                remedy="Promote it without a rollout; requests change with it.",
            )
        version, _ = load_version(
            self.artifacts,
            declaration.serving,
            model=declaration.name,
            version=rollout.version,
            digest=rollout.model_digest,
            features=pinned.features,
            service_digest=pinned.service_digest,
            answers=declaration.answers,
        )
        return Trial(rollout, version)

    def plan(self, declaration: ModelDeclaration, pinned: TrainingSet) -> OnlinePlan | None:
        """How stored features are read for versions of this training set.

        Raises:
            VersionUnusable: The feature service is not the one that it was trained on.
        """
        if pinned.nothing_joined:
            return None
        try:
            plan = online_plan(declaration, feature_store(self.feature_repo, self.database))
        except FeatureError as error:
            raise VersionUnusable(error.what, remedy=error.remedy) from error
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(
                f"The feature registry does not answer: {str(error).splitlines()[0]}",
                remedy="Start Postgres; the version is loaded then.",
            ) from error
        if plan.service_digest != pinned.service_digest:
            raise VersionUnusable(
                f"The version was trained on the feature service {pinned.service_digest[:12]}; "
                f"'{declaration.features.service}' is {plan.service_digest[:12]} now.",
                remedy="Bring the feature service back, or train and promote a new version.",
            )
        return plan

    def _previous(
        self, declaration: ModelDeclaration, champion: Champion, live: ServedVersion
    ) -> ServedVersion | None:
        """The newest earlier healthy champion that takes the same inputs and loads."""
        past = history(self.database, declaration.name)
        for earlier in healthy(self.database, declaration.name, past):
            if earlier.version == champion.version:
                continue
            try:
                pinned = self._pinned(declaration.name, earlier.training_set_digest)
                if not _takes_the_same(pinned, live):
                    continue
                version, _ = load_version(
                    self.artifacts,
                    declaration.serving,
                    model=declaration.name,
                    version=earlier.version,
                    digest=earlier.model_digest,
                    features=pinned.features,
                    service_digest=pinned.service_digest,
                    answers=declaration.answers,
                )
            except AiosError as error:
                logger.warning(
                    "Version %s of %s cannot be fallen back to: %s",
                    earlier.version, declaration.name, error,
                )  # fmt: skip
                continue
            return version
        return None

    def _pinned(self, model: str, digest: str) -> TrainingSet:
        try:
            return recall(self.artifacts, model, digest)
        except StoreError as error:
            raise VersionUnusable(error.what, remedy=error.remedy) from error

    def champion(self, model: str) -> Champion | None:
        """The champion by the ledger.

        Raises:
            DatabaseUnavailable: It cannot be read.
        """
        return champion_of(self.database, model)


def _refuse_what_is_not_served(declaration: ModelDeclaration, pinned: TrainingSet) -> None:
    """Better no answer than one that was never thought through.

    Raises:
        VersionUnusable: A vector or a text comes from the feature store, or a vector has another
            length than the declared column.
    """
    columns = declaration.source.tables[declaration.source.rows].columns
    for field in pinned.features.fields:
        if field.kind not in (FieldKind.VECTOR, FieldKind.TEXT):
            continue
        if field.origin != "request":
            raise VersionUnusable(
                f"{declaration.name} takes the {field.kind} '{field.name}' from the feature store; "
                "the gateway takes vectors and texts from requests only.",
                remedy="Name the column in features.request, or score it in batches.",
            )
        column = columns.get(field.name)
        if column is not None and column.length != field.length:
            raise VersionUnusable(
                f"The version takes {field.length} numbers as '{field.name}'; the declared column "
                f"has {column.length}.",
                remedy="Train and promote a version of what is declared.",
            )


def _takes_the_same(pinned: TrainingSet, live: ServedVersion) -> bool:
    """Whether a version takes the features of the live one, in the same order."""
    return (pinned.service_digest, pinned.features) == (live.service_digest, live.features)


@cache
def feature_store(repository: Path, database: Database) -> "FeatureStore":
    """The process's Feast store, which says what is read; reading itself goes past it.

    Raises:
        FeatureError: The repository is wrong.
    """
    from aios_platform.features.store import open_feature_store

    return open_feature_store(repository, database.url("feast"))


def online_store_address(database: Database, plan: OnlinePlan) -> str:
    """Where a plan's features are read from: Feast's database, or its Redis.

    Raises:
        SettingsError: The plan reads from Redis, and AIOS_REDIS is not set.
    """
    if plan.redis is None:
        return database.url("feast")
    redis = settings().redis
    if redis is None:
        raise SettingsError("AIOS_REDIS is not set.", remedy="Set it as the platform has it.")
    return redis.get_secret_value()
