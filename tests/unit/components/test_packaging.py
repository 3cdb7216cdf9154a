"""What a version brings along to be served: from its own pinned rows, and before it goes live."""

import logging
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle import carrying_out
from aios_platform.components.model_lifecycle.carrying_out import Status, carry_out
from aios_platform.components.model_lifecycle.handoff import Candidate, Judged
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.packaging import (
    build_package,
    ensure_package,
    sets_line,
    tiers_table,
)
from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind, TrainingSet
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.serving import TierModel
from aios_platform.contracts.training import Training
from aios_platform.errors import ArtifactMissing, LifecycleError
from aios_platform.inference.conformal import covered_by, prediction_sets
from aios_platform.inference.packages import read_package
from aios_platform.inference.session import Session
from aios_platform.ledger.champions import champion_of
from aios_platform.metrics import roc_auc
from aios_platform.resources.stores import Stores
from aios_platform.training.trainer import train
from tests.unit.contracts.test_declaration import MINIMAL
from tests.unit.inference.networks import build
from tests.unit.training.conftest import make_frame, schema_of
from tests.verdicts import verdict

# Dagster's resources, on a Pydantic that is newer than they are.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")

WINDOWS = ("2013-01", "2013-02", "2013-03")
EXAM = "2013-04"
SCHEMA = schema_of(("distance", "delay"), ("carrier",))
FRAME = make_frame(rows=400)
MODEL = build(FRAME, SCHEMA, hidden=(32, 16))
SMALL = build(FRAME, SCHEMA, hidden=(8,))


@pytest.fixture
def names(tmp_path) -> Names:
    declared = MINIMAL | {
        "name": "toy",
        "label": MINIMAL["label"] | {"column": "is_late"},
        "serving": {"uncertainty": {"coverage": 0.8}},
    }
    declared["source"] = MINIMAL["source"] | {"tables": {"toys": tables()}}
    return Names(ModelDeclaration.model_validate(declared), tmp_path)


def tables():
    table = dict(MINIMAL["source"]["tables"]["toys"])
    table["columns"] = table["columns"] | {"is_late": {"type": "bool", "nullable": True}}
    return table


def pinned(store, *, labels=None, schema=SCHEMA, frame=FRAME) -> TrainingSet:
    """Windows of 400 rows each, the last one the exam; `labels` replaces those of a window."""
    frames = []
    for place, key in enumerate((*WINDOWS, EXAM)):
        part = frame.slice(400 * place, 400)
        if labels and key in labels:
            column = pa.array([labels[key]] * 400, pa.bool_())
            part = part.set_column(part.schema.get_field_index("is_late"), "is_late", column)
        frames.append(store.write("toy/training_set", key, part))
    return TrainingSet(
        frames=tuple(frames[:-1]), exam=tuple(frames[-1:]), features=schema,
        service_digest="5" * 64, as_of="2013-06-01T00:00:00+00:00", cells_replayed=1,
    )  # fmt: skip


def without_times(package):
    return package.model_dump(exclude={"tiers": {"__all__": {"row_ms", "batch_row_us"}}})


def test_a_package_says_what_each_tier_is_worth_on_the_exam(names, store):
    digest, _ = store.put(MODEL, ".onnx")
    record = pinned(store)
    package = build_package(names, store, digest, record)

    assert read_package(store, "toy", digest) == package
    exam = FRAME.slice(1200, 400)
    exam = exam.filter(exam["is_late"].is_valid())
    labels = exam["is_late"].to_numpy(zero_copy_only=False).astype(bool)
    full, int8 = package.tiers
    scores = {}
    for tier in (full, int8):
        onnx = store.get(tier.digest, ".onnx")
        scores[tier.model] = Session(onnx, digest=tier.digest).predict(exam)
        assert tier.bytes == len(onnx)
        assert tier.metrics["roc_auc"] == roc_auc(labels, scores[tier.model])
        sets = prediction_sets(scores[tier.model], package.conformal)
        assert tier.metrics["coverage"] == covered_by(sets, labels).mean()
        assert tier.row_ms > 0
        assert tier.batch_row_us > 0
    assert (full.model, full.digest, full.largest_difference) == (TierModel.FULL, digest, 0)
    assert int8.largest_difference == pytest.approx(
        np.abs(scores[TierModel.FULL] - scores[TierModel.INT8]).max()
    )
    assert package.conformal.coverage == 0.8
    assert package.conformal.calibrated_on == ("2013-03",)
    assert package.conformal.measured_on == package.exam_windows == (EXAM,)
    assert package.conformal.measured == full.metrics["coverage"]
    assert package.simple.inputs == SCHEMA.names
    simple = Session(store.get(package.simple.digest, ".onnx")).predict(exam)
    assert package.simple.metrics["roc_auc"] == roc_auc(labels, simple)

    assert without_times(build_package(names, store, digest, record)) == without_times(package)
    assert f"{full.metrics['roc_auc']:.4f}" in tiers_table(package)
    assert f"{package.conformal.measured:.1%} of {len(labels)} rows" in sets_line(package.conformal)


def test_what_is_there_is_not_built_again(names, store):
    digest, _ = store.put(MODEL, ".onnx")
    record = pinned(store)
    package = ensure_package(names, store, digest, record)
    for frame in (*record.frames, *record.exam):
        Path(frame.uri).unlink()
    assert ensure_package(names, store, digest, record) == package
    with pytest.raises(ArtifactMissing):
        build_package(names, store, digest, record)


@pytest.mark.parametrize(
    ("onnx", "labels", "origin", "missing", "why"),
    [
        (SMALL, {}, "request", ["int8"], "no dense layer"),
        (MODEL, {"2013-03": False}, "request", ["conformal"], "both classes are needed"),
        (MODEL, {EXAM: True}, "request", ["conformal", "metrics"], "both classes are needed"),
        (MODEL, {}, "a_view", ["simple"], "0 request columns"),
        (
            MODEL,
            {"2013-01": False, "2013-02": False, "2013-03": False},
            "request",
            ["simple", "conformal"],
            "No simple model",
        ),
    ],
    ids=[
        "small network",
        "one class held out",
        "one class in the exam",
        "nothing sent",
        "no signal",
    ],
)
def test_what_cannot_be_made_is_left_out_and_said(
    names, store, caplog, onnx, labels, origin, missing, why
):
    digest, _ = store.put(onnx, ".onnx")
    fields = tuple(field.model_copy(update={"origin": origin}) for field in SCHEMA.fields)
    record = pinned(store, labels=labels, schema=SCHEMA.model_copy(update={"fields": fields}))
    with caplog.at_level(logging.WARNING):
        package = build_package(names, store, digest, record)
    assert why in caplog.text
    assert (package.tier(TierModel.INT8) is None) == ("int8" in missing)
    assert (package.conformal is None) == ("conformal" in missing)
    assert (package.simple is None) == ("simple" in missing)
    assert (package.tiers[0].metrics == {}) == ("metrics" in missing)
    assert tiers_table(package)


def test_the_simple_model_reads_no_text_and_no_vector(names, store, tmp_path):
    fields = (
        FeatureField(name="message", kind=FieldKind.TEXT, origin="request"),
        *SCHEMA.fields,
        FeatureField(name="image", kind=FieldKind.VECTOR, origin="request", length=2),
    )
    schema = FeatureSchema(fields=fields)
    frame = FRAME.append_column(
        "message", pa.array(["late" if late else "well" for late in FRAME["is_late"].to_pylist()])
    ).append_column("image", pa.array([[0.5, 1.0]] * len(FRAME), pa.list_(pa.float32(), 2)))
    record = pinned(store, schema=schema, frame=frame)
    trained = train(
        Training(network="text_embedding", hidden=(16,), epochs=1, accelerator="cpu"),
        schema, store.scan(record.frames), label="is_late", workdir=tmp_path / "training",
    )  # fmt: skip
    store.put(trained.onnx, ".onnx")
    package = build_package(names, store, trained.digest, record)
    assert package.tiers[0].metrics
    assert package.simple.inputs == SCHEMA.names
    assert package.simple.metrics["roc_auc"] > 0.5
    stored = tuple(
        field.model_copy(update={"origin": "a_view"}) if field.name in SCHEMA.names else field
        for field in fields
    )
    silent = record.model_copy(update={"features": FeatureSchema(fields=stored)})
    assert build_package(names, store, trained.digest, silent).simple is None


def test_an_exam_without_labels_measures_nothing(names, store):
    digest, _ = store.put(MODEL, ".onnx")
    with pytest.raises(LifecycleError, match="no labelled row"):
        build_package(names, store, digest, pinned(store, labels={EXAM: None}))
    assert read_package(store, "toy", digest) is None


def asked(names, digest, record) -> Judged:
    made = verdict(names.model, "1", candidate_digest=digest)
    return Judged(
        verdict=made,
        candidate=Candidate(
            version="1", run_id="r", model_digest=digest, training_set_digest=record.digest,
            trained_through="2013-03", training_set=record, author="somebody",
        ),
    )  # fmt: skip


@pytest.mark.postgres
def test_a_version_goes_live_with_its_package_and_not_without(database, names, store, monkeypatch):
    monkeypatch.setattr(carrying_out, "follow", lambda model, stores: "")
    names = Names(
        names.declaration.model_copy(update={"name": f"m_{uuid.uuid4().hex[:8]}"}), names.folder
    )
    stores, record = Stores(ArtifactStore(store.root)), pinned(store)
    digest, uri = store.put(MODEL, ".onnx")
    Path(uri).unlink()
    with pytest.raises(ArtifactMissing):
        carry_out(names, asked(names, digest, record), stores)
    assert champion_of(database, names.model) is None

    store.put(MODEL, ".onnx")
    carried = carry_out(names, asked(names, digest, record), stores)
    assert carried.status is Status.PROMOTED
    assert carried.package == read_package(store, names.model, digest)
    assert champion_of(database, names.model).model_digest == digest
