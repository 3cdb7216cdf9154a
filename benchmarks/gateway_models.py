"""The models of the gateway's benchmark: networks by hand, promoted in a fresh home."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import yaml
from onnx import TensorProto, helper, numpy_helper

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import (
    DatasetVersion,
    FeatureField,
    FeatureSchema,
    FieldKind,
    TrainingSet,
)
from aios_platform.contracts.decisions import Decision, Verdict
from aios_platform.contracts.packages import ServingPackage, TierFigures
from aios_platform.contracts.serving import TierModel
from aios_platform.database import Database
from aios_platform.declarations import COMPONENT
from aios_platform.features.pinned_sets import remember
from aios_platform.inference.packages import write_package
from aios_platform.inference.packed import packed
from aios_platform.inference.quantisation import quantised
from aios_platform.inference.session import Session
from aios_platform.ledger.champions import champion_of, promote
from aios_platform.metrics import log_loss, roc_auc

INPUTS = tuple(f"f{place}" for place in range(20))
# Multiply-adds of a row: 0.1 and 4 million.
SMALL, HEAVY = (256, 256, 128), (1408, 1408, 1408)
SAMPLE_ROWS = 20_000
FEATURES = FeatureSchema(
    fields=tuple(
        FeatureField(name=name, kind=FieldKind.NUMERICAL, origin="request") for name in INPUTS
    )
)
# Name of a model → how it is served. One process serves them all.
SERVED: dict[str, dict[str, Any]] = {
    "small": {},
    "heavy": {},
    "heavy_single": {"batching": {"max_rows": 1}},
    "heavy_int8": {"tiers": [{"name": "fast", "model": "int8"}]},
}


@dataclass(frozen=True)
class Quantisation:
    """What the int8 form of the heavy model loses on a labelled sample.

    Attributes:
        auc: ROC AUC of the full model.
        auc_loss: That of the full model less that of the int8 form.
        log_loss_gain: Log loss of the int8 form less that of the full model.
        largest: Largest difference of a probability.
    """

    auc: float
    auc_loss: float
    log_loss_gain: float
    largest: float


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Standard normal inputs, shape (count, 20), float32, of four decimals."""
    return np.random.default_rng(seed).normal(size=(count, len(INPUTS))).round(4).astype(np.float32)


def network(hidden: tuple[int, ...], *, seed: int = 0) -> bytes:
    """An ONNX model as training exports them: an input per feature, one probability."""
    random = np.random.default_rng(seed)
    constants = [numpy_helper.from_array(np.array(0, np.float32), "zero")]
    nodes = [
        helper.make_node("Concat", list(INPUTS), ["numerical"], axis=1),
        helper.make_node("IsNaN", ["numerical"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "numerical"], ["layer0"]),
    ]
    width = len(INPUTS)
    for place, size in enumerate([*hidden, 1]):
        last = place == len(hidden)
        weights = random.normal(0, np.sqrt(2 / width), (size, width)).astype(np.float32)
        constants += [
            numpy_helper.from_array(weights, f"w{place}"),
            numpy_helper.from_array(np.zeros(size, np.float32), f"b{place}"),
        ]
        out = "logit" if last else f"pre{place}"
        nodes.append(
            helper.make_node(
                "Gemm", [f"layer{place}", f"w{place}", f"b{place}"], [out], name=out, transB=1
            )
        )
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"layer{place + 1}"]))
        width = size
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    nodes += [
        helper.make_node("Sigmoid", ["logit"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1]) for name in INPUTS],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["rows"])],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def fill(database: Database, store: ArtifactStore, defs: Path, folder: Path) -> Quantisation:
    """Declare and promote every model.

    Args:
        database: The ledger's.
        store: The artifact root.
        defs: Where the gateway finds declarations.
        folder: Gets `packed.onnx`, the small model as the peers serve it.

    Returns:
        What the int8 form of the heavy model loses.
    """
    small, heavy = network(SMALL), network(HEAVY)
    (folder / "packed.onnx").write_bytes(packed(small, FEATURES))
    integers = quantised(heavy, _table(rows(1024, seed=1)))
    write_package(store, _package(store, heavy, integers))
    for name, serving in SERVED.items():
        declare(defs, name, serving)
        champion(database, store, name, small if name == "small" else heavy, "1")
    return compared(heavy, integers)


def declare(defs: Path, name: str, serving: dict[str, Any]) -> None:
    """Write a declaration."""
    columns: dict[str, Any] = {
        "id": {"type": "string"},
        "at": {"type": "timestamp"},
        **{name: {"type": "float", "min": -10, "max": 10} for name in INPUTS},
        "label": {"type": "bool", "nullable": True},
        "labelled_at": {"type": "timestamp", "nullable": True},
    }
    attributes = {
        "name": name,
        "owner": "team:benchmarks",
        "windows": {"start": "2013-01"},
        "source": {
            "entrypoint": "benchmarks.source:read_window",
            "rows": "rows",
            "prediction_time": "at",
            "tables": {"rows": {"row_id": ["id"], "timestamp": "at", "columns": columns}},
        },
        "features": {"service": "benchmark_v1", "request": list(INPUTS)},
        "label": {"column": "label", "known_at": "labelled_at"},
        "serving": serving,
    }
    place = defs / name
    place.mkdir(parents=True)
    content = {"type": COMPONENT, "attributes": attributes}
    (place / "defs.yaml").write_text(yaml.safe_dump(content))


def champion(
    database: Database, store: ArtifactStore, model: str, content: bytes, version: str
) -> None:
    """Promote a version, as the gate's verdict would."""
    pinned = _training_set(model)
    remember(store, model, pinned)
    live = champion_of(database, model)
    digest, _ = store.put(content, ".onnx")
    promote(
        database,
        Verdict(
            model=model,
            decision=Decision.PROMOTE,
            candidate_version=version,
            champion_version=live.version if live else None,
            exam_digest=_digest("exam"),
            exam_windows=("2013-12",),
            rules=(),
            candidate_metrics={},
            champion_metrics={},
            decided_at=datetime.now(UTC),
            candidate_digest=digest,
            policy_digest=_digest(f"policy {version}"),
        ),
        model_digest=digest,
        run_id=f"run-{version}",
        training_set_digest=pinned.digest,
        trained_through="2013-01",
    )


def compared(full: bytes, integers: bytes) -> Quantisation:
    """Both forms on rows whose labels are drawn from the full model's probabilities."""
    sample = rows(SAMPLE_ROWS, seed=2)
    truth = Session(full).predict(_table(sample))
    other = Session(integers).predict(_table(sample))
    labels = np.random.default_rng(3).uniform(size=SAMPLE_ROWS) < truth
    return Quantisation(
        auc=roc_auc(labels, truth),
        auc_loss=roc_auc(labels, truth) - roc_auc(labels, other),
        log_loss_gain=log_loss(labels, other) - log_loss(labels, truth),
        largest=float(np.abs(other - truth).max()),
    )


def _package(store: ArtifactStore, heavy: bytes, integers: bytes) -> ServingPackage:
    def figures(model: TierModel, content: bytes) -> TierFigures:
        digest, _ = store.put(content, ".onnx")
        return TierFigures(
            model=model, digest=digest, bytes=len(content), metrics={}, row_ms=0,
            batch_row_us=0, largest_difference=0,
        )  # fmt: skip

    return ServingPackage(
        model="heavy_int8",
        model_digest=hashlib.sha256(heavy).hexdigest(),
        service_digest=_digest("benchmark_v1"),
        features=FEATURES,
        tiers=(figures(TierModel.FULL, heavy), figures(TierModel.INT8, integers)),
        exam_windows=("2013-12",),
    )


def _training_set(model: str) -> TrainingSet:
    frame = DatasetVersion(
        dataset=f"{model}/training_frame",
        key="2013-01",
        version=1,
        digest=_digest(model),
        uri="memory://frame",
        rows=1,
        bytes=1,
        created_at=datetime.now(UTC),
    )
    return TrainingSet(
        frames=(frame,),
        exam=(frame,),
        features=FEATURES,
        service_digest=_digest("benchmark_v1"),
        as_of="2013-03-01T00:00:00+00:00",
        cells_replayed=0,
    )


def _table(matrix: np.ndarray) -> pa.Table:
    return pa.table({name: matrix[:, place] for place, name in enumerate(INPUTS)})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
