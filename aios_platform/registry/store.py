"""The model registry: MLflow runs and versions, bytes by digest, provenance.

MLflow is the catalogue that people look at. The bytes that score come from the content-addressed
artifact store, by the digest in the version's tags: MLflow's own `load_model` is never called,
since it runs code that a model's folder can carry.
"""

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.decisions import Verdict
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.models import ModelVersion, Provenance, TrainedModel
from aios_platform.contracts.record import digest_of
from aios_platform.errors import DeclarationError, RegistryError
from aios_platform.registry.backend import reach, translated
from aios_platform.registry.package import write_package
from aios_platform.registry.provenance import missing, provenance
from aios_platform.registry.record import (
    AUTHOR_TAG,
    DECLARATION_FILE,
    DIGEST_TAG,
    SAMPLE_TAG,
    TRAINING_SET_FILE,
    TRAINING_SET_TAG,
    TrainingSet,
    record,
)
from aios_platform.registry.search_runs import SearchRuns
from aios_platform.settings import export

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

CHAMPION = "champion"
CANDIDATE_TAG = "aios.candidate"
READY = "READY"


class ModelRegistry:
    """Registers and finds versions of models.

    Args:
        tracking_uri: MLflow's backend: a database URL, a server's URL.
        artifact_location: Folder or URL under which MLflow keeps what runs and models log.

    Raises:
        DatabaseUnavailable: The backend does not answer.
    """

    def __init__(self, tracking_uri: str, artifact_location: str) -> None:
        export(
            {
                "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            }
        )
        self._artifact_location = artifact_location.rstrip("/")
        reach(tracking_uri)
        with translated("open the registry"):
            from mlflow import MlflowClient

            self._client: MlflowClient = MlflowClient(tracking_uri, registry_uri=tracking_uri)

    def register(
        self,
        *,
        declaration: ModelDeclaration,
        trained: TrainedModel,
        training_set: TrainingSet,
        store: ArtifactStore,
        sources: Mapping[str, str] = MappingProxyType({}),
    ) -> ModelVersion:
        """Register a candidate: a run, a logged ONNX model, a version that is READY.

        The same candidate (declaration, training set, ONNX bytes) always has one version: a call
        that was killed is finished by the same call made again.

        Args:
            declaration: The declared model.
            trained: What the training gave.
            training_set: What it was trained on.
            store: Where the bytes go, by digest.
            sources: Digests of the source files that made it, by part.

        Raises:
            RegistryError: MLflow refused.
            StoreError: A store cannot be reached or written.
        """
        model = declaration.name
        candidate = digest_of([declaration.fingerprint, training_set.digest, trained.digest])
        store.put(trained.onnx, ".onnx")
        with translated(f"register a version of '{model}'"):
            known = self._version_of(model, candidate)
            if known is not None:
                return known
            run = self._run(model, candidate)
            record(self._client, run, declaration, trained, training_set, sources)
            logged = self._logged_model(run, candidate, trained, training_set.features)
            self._registered_model(model, declaration)
            self._client.set_terminated(run.info.run_id)
            # Last, in one transaction with its tags: a version means that all the rest is there.
            self._client.create_model_version(
                model,
                # Not models:/<id>: MLflow resolves that by the URI of the process, not the client.
                source=logged.artifact_location,
                run_id=run.info.run_id,
                model_id=logged.model_id,
                tags={
                    CANDIDATE_TAG: candidate,
                    DIGEST_TAG: trained.digest,
                    TRAINING_SET_TAG: training_set.digest,
                    "aios.trained_through": training_set.frames[-1].key,
                    **_sample(training_set),
                },
            )
            known = self._version_of(model, candidate)
        if known is None:
            raise RegistryError(
                f"The new version of '{model}' did not become READY.",
                remedy="Run the same command again; look at MLflow's log if it stays so.",
            )
        return known

    def version(self, model: str, version: str) -> ModelVersion:
        """A registered version.

        Raises:
            RegistryError: There is none of this number, or it is not the platform's.
        """
        with translated(f"find version {version} of '{model}'"):
            return _model_version(self._client.get_model_version(model, version))

    def versions(self, model: str) -> list[ModelVersion]:
        """All versions of a model that are READY, oldest first.

        Raises:
            RegistryError: The registry cannot be read; that is never an empty list.
        """
        with translated(f"list versions of '{model}'"):
            found = self._client.search_model_versions(f"name='{model}'")
            ready = [_model_version(v) for v in found if v.status == READY]
            return sorted(ready, key=lambda v: int(v.version))

    def load(self, model: str, version: str, store: ArtifactStore) -> bytes:
        """The ONNX bytes of a version, verified by its digest.

        Raises:
            RegistryError: There is no such version.
            StoreError: The bytes are gone or are not those that were registered.
        """
        return store.get(self.version(model, version).digest, ".onnx")

    def provenance(self, model: str, version: str) -> Provenance:
        """Everything a version was made from, down to the stored windows of its rows.

        Raises:
            RegistryError: The version or a part of its record is not there.
        """
        found = self.version(model, version)
        with translated(f"follow version {version} of '{model}' to its rows"):
            run = self._client.get_run(found.run_id)
            pinned = self._document(found.run_id, TRAINING_SET_FILE)
            return provenance(found, run.data.tags, run.data.params, run.data.metrics, pinned)

    def declaration(self, model: str, version: str) -> ModelDeclaration:
        """The declaration that a version was trained by.

        Raises:
            RegistryError: It is not on record.
            DeclarationError: It is, and today's platform does not take it any more.
        """
        found = self.version(model, version)
        with translated(f"read the declaration of version {version} of '{model}'"):
            content = self._document(found.run_id, DECLARATION_FILE)
        try:
            return ModelDeclaration.model_validate(content)
        except ValidationError as error:
            raise DeclarationError(
                f"The declaration of version {version} of '{model}' is of another release: "
                f"{error.errors()[0]['msg']}.",
                remedy="Check out the release that trained it.",
            ) from None

    def missing_provenance(self, model: str, version: str) -> tuple[str, ...]:
        """What a version does not say about its origin; empty: it can be reproduced.

        Raises:
            RegistryError: The version or its run is not there.
        """
        found = self.version(model, version)
        with translated(f"read the origin of version {version} of '{model}'"):
            run = self._client.get_run(found.run_id)
            files = {entry.path for entry in self._client.list_artifacts(found.run_id)}
            return missing(found, run.data.tags, run.data.params, files)

    def set_author(self, model: str, version: str, author: str) -> None:
        """Show who trained a version; the ledger, not this, is the truth.

        Raises:
            RegistryError: MLflow refused.
        """
        with translated(f"note the author of version {version} of '{model}'"):
            self._client.set_model_version_tag(model, version, AUTHOR_TAG, author)

    def champion_alias(self, model: str) -> str | None:
        """The version that the alias `champion` points at; the ledger, not this, is the truth.

        Raises:
            RegistryError: The registry cannot be read.
        """
        with translated(f"read the alias '{CHAMPION}' of '{model}'"):
            found = self._client.get_registered_model(model).aliases.get(CHAMPION)
            return None if found is None else str(found)

    def set_champion_alias(self, model: str, version: str) -> None:
        """Point the alias `champion` at what the ledger says.

        Raises:
            RegistryError: MLflow refused.
        """
        with translated(f"set the alias '{CHAMPION}' of '{model}'"):
            self._client.set_registered_model_alias(model, CHAMPION, version)

    def remove_champion_alias(self, model: str) -> None:
        """Take the alias `champion` away: the ledger knows of none.

        Raises:
            RegistryError: MLflow refused.
        """
        with translated(f"remove the alias '{CHAMPION}' of '{model}'"):
            self._client.delete_registered_model_alias(model, CHAMPION)

    def set_verdict(
        self,
        model: str,
        version: str,
        verdict: Verdict,
        *,
        documents: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Show the gate's decision, its reasons and the exam's metrics beside the version.

        Args:
            model: Name of the model.
            version: The version that was judged.
            verdict: The verdict.
            documents: Digests of what was stored about it (card, evidence), by name.

        Raises:
            RegistryError: MLflow refused.
        """
        tags = {
            "aios.verdict": str(verdict.decision),
            "aios.verdict_reasons": "; ".join(verdict.reasons),
            "aios.exam_digest": verdict.exam_digest,
            **{f"aios.{name}_digest": digest for name, digest in documents.items()},
        }
        with translated(f"note the verdict on version {version} of '{model}'"):
            from mlflow.entities import Metric

            found = self._client.get_model_version(model, version)
            for key, value in tags.items():
                self._client.set_model_version_tag(model, version, key, value)
            at = int(verdict.decided_at.timestamp() * 1000)
            metrics = verdict.candidate_metrics.items()
            self._client.log_batch(
                found.run_id, metrics=[Metric(f"exam_{k}", v, at, 0) for k, v in metrics]
            )

    def search_runs(self, model: str, study: str, tags: Mapping[str, str]) -> SearchRuns:
        """The nested runs of a search, in the model's experiment.

        Raises:
            RegistryError: MLflow refused.
        """
        with translated(f"find the runs of '{model}'"):
            experiment_id = self._experiment(model)
        return SearchRuns(self._client, experiment_id, study, tags)

    def _document(self, run_id: str, name: str) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = self._client.download_artifacts(run_id, name, folder)
            return json.loads(Path(path).read_text(encoding="utf-8"))

    def _version_of(self, model: str, candidate: str) -> ModelVersion | None:
        found = self._client.search_model_versions(
            f"name='{model}' and tag.`{CANDIDATE_TAG}`='{candidate}'"
        )
        ready = sorted((v for v in found if v.status == READY), key=lambda v: int(v.version))
        return _model_version(ready[0]) if ready else None

    def _experiment(self, model: str) -> str:
        experiment = self._client.get_experiment_by_name(model)
        if experiment:
            return str(experiment.experiment_id)
        return str(
            self._client.create_experiment(
                model, artifact_location=f"{self._artifact_location}/{model}"
            )
        )

    def _run(self, model: str, candidate: str) -> "Run":
        experiment_id = self._experiment(model)
        begun = self._client.search_runs(
            [experiment_id], f"tags.`{CANDIDATE_TAG}`='{candidate}'", max_results=1
        )
        if begun:
            return begun[0]
        return self._client.create_run(
            experiment_id, tags={CANDIDATE_TAG: candidate}, run_name=f"{model}-{candidate[:8]}"
        )

    def _logged_model(
        self, run: "Run", candidate: str, trained: TrainedModel, schema: FeatureSchema
    ) -> "LoggedModel":
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        run_id, experiment_id = run.info.run_id, run.info.experiment_id
        for logged in self._client.search_logged_models(
            [experiment_id], f"tags.`{CANDIDATE_TAG}` = '{candidate}'"
        ):
            if logged.status == LoggedModelStatus.READY:
                return logged
        logged = self._client.create_logged_model(
            experiment_id,
            name="model",
            source_run_id=run_id,
            model_type="onnx",
            tags={CANDIDATE_TAG: candidate, DIGEST_TAG: trained.digest},
        )
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / "model"
            write_package(
                package,
                trained.onnx,
                schema,
                model_id=logged.model_id,
                run_id=run_id,
                location=logged.artifact_location,
            )
            self._client.log_model_artifacts(logged.model_id, str(package))
        self._client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        return self._client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)

    def _registered_model(self, model: str, declaration: ModelDeclaration) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(
                model, tags={"aios.owner": declaration.owner}, description=declaration.description
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _model_version(found: Any) -> ModelVersion:
    tags: Mapping[str, str] = found.tags
    if DIGEST_TAG not in tags or TRAINING_SET_TAG not in tags:
        raise RegistryError(
            f"Version {found.version} of '{found.name}' carries no digest: it was not registered "
            "by the platform.",
            remedy="Register models through the platform only; delete this version in MLflow.",
        )
    return ModelVersion(
        model=found.name,
        version=str(found.version),
        run_id=found.run_id,
        digest=tags[DIGEST_TAG],
        training_set_digest=tags[TRAINING_SET_TAG],
        created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        tags=dict(tags),
    )


def _sample(training_set: TrainingSet) -> dict[str, str]:
    share = getattr(training_set, "sample", None)
    return {} if share is None else {SAMPLE_TAG: str(share)}
