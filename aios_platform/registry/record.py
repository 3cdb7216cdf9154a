"""What a run says of the model it trained, so that a person can follow it to the rows."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from aios_platform.contracts.datasets import DatasetVersion, FeatureSchema
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.models import TrainedModel
from aios_platform.registry.origin import git_commit, library_versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DIGEST_TAG = "aios.model_digest"
TRAINING_SET_TAG = "aios.training_set_digest"
AUTHOR_TAG = "aios.author"
SAMPLE_TAG = "aios.sample"
DECLARATION_TAG = "aios.declaration"
SERVICE_TAG = "aios.feature_service"
COMMIT_TAG = "aios.git_commit"
SOURCES_TAG = "aios.sources"
LIBRARIES_TAG = "aios.libraries"
TRAINING_SET_FILE = "training_set.json"
DECLARATION_FILE = "declaration.json"
# MLflow keeps at most this much of a dataset's digest; the tags hold it whole.
DATASET_DIGEST = 36


class TrainingSet(Protocol):
    """What the registry needs to know of a pinned training set."""

    @property
    def frames(self) -> Sequence[DatasetVersion]:
        """The stored windows, oldest first."""

    @property
    def features(self) -> FeatureSchema:
        """The inputs of the model."""

    @property
    def service_digest(self) -> str:
        """Digest of the feature service."""

    @property
    def digest(self) -> str:
        """Digest of the whole set."""


def record(
    client: "MlflowClient",
    run: "Run",
    declaration: ModelDeclaration,
    trained: TrainedModel,
    training_set: TrainingSet,
    sources: Mapping[str, str],
) -> None:
    """Log parameters, metrics, tags, the datasets and the declaration; twice is as good as once.

    Args:
        client: MLflow's client.
        run: The run to log to.
        declaration: The declared model.
        trained: What the training gave.
        training_set: What it was trained on.
        sources: Digests of the source files that made it, by part.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    run_id, start = run.info.run_id, run.info.start_time
    parameters = {
        **trained.parameters,
        "calibration_slope": trained.calibration.slope,
        "calibration_intercept": trained.calibration.intercept,
        "train_windows": ",".join(trained.train_windows),
        "validation_windows": ",".join(trained.validation_windows),
        "rows": trained.rows,
    }
    tags = {
        DIGEST_TAG: trained.digest,
        TRAINING_SET_TAG: training_set.digest,
        DECLARATION_TAG: declaration.fingerprint,
        SERVICE_TAG: training_set.service_digest,
        COMMIT_TAG: git_commit(),
        SOURCES_TAG: json.dumps(dict(sources), sort_keys=True),
        LIBRARIES_TAG: json.dumps(library_versions(), sort_keys=True),
        "mlflow.user": declaration.owner,
    }
    metrics = [Metric(f"validation_{k}", v, start, 0) for k, v in trained.metrics.items()]
    metrics.append(Metric("onnx_parity", trained.parity, start, 0))
    metrics.append(Metric("training_seconds", trained.seconds, start, 0))
    for epoch in trained.epochs:
        values = {"train_loss": epoch.train_loss} | {
            f"validation_{k}": v for k, v in epoch.validation.items()
        }
        prefix = f"network_{epoch.member}"
        metrics += [Metric(f"{prefix}/{k}", v, start, epoch.epoch) for k, v in values.items()]
    client.log_batch(
        run_id,
        metrics=metrics,
        params=[Param(key, str(value)) for key, value in parameters.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    client.log_inputs(
        run_id,
        [
            DatasetInput(
                Dataset(
                    name=f"{frame.dataset}/{frame.key}",
                    digest=frame.digest[:DATASET_DIGEST],
                    source_type="local",
                    source=json.dumps({"uri": frame.uri}),
                    profile=json.dumps({"num_rows": frame.rows}),
                ),
                [InputTag("mlflow.data.context", "training")],
            )
            for frame in training_set.frames
        ],
    )
    client.log_dict(
        run_id,
        {
            "digest": training_set.digest,
            "frames": [frame.model_dump(mode="json") for frame in training_set.frames],
            "features": training_set.features.model_dump(mode="json"),
        },
        TRAINING_SET_FILE,
    )
    client.log_dict(run_id, declaration.model_dump(mode="json"), DECLARATION_FILE)
