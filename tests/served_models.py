"""Models to serve in tests: small networks by hand, promoted on a real ledger."""

import copy
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import (
    DatasetVersion,
    FeatureField,
    FeatureSchema,
    FieldKind,
    TrainingSet,
)
from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.packages import (
    Conformal,
    ServingPackage,
    SimpleModel,
    TierFigures,
)
from aios_platform.contracts.serving import TierModel
from aios_platform.database import Database
from aios_platform.declarations import COMPONENT
from aios_platform.features.pinned_sets import remember
from aios_platform.inference.packages import write_package
from aios_platform.ledger.champions import champion_of, promote
from tests.verdicts import verdict

COLUMNS = {
    "id": {"type": "string"},
    "at": {"type": "timestamp"},
    "size": {"type": "float", "min": 0, "max": 1000},
    "weight": {"type": "float", "nullable": True},
    "colour": {"type": "string", "values": ["blue", "red"]},
    "broke": {"type": "bool", "nullable": True},
    "broke_at": {"type": "timestamp", "nullable": True},
}
ATTRIBUTES: dict[str, Any] = {
    "name": "toy",
    "owner": "team:toys",
    "windows": {"start": "2013-01"},
    "source": {
        "entrypoint": "toys.source:read_window",
        "rows": "toys",
        "prediction_time": "at",
        "tables": {"toys": {"row_id": ["id"], "timestamp": "at", "columns": COLUMNS}},
    },
    "features": {"service": "toy_v1", "request": ["size", "weight", "colour"]},
    "label": {"column": "broke", "known_at": "broke_at"},
}
SERVICE_DIGEST = hashlib.sha256(b"toy_v1").hexdigest()
FEATURES = FeatureSchema(
    fields=(
        FeatureField(name="size", kind=FieldKind.NUMERICAL, origin="request"),
        FeatureField(name="weight", kind=FieldKind.NUMERICAL, origin="request"),
        FeatureField(name="colour", kind=FieldKind.CATEGORICAL, origin="request"),
    )
)
ROW = {"size": 3.5, "weight": 0.25, "colour": "red"}


def declaration(name: str = "toy", **serving: Any) -> ModelDeclaration:
    return ModelDeclaration.model_validate(attributes(name, **serving))


def attributes(name: str = "toy", **serving: Any) -> dict[str, Any]:
    return {**copy.deepcopy(ATTRIBUTES), "name": name, "serving": serving}


def declare(folder: Path, name: str = "toy", **serving: Any) -> ModelDeclaration:
    """Write the declaration where a gateway finds it."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    content = {"type": COMPONENT, "attributes": attributes(name, **serving)}
    (place / "defs.yaml").write_text(yaml.safe_dump(content))
    return declaration(name, **serving)


def network(
    features: FeatureSchema = FEATURES,
    *,
    seed: int = 0,
    hidden: tuple[int, ...] = (8,),
    bias: float = 0.0,
) -> bytes:
    """An ONNX model as training exports them: missing values are zero, texts are coded."""
    random = np.random.default_rng(seed)
    constants = [numpy_helper.from_array(np.array(0, np.float32), "zero")]
    nodes = [
        helper.make_node("Concat", list(features.numerical), ["numerical"], axis=1),
        helper.make_node("IsNaN", ["numerical"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "numerical"], ["present"]),
    ]
    columns = ["present"]
    for name in features.categorical:
        nodes.append(
            helper.make_node(
                "LabelEncoder", [name], [f"{name}.code"], domain="ai.onnx.ml",
                keys_strings=["blue", "red"], values_floats=[1.0, 2.0], default_float=0.0,
            )
        )  # fmt: skip
        columns.append(f"{name}.code")
    nodes.append(helper.make_node("Concat", columns, ["layer0"], axis=1))
    width = len(features.numerical) + len(features.categorical)
    for place, size in enumerate([*hidden, 1]):
        weights = random.normal(0, 1 / np.sqrt(width), (width, size)).astype(np.float32)
        offset = np.full(size, bias if size == 1 else 0.0, np.float32)
        constants += [
            numpy_helper.from_array(weights, f"w{place}"),
            numpy_helper.from_array(offset, f"b{place}"),
        ]
        last = place == len(hidden)
        out = "logit" if last else f"pre{place}"
        nodes.append(helper.make_node("Gemm", [f"layer{place}", f"w{place}", f"b{place}"], [out]))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"layer{place + 1}"]))
        width = size
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    nodes += [
        helper.make_node("Sigmoid", ["logit"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["probability"]),
    ]
    kinds = dict.fromkeys(features.numerical, TensorProto.FLOAT)
    kinds |= dict.fromkeys(features.categorical, TensorProto.STRING)
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(n, kinds[n], ["rows", 1]) for n in features.names],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["rows"])],
        initializer=constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def brittle() -> bytes:
    """A model that scores rows whose numbers are missing or 0, and no others: it overflows."""
    model = onnx.load_from_string(network(seed=3))
    for constant in model.graph.initializer:
        if constant.name == "w0":
            values = numpy_helper.to_array(constant).copy()
            values[: len(FEATURES.numerical)] = 3e38
            values[:, ::2] *= -1
            constant.CopyFrom(numpy_helper.from_array(values, "w0"))
    return bytes(model.SerializeToString(deterministic=True))


def pack(
    store: ArtifactStore,
    content: bytes,
    *,
    model: str,
    fast: bytes | None = None,
    simple: bytes | None = None,
    inputs: tuple[str, ...] = (),
    quantiles: tuple[float, float] | None = None,
) -> None:
    """Write the serving package of a version.

    Args:
        store: Where versions are.
        content: The version's own bytes.
        model: Its model.
        fast: What answers in the tier `int8`.
        simple: The simple model.
        inputs: What that takes.
        quantiles: Of the nonconformity of negatives, of positives.
    """
    digest = hashlib.sha256(content).hexdigest()
    figures = {"metrics": {}, "row_ms": 0, "batch_row_us": 0, "largest_difference": 0, "bytes": 1}
    tiers = [TierFigures(model=TierModel.FULL, digest=digest, **figures)]
    if fast is not None:
        tiers.append(
            TierFigures(model=TierModel.INT8, digest=store.put(fast, ".onnx")[0], **figures)
        )
    package = ServingPackage(
        model=model,
        model_digest=digest,
        service_digest=SERVICE_DIGEST,
        features=FEATURES,
        tiers=tuple(tiers),
        simple=None
        if simple is None
        else SimpleModel(digest=store.put(simple, ".onnx")[0], inputs=inputs, metrics={}),
        conformal=None
        if quantiles is None
        else Conformal(
            coverage=0.9, negative=quantiles[0], positive=quantiles[1],
            calibrated_on=("2013-01",), measured_on=("2013-02",), measured=0.9,
            by_class=(0.9, 0.9), rows=100, ambiguous=0.1, empty=0.0,
        ),
        exam_windows=("2013-02",),
    )  # fmt: skip
    write_package(store, package)


def training_set(
    features: FeatureSchema = FEATURES, *, model: str = "toy", service: str = SERVICE_DIGEST
) -> TrainingSet:
    frame = DatasetVersion(
        dataset=f"{model}/training_frame",
        key="2013-01",
        version=1,
        digest=hashlib.sha256(f"{model}{service}{features.names}".encode()).hexdigest(),
        uri="memory://frame",
        rows=100,
        bytes=100,
        created_at=datetime.now(UTC),
    )
    return TrainingSet(
        frames=(frame,),
        exam=(frame,),
        features=features,
        service_digest=service,
        as_of="2013-03-01T00:00:00+00:00",
        cells_replayed=0,
    )


def make_champion(
    database: Database,
    store: ArtifactStore,
    content: bytes,
    *,
    model: str = "toy",
    version: str = "1",
    pinned: TrainingSet | None = None,
) -> Champion:
    """Promote a version, as the gate's verdict would."""
    pinned = pinned or training_set(model=model)
    remember(store, model, pinned)
    digest = store.put(content, ".onnx")
    digest = hashlib.sha256(content).hexdigest()
    live = champion_of(database, model)
    return promote(
        database,
        verdict(
            model, version, live.version if live else None, candidate_digest=digest,
            policy_digest=hashlib.sha256(version.encode()).hexdigest(),
        ),
        model_digest=digest,
        run_id=f"run-{version}",
        training_set_digest=pinned.digest,
        trained_through="2013-01",
    )  # fmt: skip


def network_of(features: FeatureSchema, answers: AnswerSchema, *, seed: int = 0) -> bytes:
    """An ONNX model of several classes or a number, of any inputs; missing values are zero."""
    random = np.random.default_rng(seed)
    constants = [
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    nodes, columns, inputs, width = [], [], [], 0
    if features.numerical:
        nodes.append(helper.make_node("Concat", list(features.numerical), ["numerical"], axis=1))
    for name in (*(["numerical"] if features.numerical else []), *features.vectors):
        nodes += [
            helper.make_node("IsNaN", [name], [f"{name}.absent"]),
            helper.make_node("Where", [f"{name}.absent", "zero", name], [f"{name}.present"]),
        ]
        columns.append(f"{name}.present")
    for name in (*features.categorical, *features.texts):
        nodes.append(
            helper.make_node(
                "LabelEncoder", [name], [f"{name}.code"], domain="ai.onnx.ml",
                keys_strings=["blue", "red"], values_floats=[1.0, 2.0], default_float=0.0,
            )
        )  # fmt: skip
        columns.append(f"{name}.code")
        if name in features.texts:
            nodes.append(helper.make_node("Unsqueeze", [f"{name}.code", "axis"], [f"{name}.wide"]))
            columns[-1] = f"{name}.wide"
    for field in features.fields:
        text = field.kind in (FieldKind.CATEGORICAL, FieldKind.TEXT)
        shape = ["rows"] if field.kind is FieldKind.TEXT else ["rows", field.length or 1]
        kind = TensorProto.STRING if text else TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info(field.name, kind, shape))
        width += field.length or 1
    count = len(answers.columns)
    weights = random.normal(0, 1, (width, 1 if answers.quantiles else count))
    # The same weights and rising offsets give rising quantiles.
    weights = np.broadcast_to(weights, (width, count)).astype(np.float32)
    constants += [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.arange(count, dtype=np.float32), "b"),
    ]
    nodes += [
        helper.make_node("Concat", columns, ["all"], axis=1),
        helper.make_node("Gemm", ["all", "w", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["answers"], axis=1)
        if answers.classes
        else helper.make_node("Identity", ["logits"], ["answers"]),
    ]
    output = helper.make_tensor_value_info("answers", TensorProto.FLOAT, ["rows", count])
    model = helper.make_model(
        helper.make_graph(nodes, "toy", inputs, [output], initializer=constants),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=10,
    )
    helper.set_model_props(model, {"aios.answers": answers.model_dump_json()})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
