"""The registry on the embedded Postgres: once, whole, followable, and honest when it fails."""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import (
    DatasetVersion,
    FeatureField,
    FeatureSchema,
    FieldKind,
)
from aios_platform.contracts.decisions import Decision, Outcome, RuleResult, Verdict
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.models import Calibration, Epoch, TrainedModel
from aios_platform.errors import (
    ArtifactCorrupt,
    ArtifactMissing,
    DatabaseUnavailable,
    RegistryError,
)
from aios_platform.registry.store import ModelRegistry
from tests.unit.inference.conftest import make_onnx

pytestmark = pytest.mark.postgres

WINDOWS = ("2024-01", "2024-02")


@dataclass(frozen=True)
class TrainingSet:
    frames: tuple[DatasetVersion, ...]
    features: FeatureSchema
    service_digest: str
    digest: str


class Killed(BaseException):
    """Stands for a process that dies: nothing in the registry may catch it."""


@pytest.fixture(scope="module")
def registry(database, tmp_path_factory):
    return ModelRegistry(database.url("mlflow"), str(tmp_path_factory.mktemp("mlflow")))


@pytest.fixture(scope="module")
def training_set(tmp_path_factory):
    import pyarrow as pa

    store = ArtifactStore(str(tmp_path_factory.mktemp("frames")))
    frames = tuple(
        store.write(
            "flights/training_set",
            window,
            pa.table({"row": [index, index + 1]}),
            inputs={"flights/raw": "c" * 64},
        )
        for index, window in enumerate(WINDOWS)
    )
    features = FeatureSchema(
        fields=(
            FeatureField(name="delay", kind=FieldKind.NUMERICAL, origin="request"),
            FeatureField(name="carrier", kind=FieldKind.CATEGORICAL, origin="carriers"),
        )
    )
    return store, TrainingSet(frames, features, "5" * 64, "7" * 64)


@pytest.fixture
def declaration():
    """A model of this test's own."""
    column = {"type": "timestamp"}
    return ModelDeclaration.model_validate(
        {
            "name": f"m{uuid.uuid4().hex[:8]}",
            "owner": "team:tests",
            "windows": {"start": "2024-01"},
            "source": {
                "entrypoint": "package.module:read",
                "rows": "flights",
                "prediction_time": "at",
                "tables": {
                    "flights": {
                        "row_id": ["id"],
                        "timestamp": "at",
                        "columns": {
                            "id": {"type": "string"},
                            "at": column,
                            "known": column,
                            "late": {"type": "bool"},
                        },
                    }
                },
            },
            "features": {"service": "flights"},
            "label": {"column": "late", "known_at": "known"},
        }
    )


def trained_model(scale=0.1):
    onnx = make_onnx(scale)
    return TrainedModel(
        onnx=onnx,
        digest=hashlib.sha256(onnx).hexdigest(),
        metrics={"roc_auc": 0.77, "ece": 0.01},
        parameters={"epochs": "4"},
        calibration=Calibration(slope=1.1, intercept=-0.1),
        epochs=(
            Epoch(member=0, epoch=0, seconds=1, train_loss=0.5, validation={"log_loss": 0.4}),
            Epoch(member=0, epoch=1, seconds=1, train_loss=0.4, validation={"log_loss": 0.3}),
        ),
        train_windows=WINDOWS[:1],
        validation_windows=WINDOWS[1:],
        rows=4,
        parity=1e-7,
        seconds=2,
        resumed=False,
    )


@pytest.fixture
def register(registry, declaration, training_set, store):
    def call(scale=0.1):
        return registry.register(
            declaration=declaration,
            trained=trained_model(scale),
            training_set=training_set[1],
            store=store,
        )

    return call


def test_a_version_leads_to_its_rows(registry, register, declaration, training_set):
    frames, pinned = training_set
    version = register()
    found = registry.provenance(declaration.name, version.version)

    assert found.version == version
    assert found.declaration_fingerprint == declaration.fingerprint
    assert found.feature_service_digest == pinned.service_digest
    assert found.version.training_set_digest == pinned.digest
    assert found.features == pinned.features
    assert found.training_frames == pinned.frames
    assert [frames.read(frame)["row"].to_pylist() for frame in found.training_frames] == [
        [0, 1],
        [1, 2],
    ]
    assert (found.train_windows, found.validation_windows) == (WINDOWS[:1], WINDOWS[1:])
    assert found.metrics["validation_roc_auc"] == 0.77
    assert found.parameters["epochs"] == "4"
    assert found.libraries["torch"]
    assert found.git_commit


def test_the_bytes_come_back_by_digest(registry, register, declaration, store):
    version = register()
    assert registry.load(declaration.name, version.version, store) == make_onnx()
    blob = Path(store.root, "blobs", version.digest[:2], f"{version.digest}.onnx")
    content = bytearray(blob.read_bytes())
    content[50] ^= 1
    blob.write_bytes(content)
    with pytest.raises(ArtifactCorrupt):
        registry.load(declaration.name, version.version, store)
    blob.unlink()
    with pytest.raises(ArtifactMissing):
        registry.load(declaration.name, version.version, store)
    assert register() == version, "registering again restores the bytes, under the same version"
    assert registry.load(declaration.name, version.version, store) == make_onnx()


def test_no_pickle_reaches_mlflow(registry, register, declaration):
    import mlflow.environment_variables as variables

    version = register()
    assert variables.MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get() is False
    folder = Path(registry._artifact_location, declaration.name)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert "model.onnx" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".py", ".data"))]
    assert version.tags["aios.trained_through"] == WINDOWS[-1]


def test_the_same_candidate_has_one_version_and_another_has_the_next(
    registry, register, declaration
):
    first = register()
    assert register() == first
    second = register(scale=0.2)
    assert (first.version, second.version) == ("1", "2")
    assert registry.versions(declaration.name) == [first, second]


@pytest.mark.parametrize(
    "step",
    [
        "create_run",
        "log_batch",
        "log_inputs",
        "create_logged_model",
        "log_model_artifacts",
        "finalize_logged_model",
        "create_registered_model",
        "create_model_version",
        "set_terminated",
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_step_the_same_call_finishes_with_one_version(
    registry, register, declaration, monkeypatch, step, when
):
    real = getattr(registry._client, step)

    def die(*args, **kwargs):
        if when == "after":
            real(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(registry._client, step, die)
        with pytest.raises(Killed):
            register()
    version = register()
    assert registry.versions(declaration.name) == [version]
    assert version.version == "1"
    runs = registry._client.search_runs(
        [registry._client.get_experiment_by_name(declaration.name).experiment_id]
    )
    assert [run.info.status for run in runs] == ["FINISHED"]


def test_the_alias_points_where_it_is_told(registry, register, declaration):
    first, second = register(), register(scale=0.2)
    assert registry.champion_alias(declaration.name) is None
    for version in (first, second, first):
        registry.set_champion_alias(declaration.name, version.version)
        assert registry.champion_alias(declaration.name) == version.version
    with pytest.raises(RegistryError):
        registry.set_champion_alias(declaration.name, "99")
    assert registry.champion_alias(declaration.name) == first.version


def test_the_verdict_is_shown_beside_the_version(registry, register, declaration):
    version = register()
    verdict = Verdict(
        model=declaration.name,
        decision=Decision.REJECT,
        candidate_version=version.version,
        champion_version=None,
        exam_digest="e" * 64,
        exam_windows=("2024-03",),
        rules=(RuleResult(rule="floor", outcome=Outcome.FAIL, reason="0.6 is below 0.7 — über"),),
        candidate_metrics={"roc_auc": 0.6},
        champion_metrics={},
        decided_at=datetime.now(UTC),
    )
    registry.set_verdict(declaration.name, version.version, verdict)
    tags = registry.version(declaration.name, version.version).tags
    assert tags["aios.verdict"] == "reject"
    assert tags["aios.verdict_reasons"] == "0.6 is below 0.7 — über"
    assert registry.provenance(declaration.name, version.version).metrics["exam_roc_auc"] == 0.6


def test_a_version_that_the_platform_did_not_register_is_not_trusted(
    registry, register, declaration
):
    register()
    foreign = registry._client.create_model_version(declaration.name, source="/elsewhere")
    with pytest.raises(RegistryError, match="carries no digest"):
        registry.version(declaration.name, foreign.version)


def test_an_unknown_version_is_an_error(registry, declaration):
    with pytest.raises(RegistryError, match="not found"):
        registry.version(declaration.name, "1")


def test_a_registry_that_cannot_be_reached_is_never_an_empty_one(tmp_path, register, declaration):
    nobody = "postgresql+psycopg2://aios@127.0.0.1:1/mlflow?connect_timeout=2"
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        ModelRegistry(nobody, str(tmp_path))


def test_a_registry_that_goes_away_is_an_error(registry, register, declaration, monkeypatch):
    import sqlalchemy

    register()
    store = registry._client._get_registry_client().store

    def refuse(*args, **kwargs):
        raise sqlalchemy.exc.OperationalError("select", {}, Exception("server closed"))

    engine = store.engine
    with monkeypatch.context() as patch:
        patch.setattr(engine.dialect, "do_execute", refuse)
        for call in (
            lambda: registry.versions(declaration.name),
            lambda: registry.champion_alias(declaration.name),
            register,
        ):
            with pytest.raises(DatabaseUnavailable):
                call()
    assert len(registry.versions(declaration.name)) == 1
